package lane

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Handler is what a lane in Go does. Its methods are called one at a time, and
// keep nothing of the bytes that they are given.
//
// An error of Detect or Classify that is a [*v1.Problem] is answered with its
// code, any other with [v1.Internal]; the lane goes on.
type Handler interface {
	// Start loads the models of each pipeline and runs each once, so that
	// what can go wrong with a model goes wrong before the first picture.
	Start(Start) (map[string]Loaded, error)
	// Detect finds the regions of a picture. The ids and types of messages
	// are filled in by Serve.
	Detect(Detect, []byte) (Detected, [][]byte, error)
	// Classify says what the crops are; pixels holds those of all of them.
	Classify(c Classify, pixels []byte) (Classified, error)
}

// Drawer is a [Handler] that can also draw, as the built-in lane of detect does.
// Serve answers a request to draw with [v1.Internal] when its handler is none.
type Drawer interface {
	// Draw returns the image in file, upright and with regions drawn on it,
	// encoded as the request asks. Errors are as for the methods of Handler.
	Draw(d Draw, file []byte) (Drawn, []byte, error)
}

// Inherited returns the socket that the worker handed to this process. The
// worker may go away while a request is at work in code that cannot be
// interrupted: gone is called as soon as that is seen, in a goroutine of its
// own, and usually ends the process.
//
// The socket blocks: a thread that waits in a system call is woken sooner than
// a goroutine that waits for the poller.
func Inherited(gone func()) (*os.File, error) {
	if err := unix.SetNonblock(FD, false); err != nil {
		return nil, fmt.Errorf("open lane socket: file descriptor %d: %w (a lane is started by a worker, not by hand)", FD, err)
	}
	f := os.NewFile(FD, "lane")
	go func() { // ends with the process
		hangUp := []unix.PollFd{{Fd: FD, Events: unix.POLLRDHUP}}
		for {
			_, err := unix.Poll(hangUp, -1)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			gone()
			return
		}
	}()
	return f, nil
}

// Run serves the worker that has started this process, with h, and returns when the
// worker is gone. The process ends at once when that happens while a request is at
// work. It is all that the main function of a lane program needs to call.
func Run(h Handler) error {
	conn, err := Inherited(func() { os.Exit(0) })
	if err != nil {
		return err
	}
	defer conn.Close()
	return Serve(conn, h)
}

// Serve answers the requests that arrive on conn until end of file, which is
// no error.
func Serve(conn io.ReadWriter, h Handler) error {
	var buf []byte // of the last frame; handlers do not keep what they are given
	for {
		facts, pixels, used, err := readFrame(conn, buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		buf = used
		if err := answer(conn, h, facts, pixels); err != nil {
			return err
		}
	}
}

func answer(w io.Writer, h Handler, facts, pixels []byte) error {
	var head struct {
		Type Type   `json:"type"`
		ID   uint64 `json:"id"`
	}
	if err := json.Unmarshal(facts, &head); err != nil {
		return fmt.Errorf("read lane request: %w", err)
	}
	switch head.Type {
	case TypeStart:
		var m Start
		if err := json.Unmarshal(facts, &m); err != nil {
			return fmt.Errorf("read lane start: %w", err)
		}
		if m.Protocol != Protocol {
			return fmt.Errorf("lane start: protocol %d, want %d", m.Protocol, Protocol)
		}
		loaded, err := h.Start(m)
		if err != nil {
			return fmt.Errorf("start lane: %w", err)
		}
		return WriteFrame(w, Ready{Type: TypeReady, Protocol: Protocol, Pipelines: loaded})
	case TypeDetect:
		var m Detect
		if err := json.Unmarshal(facts, &m); err != nil {
			return fmt.Errorf("read lane request: %w", err)
		}
		out, crops, err := h.Detect(m, pixels)
		if err != nil {
			return refuse(w, head.ID, err)
		}
		out.Type, out.ID = TypeDetected, head.ID
		return WriteFrame(w, out, crops...)
	case TypeClassify:
		var m Classify
		if err := json.Unmarshal(facts, &m); err != nil {
			return fmt.Errorf("read lane request: %w", err)
		}
		out, err := h.Classify(m, pixels)
		if err != nil {
			return refuse(w, head.ID, err)
		}
		out.Type, out.ID = TypeClassified, head.ID
		return WriteFrame(w, out)
	case TypeDraw:
		var m Draw
		if err := json.Unmarshal(facts, &m); err != nil {
			return fmt.Errorf("read lane request: %w", err)
		}
		drawer, ok := h.(Drawer)
		if !ok {
			return refuse(w, head.ID, errors.New("this lane does not draw"))
		}
		out, encoded, err := drawer.Draw(m, pixels)
		if err != nil {
			return refuse(w, head.ID, err)
		}
		out.Type, out.ID = TypeDrawn, head.ID
		return WriteFrame(w, out, encoded)
	default:
		return fmt.Errorf("read lane request: unknown type %q", head.Type)
	}
}

func refuse(w io.Writer, id uint64, err error) error {
	code, detail := v1.Internal, err.Error()
	var p *v1.Problem
	if errors.As(err, &p) {
		code, detail = p.Code, p.Detail
	}
	return WriteFrame(w, Failed{Type: TypeFailed, ID: id, Code: code, Detail: detail})
}
