package lane

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Handler is what a lane in Go does. Its methods are called one at a time.
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

// Inherited returns the socket that the worker handed to this process.
func Inherited() (net.Conn, error) {
	f := os.NewFile(FD, "lane")
	if f == nil {
		return nil, fmt.Errorf("open lane socket: file descriptor %d is not open", FD)
	}
	defer f.Close() // FileConn made a copy
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open lane socket: %w (a lane is started by a worker, not by hand)", err)
	}
	return c, nil
}

// Serve answers the requests that arrive on conn until end of file, which is
// no error. The worker may go away while a request is at work in code that
// cannot be interrupted; gone is called as soon as that is seen, and usually
// ends the process.
func Serve(conn io.ReadWriter, h Handler, gone func()) error {
	type frame struct{ facts, pixels []byte }
	frames := make(chan frame)
	failed := make(chan error, 1)
	quit := make(chan struct{})
	defer close(quit)
	go func() { // ends with the connection, or after Serve has returned
		defer close(frames)
		for {
			facts, pixels, err := ReadFrame(conn)
			if err != nil {
				failed <- err
				gone()
				return
			}
			select {
			case frames <- frame{facts, pixels}:
			case <-quit:
				return
			}
		}
	}()
	for f := range frames {
		if err := answer(conn, h, f.facts, f.pixels); err != nil {
			return err
		}
	}
	if err := <-failed; !errors.Is(err, io.EOF) {
		return err
	}
	return nil
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
