// Package sessions serves sessions of ordered frames over WebSocket (RFC 6455). The client
// sends images and an end mark. Frames are processed concurrently, and their outcomes are
// written strictly in order. docs/stream.md describes the messages.
//
// A session has at most its window of frames in memory. A client that sends faster waits,
// or gets frames dropped if it chose that. The session of a client that does not read ends.
// The last message of every session says at which frame another session can continue.
//
// # States of a session
//
//	          end mark, problem of the client,            outcomes of all
//	          idle, ingress stops                         frames sent
//	open ───────────────────────────────────► finishing ─────────────────► end sent, closed
//	  │                                           │
//	  └── client disconnected, or reads ◄─────────┘
//	      too slowly: closed without an end
//
// In finishing, no more frames are read. When the time of ingress to stop is over, the session
// sends its end without the outcomes that are missing.
//
// # States of a frame
//
//	          window has room               result, or problem       its turn
//	waiting ───────────────────► in a job ────────────────────► ended ─────────► sent
//	   │                                                                           ▲
//	   └── newer frame, with drop=latest ──► dropped ── before the next frame ─────┘
//
// One frame waits. Without drop=latest, the socket is not read while one waits. A frame is in
// the window from its job until its outcome is sent.
package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/coder/websocket"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/body"
)

// Config is the configuration of a session. All fields are required.
type Config struct {
	Conn *websocket.Conn
	// Window is the maximum of frames that are in progress or have outcomes that are not written yet.
	Window int
	// Latest is whether a newer frame replaces a waiting one.
	Latest bool
	// From is the number of the first frame.
	From     int64
	MaxBytes int64 // maximum of a frame
	// NewReservation returns an empty reservation of memory for a frame.
	NewReservation func() *body.Reservation
	// Rate is the lowest rate at which a frame may arrive.
	Rate body.Rate
	// Idle is how long a client may send nothing. WriteTimeout is how long a client may take to read an
	// outcome.
	Idle, WriteTimeout time.Duration
	// PingInterval is the interval of pings. Proxies close idle connections.
	PingInterval time.Duration
	// Process returns the result of an image, or a failed result with its problem. It calls stored when the
	// image is no longer needed. It returns when ctx ends; its result is then ignored.
	Process func(ctx context.Context, image []byte, stored func()) v1.Result
	// CountOutcome is called with the status of each frame.
	CountOutcome func(v1.Status)
}

// session is one connection. It has four goroutines: receive reads from the socket, schedule starts frames,
// write writes outcomes, and ping keeps the connection open. Each frame in progress has another one.
type session struct {
	Config
	numbers numbers
	queue   queue

	received chan frame                // from receive
	ended    chan error                // why the session ends, nil after the end mark; see end
	outcomes chan chan v1.FrameOutcome // to write, in order
	written  chan struct{}             // from write: one for each finished frame
}

// skipFactor limits how much of a frame that is too large is read in order to continue with the next frame,
// as a multiple of MaxBytes.
const skipFactor = 4

// errStopping ends a session because the process stops.
var errStopping = v1.NewProblem(v1.Unavailable, "this instance is stopping; go on with another")

// Serve runs the session until its end mark, an error, or the end of stopping. It then finishes the received
// frames while ctx lives, and closes the connection. The returned error is for the log; the client has
// already got its problem.
func Serve(ctx, stopping context.Context, cfg Config) error {
	s := &session{
		Config: cfg, numbers: numbers{cfg.From}, queue: queue{window: cfg.Window, latest: cfg.Latest},
		received: make(chan frame), ended: make(chan error, 1),
		outcomes: make(chan chan v1.FrameOutcome, cfg.Window), written: make(chan struct{}, cfg.Window),
	}
	s.Rate = cfg.Rate.WithDefaults()
	cfg.Conn.SetReadLimit(-1) // receive has its own limits
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	receiving, endReceiving := context.WithCancel(ctx)
	defer endReceiving()
	var all sync.WaitGroup
	end := v1.SessionEnd{Next: cfg.From}
	writing := make(chan struct{})
	all.Go(func() {
		defer close(writing)
		if err := s.write(ctx, cancel, &end); err != nil {
			cancel(err)
		}
	})
	all.Go(func() {
		err := s.receive(receiving)
		s.end(err)
		if err == nil {
			err = s.drain(receiving)
		}
		if errors.Is(err, errDisconnected) {
			cancel(errDisconnected) // no client waits for the frames in progress
		}
	})
	all.Go(func() { s.ping(receiving) })
	why := s.schedule(ctx, stopping, &all)
	close(s.outcomes)
	<-writing
	err := s.close(ctx, end, why)
	endReceiving()
	// Reading continues until the connection is closed.
	cfg.Conn.CloseNow() //nolint:errcheck // it is closed
	all.Wait()
	return err
}

// ping sends pings until ctx ends. A missing pong does not end the session, because the pong may be behind a
// frame that waits for memory.
func (s *session) ping(ctx context.Context) {
	tick := time.NewTicker(s.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		wait, cancel := context.WithTimeout(ctx, s.PingInterval)
		_ = s.Conn.Ping(wait) // a read detects a broken connection
		cancel()
	}
}

