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

// Handler processes the requests to a lane in Go. Its methods are called one at a time, and
// must not retain the bytes that they are given.
//
// An error of Detect or Classify fails the request, with the code of the error if it wraps
// a [*v1.Problem] and with [v1.Internal] otherwise. The lane continues.
type Handler interface {
	// Start loads the models of each pipeline and runs each model once, so that the errors
	// of a model occur before the first image.
	Start(Start) (map[string]Loaded, error)
	// Detect returns the regions of an image, and the pixels of their crops. Serve sets the
	// type and the ID of the reply.
	Detect(Detect, []byte) (Detected, [][]byte, error)
	// Classify returns the results of crops. pixels has the pixels of all of them.
	Classify(c Classify, pixels []byte) (Classified, error)
}

// Drawer is a [Handler] that can also draw, such as the built-in lane of detect. Serve
// fails requests to draw with [v1.Internal] when its handler is not a Drawer.
type Drawer interface {
	// Draw returns the upright image of file with regions drawn on it, encoded as the media
	// type of the request. Errors are as for the methods of Handler.
	Draw(d Draw, file []byte) (Drawn, []byte, error)
}

// Inherited returns the socket that the worker has passed to this process. When the worker
// closes its end, Inherited calls onClose in a separate goroutine, also while a request
// runs in code that cannot be interrupted. onClose usually ends the process.
//
// Inherited fails when the process was started in another way, and has no such socket.
//
// The socket is in blocking mode: a thread in a system call wakes up sooner than a goroutine
// that waits for the poller.
func Inherited(onClose func()) (*os.File, error) {
	if _, err := unix.GetsockoptInt(FD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, fmt.Errorf("open lane socket: file descriptor %d: %w (a lane is started by a worker, not by hand)",
			FD, err)
	}
	if err := unix.SetNonblock(FD, false); err != nil {
		return nil, fmt.Errorf("open lane socket: file descriptor %d: %w", FD, err)
	}
	f := os.NewFile(FD, "lane")
	go func() { // ends with the process
		hangUp := []unix.PollFd{{Fd: FD, Events: unix.POLLRDHUP}}
		for {
			_, err := unix.Poll(hangUp, -1)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			onClose()
			return
		}
	}()
	return f, nil
}

// Run serves the worker that has started this process, with h. It returns when the worker
// closes the socket; during a request the process then exits immediately. The main
// function of a lane program only needs to call Run.
func Run(h Handler) error {
	conn, err := Inherited(func() { os.Exit(0) })
	if err != nil {
		return err
	}
	defer conn.Close()
	return Serve(conn, h)
}

// Serve reads requests from conn and writes replies to it, until end of file, which is not
// an error.
func Serve(conn io.ReadWriter, h Handler) error {
	var buf []byte // of the last frame; handlers do not retain it
	for {
		facts, pixels, used, err := readFrame(conn, buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		buf = used
		if err := reply(conn, h, facts, pixels); err != nil {
			return err
		}
	}
}

// reply processes one request and writes the reply.
func reply(w io.Writer, h Handler, facts, pixels []byte) error {
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
			return writeFailed(w, head.ID, err)
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
			return writeFailed(w, head.ID, err)
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
			return writeFailed(w, head.ID, errors.New("this lane does not draw"))
		}
		out, encoded, err := drawer.Draw(m, pixels)
		if err != nil {
			return writeFailed(w, head.ID, err)
		}
		out.Type, out.ID = TypeDrawn, head.ID
		return WriteFrame(w, out, encoded)
	default:
		return fmt.Errorf("read lane request: unknown type %q", head.Type)
	}
}

// writeFailed writes the reply to a request that failed with err.
func writeFailed(w io.Writer, id uint64, err error) error {
	code, detail := v1.Internal, err.Error()
	var p *v1.Problem
	if errors.As(err, &p) {
		code, detail = p.Code, p.Detail
	}
	return WriteFrame(w, Failed{Type: TypeFailed, ID: id, Code: code, Detail: detail})
}
