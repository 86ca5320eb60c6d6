// Package sessions runs sessions of ordered frames over WebSocket (RFC 6455):
// the client sends pictures and an end mark, answers come back strictly in
// order while the pictures are worked on side by side. docs/stream.md says
// what both sides send.
//
// A session holds no more than its window: a client that sends faster waits,
// or has frames dropped if it wants that, and one that does not read ends its
// session. Every session tells, as its last word, where another can go on.
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

// Config of a session. All fields are needed.
type Config struct {
	Conn *websocket.Conn
	// Window is how many frames are worked on or have answers that are not
	// written yet.
	Window int
	// Latest drops frames that wait when a newer one comes.
	Latest bool
	// From is the number of the first frame.
	From     int64
	MaxBytes int64 // of a frame
	// NewReservation returns the memory of a frame, which has none yet.
	NewReservation func() *body.Reservation
	// Rate is the lowest rate at which a frame may arrive.
	Rate body.Rate
	// Idle is how long a client may send nothing, and WriteTimeout how long an
	// answer may take to be read.
	Idle, WriteTimeout time.Duration
	// PingInterval is the time between two pings. Proxies end connections on which
	// nothing comes for a while.
	PingInterval time.Duration
	// Process gives what is in a picture, or the problem with it as a result that
	// failed, and calls stored once the picture need not be held any more. It
	// returns when ctx ends, and what it gives then is not used.
	Process func(ctx context.Context, pic []byte, stored func()) v1.Result
	// CountOutcome is told the outcome of each frame.
	CountOutcome func(v1.Status)
}

// session is one connection. Four goroutines share it: receive reads from the
// socket, run decides, write writes, and ping keeps it open; each frame in work has
// one more.
type session struct {
	Config
	numbers numbers
	queue   queue

	received chan frame                // from receive
	ended    chan error                // why no more frames come, nil for an end mark; see end
	outcomes chan chan v1.FrameOutcome // to write, in order
	written  chan struct{}             // from write: one for each frame that was begun
}

// skipFactor is how much of a frame that is too large is read to go on with the
// next one, in times of what is allowed.
const skipFactor = 4

// errStopping ends a session because this process stops.
var errStopping = v1.NewProblem(v1.Unavailable, "this instance is stopping; go on with another")

// Serve runs the session until its end mark, an error, or stopping; then what
// was received is answered as long as ctx lives, and the connection is closed.
// The error is for the log: the client was told its own.
func Serve(ctx, stopping context.Context, cfg Config) error {
	s := &session{
		Config: cfg, numbers: numbers{cfg.From}, queue: queue{window: cfg.Window, latest: cfg.Latest},
		received: make(chan frame), ended: make(chan error, 1),
		outcomes: make(chan chan v1.FrameOutcome, cfg.Window), written: make(chan struct{}, cfg.Window),
	}
	s.Rate = cfg.Rate.WithDefaults()
	cfg.Conn.SetReadLimit(-1) // receive has limits of its own
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	receiving, endReceiving := context.WithCancel(ctx)
	defer endReceiving()
	var all sync.WaitGroup
	end := v1.SessionEnd{Next: cfg.From}
	writing := make(chan struct{})
	all.Go(func() {
		defer close(writing)
		if err := s.write(ctx, &end); err != nil {
			cancel(err) // nobody reads any more
		}
	})
	all.Go(func() {
		err := s.receive(receiving)
		s.end(err)
		if err == nil {
			err = s.drain(receiving)
		}
		if errors.Is(err, errDisconnected) {
			cancel(errDisconnected) // nobody waits for what is in work
		}
	})
	all.Go(func() { s.ping(receiving) })
	why := s.schedule(ctx, stopping, &all)
	close(s.outcomes)
	<-writing
	err := s.close(ctx, end, why)
	endReceiving()
	// Reading goes on until the connection is gone.
	cfg.Conn.CloseNow() //nolint:errcheck // it is closed
	all.Wait()
	return err
}

// ping sends pings until ctx ends. A client that does not answer one is not ended for
// that: its answer may stand behind a frame for which there is no room yet.
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
		_ = s.Conn.Ping(wait) // a connection that is broken, reading finds
		cancel()
	}
}

// end says why no more frames come; the first reason counts.
func (s *session) end(why error) {
	select {
	case s.ended <- why:
	default:
	}
}

// startTimeout ends the session with p unless stop is called in time. The connection
// lives on for the last word, which it would not if the context of a read ended.
func (s *session) startTimeout(d time.Duration, p *v1.Problem) (stop func() bool) {
	return time.AfterFunc(d, func() { s.end(p) }).Stop
}