// end sets why the session ends. The first reason wins.
func (s *session) end(why error) {
	select {
	case s.ended <- why:
	default:
	}
}

// startTimeout ends the session with p unless stop is called in time. The connection stays open for the last
// message; with a context for the read it would not.
func (s *session) startTimeout(d time.Duration, p *v1.Problem) (stop func() bool) {
	return time.AfterFunc(d, func() { s.end(p) }).Stop
}

// schedule starts frames as the window allows, until all received frames are finished. It returns why the
// session ends, or nil after the end mark.
func (s *session) schedule(ctx, stopping context.Context, all *sync.WaitGroup) (why error) {
	defer func() { // the waiting frame was not started
		if s.queue.waiting != nil {
			s.queue.waiting.release()
		}
	}()
	ended := false
	for !ended || !s.queue.empty() {
		if dropped, f, ok := s.queue.next(); ok {
			s.start(ctx, dropped, f, all)
			continue
		}
		frames := s.received
		if ended || !s.queue.canOffer() {
			frames = nil // back-pressure: the socket is not read
		}
		end, stop := s.ended, stopping.Done()
		if ended {
			end, stop = nil, nil
		}
		select {
		case f := <-frames:
			s.queue.offer(f)
		case why = <-end:
			ended = true
		case <-stop:
			ended, why = true, errStopping
		case <-s.written:
			s.queue.done()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return why
}

// start processes a frame. Its outcome is written in order.
func (s *session) start(ctx context.Context, dropped []int64, f frame, all *sync.WaitGroup) {
	perFrame := make(chan v1.FrameOutcome, len(dropped)+1)
	for _, n := range dropped {
		perFrame <- v1.FrameOutcome{Frame: n, Status: v1.Dropped}
	}
	s.outcomes <- perFrame // does not block: the channel has the size of the window
	all.Go(func() {
		defer close(perFrame)
		defer f.release()
		a := v1.FrameOutcome{Frame: f.number, Status: v1.Failed, Problem: f.problem}
		if f.problem == nil {
			image := f.image
			f.image = nil // release the image before the outcome is written
			a = newOutcome(f.number, s.Process(ctx, image, f.release))
		}
		if ctx.Err() == nil { // after the end of the session, the frame has no outcome
			perFrame <- a
		}
	})
}

func newOutcome(n int64, r v1.Result) v1.FrameOutcome {
	if r.Status == v1.Failed {
		return v1.FrameOutcome{Frame: n, Status: v1.Failed, Problem: r.Problem}
	}
	return v1.FrameOutcome{Frame: n, Status: v1.Done, Result: &r}
}

// write writes the outcomes in order, and updates end. It cancels ctx when the client does not read.
func (s *session) write(ctx context.Context, cancel context.CancelCauseFunc, end *v1.SessionEnd) error {
	for perFrame := range s.outcomes {
		complete := false
		for a := range perFrame {
			// A write that is cancelled closes the connection, which then looks like one of the client that has
			// disconnected. So the cause comes first.
			timeout := time.AfterFunc(s.WriteTimeout, func() { cancel(errNotReading) })
			err := s.send(ctx, a)
			timeout.Stop()
			if err != nil {
				return err
			}
			s.CountOutcome(a.Status)
			end.Frames++
			end.Next = a.Frame + 1
			complete = a.Status != v1.Dropped
		}
		if !complete {
			return ctx.Err() // after a missing outcome, no later one may be written
		}
		select {
		case s.written <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *session) send(ctx context.Context, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := s.Conn.Write(ctx, websocket.MessageText, body); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// close writes the last message and closes the connection.
func (s *session) close(ctx context.Context, end v1.SessionEnd, why error) error {
	code, reason := websocket.StatusNormalClosure, ""
	var p *v1.Problem
	switch {
	case why == nil:
		end.End = true
	case errors.Is(why, errDisconnected):
		return nil // the client has disconnected
	case errors.As(why, &p):
		end.Problem, reason = p, string(p.Code)
		code = closeCode(p)
	case errors.Is(why, context.Canceled): // the grace period is over
		end.Problem, reason, code = errStopping, string(errStopping.Code), websocket.StatusGoingAway
	default:
		return why
	}
	sending, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.WriteTimeout)
	defer cancel()
	if err := s.send(sending, end); err != nil {
		return err
	}
	if err := s.Conn.Close(code, reason); err != nil && websocket.CloseStatus(err) == -1 {
		return fmt.Errorf("close session: %w", err)
	}
	return nil
}

// closeCode returns the close code (RFC 6455, section 7.4) of a problem.
func closeCode(p *v1.Problem) websocket.StatusCode {
	switch p.Code {
	case v1.Unavailable:
		return websocket.StatusGoingAway
	case v1.TooLarge:
		return websocket.StatusMessageTooBig
	case v1.Overloaded:
		return websocket.StatusTryAgainLater
	}
	return websocket.StatusPolicyViolation
}

// errNotReading is the error when the client does not read its outcomes.
var errNotReading = errors.New("the client does not read the outcomes")

// errDisconnected is the error when the client has disconnected.
var errDisconnected = errors.New("the client has disconnected")

// receive reads frames until the end mark. It returns why the session ends.
func (s *session) receive(ctx context.Context) error {
	var number *int64
	for {
		kind, r, err := s.nextMessage(ctx)
		if err != nil {
			return err
		}
		if kind == websocket.MessageText {
			control, err := s.readControl(r)
			if err != nil || control.End {
				return err
			}
			number = control.Frame
			continue
		}
		f, err := s.readFrame(ctx, r)
		if err != nil {
			return err
		}
		if f.number, err = s.numbers.assign(number); err != nil {
			f.release()
			return err
		}
		number = nil
		select {
		case s.received <- f:
		case <-ctx.Done():
			f.release()
			return ctx.Err()
		}
	}
}

// drain discards messages after the end mark, so that pings get replies and a disconnect is detected.
func (s *session) drain(ctx context.Context) error {
	for {
		_, r, err := s.Conn.Reader(ctx)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err != nil {
			return errors.Join(errDisconnected, err)
		}
	}
}

// nextMessage waits for a message.
func (s *session) nextMessage(ctx context.Context) (websocket.MessageType, io.Reader, error) {
	defer s.startTimeout(s.Idle, v1.NewProblem(v1.Idle, "nothing came for %v", s.Idle))()
	kind, r, err := s.Conn.Reader(ctx)
	if err != nil {
		return 0, nil, errors.Join(errDisconnected, err)
	}
	return kind, r, nil
}

// pacedMessage reads a message, and ends the session when the message arrives too slowly.
type pacedMessage struct {
	io.Reader
	pace  *body.Pace
	timer *time.Timer
}

func (s *session) newPacedMessage(r io.Reader) *pacedMessage {
	pace := body.NewPace(s.Rate, time.Now())
	tooSlow := s.Rate.Problem("a message")
	return &pacedMessage{r, pace, time.AfterFunc(time.Until(pace.Deadline()), func() { s.end(tooSlow) })}
}

func (a *pacedMessage) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if a.pace.Add(n, time.Now()) {
		a.timer.Reset(time.Until(a.pace.Deadline()))
	}
	return n, err //nolint:wrapcheck // of the message
}

// pause excludes the time of f from the time of the message.
func (a *pacedMessage) pause(f func() error) error {
	a.timer.Stop()
	err := f()
	a.pace.Restart(time.Now())
	a.timer.Reset(time.Until(a.pace.Deadline()))
	return err
}

// maxControl is the maximum size of a text message, in bytes.
const maxControl = 4096

func (s *session) readControl(r io.Reader) (v1.SessionControl, error) {
	a := s.newPacedMessage(r)
	defer a.timer.Stop()
	var c v1.SessionControl
	data, err := io.ReadAll(io.LimitReader(a, maxControl+1))
	if err != nil {
		return c, errors.Join(errDisconnected, err)
	}
	if len(data) > maxControl {
		return c, v1.NewProblem(v1.InvalidMessage, "a text message may have %d bytes", maxControl).WithLimit(maxControl)
	}
	if err := json.Unmarshal(data, &c); err != nil || !c.End && c.Frame == nil {
		return c, v1.NewProblem(v1.InvalidMessage, `a text message is {"frame": N} or {"end": true}`)
	}
	return c, nil
}

// memoryTimeout is how long a frame waits for memory. Without a limit, frames that have arrived in part could
// wait for each other forever.
const memoryTimeout = 30 * time.Second

// readFrame reads a frame and reserves memory as it arrives. It does not read the socket while it waits for
// memory. A frame that is too large fails alone, unless it is too large to skip.
func (s *session) readFrame(ctx context.Context, r io.Reader) (frame, error) {
	reservation, a := s.NewReservation(), s.newPacedMessage(r)
	defer a.timer.Stop()
	image, err := body.ReadAll(io.LimitReader(a, s.MaxBytes), func(n int64) error {
		return a.pause(func() error { return reservation.GrowWait(ctx, n, memoryTimeout) })
	}, s.MaxBytes)
	if err != nil {
		reservation.Release()
		var p *v1.Problem
		if errors.As(err, &p) || ctx.Err() != nil {
			return frame{}, err //nolint:wrapcheck // of the memory, or of ctx
		}
		return frame{}, errors.Join(errDisconnected, err)
	}
	f := frame{image: image, release: reservation.Release}
	if int64(len(image)) < s.MaxBytes {
		return f, nil
	}
	over, err := io.CopyN(io.Discard, a, (skipFactor-1)*s.MaxBytes)
	switch {
	case err == nil:
		f.release()
		return frame{}, v1.NewProblem(v1.TooLarge, "a frame may have %d bytes, and this one goes on",
			s.MaxBytes).WithLimit(s.MaxBytes)
	case !errors.Is(err, io.EOF):
		f.release()
		return frame{}, errors.Join(errDisconnected, err)
	case over > 0:
		f.image, f.problem = nil, v1.NewProblem(v1.TooLarge, "a frame may have %d bytes", s.MaxBytes).WithLimit(s.MaxBytes)
	}
	return f, nil
}