// schedule begins frames as the window allows, until all of them are answered after
// the end. It returns why the session ends, nil after the client's end mark.
func (s *session) schedule(ctx, stopping context.Context, all *sync.WaitGroup) (why error) {
	defer func() { // what is left was not begun
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

// start has a frame worked on; its answer is written in its turn.
func (s *session) start(ctx context.Context, dropped []int64, f frame, all *sync.WaitGroup) {
	turn := make(chan v1.FrameOutcome, len(dropped)+1)
	for _, n := range dropped {
		turn <- v1.FrameOutcome{Frame: n, Status: v1.Dropped}
	}
	s.outcomes <- turn // has room for the window
	all.Go(func() {
		defer close(turn)
		defer f.release()
		a := v1.FrameOutcome{Frame: f.number, Status: v1.Failed, Problem: f.problem}
		if f.problem == nil {
			pic := f.image
			f.image = nil // or it would be held until it is answered
			a = newOutcome(f.number, s.Process(ctx, pic, f.release))
		}
		if ctx.Err() == nil { // or the session is over, and this frame has no answer in it
			turn <- a
		}
	})
}

func newOutcome(n int64, r v1.Result) v1.FrameOutcome {
	if r.Status == v1.Failed {
		return v1.FrameOutcome{Frame: n, Status: v1.Failed, Problem: r.Problem}
	}
	return v1.FrameOutcome{Frame: n, Status: v1.Done, Result: &r}
}

// write writes the answers in order, and notes in end how far it came.
func (s *session) write(ctx context.Context, end *v1.SessionEnd) error {
	for turn := range s.outcomes {
		whole := false
		for a := range turn {
			if err := s.send(ctx, a); err != nil {
				return err
			}
			s.CountOutcome(a.Status)
			end.Frames++
			end.Next = a.Frame + 1
			whole = a.Status != v1.Dropped
		}
		if !whole {
			return ctx.Err() // a gap: nothing after it may be answered
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
	ctx, cancel := context.WithTimeout(ctx, s.WriteTimeout)
	defer cancel()
	if err := s.Conn.Write(ctx, websocket.MessageText, body); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// close says the last word and closes the connection.
func (s *session) close(ctx context.Context, end v1.SessionEnd, why error) error {
	code, reason := websocket.StatusNormalClosure, ""
	var p *v1.Problem
	switch {
	case why == nil:
		end.End = true
	case errors.Is(why, errDisconnected):
		return nil // nobody is there to hear it
	case errors.As(why, &p):
		end.Problem, reason = p, string(p.Code)
		code = closeCode(p)
	case errors.Is(why, context.Canceled): // the grace is over
		end.Problem, reason, code = errStopping, string(errStopping.Code), websocket.StatusGoingAway
	default:
		return why
	}
	if err := s.send(context.WithoutCancel(ctx), end); err != nil {
		return err
	}
	if err := s.Conn.Close(code, reason); err != nil && websocket.CloseStatus(err) == -1 {
		return fmt.Errorf("close session: %w", err)
	}
	return nil
}

// closeCode is the one table of close codes (RFC 6455, section 7.4).
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

// errDisconnected is a client that is no longer there.
var errDisconnected = errors.New("the client is gone")

// receive reads frames until the end mark; what it returns is why it ended.
func (s *session) receive(ctx context.Context) error {
	var said *int64
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
			said = control.Frame
			continue
		}
		f, err := s.readFrame(ctx, r)
		if err != nil {
			return err
		}
		if f.number, err = s.numbers.assign(said); err != nil {
			f.release()
			return err
		}
		said = nil
		select {
		case s.received <- f:
		case <-ctx.Done():
			f.release()
			return ctx.Err()
		}
	}
}

// drain reads on after the end mark, or pings would not be answered, nor would
// it be known that the client is gone. What comes counts for nothing.
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

// pacedMessage reads a message, and ends the session when it arrives too slowly.
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

// pause lets f take time that is not the client's.
func (a *pacedMessage) pause(f func() error) error {
	a.timer.Stop()
	err := f()
	a.pace.Restart(time.Now())
	a.timer.Reset(time.Until(a.pace.Deadline()))
	return err
}

// maxControl bounds a text message.
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

// memoryTimeout is how long a frame waits for memory. Frames that have arrived
// in part hold what they have, so that they could wait for each other for ever.
const memoryTimeout = 30 * time.Second

// readFrame reads a frame and takes memory as it arrives; while there is none,
// the socket is not read. A frame that is too large fails alone, if it is not
// far too large to be skipped.
func (s *session) readFrame(ctx context.Context, r io.Reader) (frame, error) {
	hold, a := s.NewReservation(), s.newPacedMessage(r)
	defer a.timer.Stop()
	pic, err := body.ReadAll(io.LimitReader(a, s.MaxBytes), func(n int64) error {
		return a.pause(func() error { return hold.GrowWait(ctx, n, memoryTimeout) })
	}, s.MaxBytes)
	if err != nil {
		hold.Release()
		var p *v1.Problem
		if errors.As(err, &p) || ctx.Err() != nil {
			return frame{}, err //nolint:wrapcheck // of the memory, or of ctx
		}
		return frame{}, errors.Join(errDisconnected, err)
	}
	f := frame{image: pic, release: hold.Release}
	if int64(len(pic)) < s.MaxBytes {
		return f, nil
	}
	over, err := io.CopyN(io.Discard, a, (skipFactor-1)*s.MaxBytes)
	switch {
	case err == nil:
		f.release()
		return frame{}, v1.NewProblem(v1.TooLarge, "a frame may have %d bytes, and this one goes on", s.MaxBytes).WithLimit(s.MaxBytes)
	case !errors.Is(err, io.EOF):
		f.release()
		return frame{}, errors.Join(errDisconnected, err)
	case over > 0:
		f.image, f.problem = nil, v1.NewProblem(v1.TooLarge, "a frame may have %d bytes", s.MaxBytes).WithLimit(s.MaxBytes)
	}
	return f, nil
}
