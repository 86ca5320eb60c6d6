package lanes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sightmesh/sightmesh/contracts/lane"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Reply is what a lane answered.
type Reply struct {
	Facts  []byte // JSON
	Pixels []byte
}

// Do puts one request to the lane and waits for its reply. request is given
// the id that it must carry; pixels go behind it.
//
// A process that is being replaced is waited for. The error is a [*v1.Problem]
// when the request itself is to blame or its time is over: what the lane
// answered, [v1.LaneDied], [v1.TooSlow], [v1.TooMuchMemory] or
// [v1.DeadlineExceeded]. In all but the first case the process is gone. When
// ctx is cancelled the process is ended too, and the error is that of ctx. Any
// other error may be gone at the next try.
func (l *Lane) Do(ctx context.Context, pipeline string, request func(id uint64) any, pixels ...[]byte) (Reply, error) {
	s, ok := l.slots[pipeline]
	if !ok {
		return Reply{}, fmt.Errorf("no lane program serves pipeline %s", pipeline)
	}
	proc, reply, took, err := l.ask(ctx, s, pipeline, request, pixels)
	if err != nil && ctx.Err() == nil && notToBlame(proc, err) { // once: when it happens again, the request is to blame
		proc, reply, took, err = l.ask(ctx, s, pipeline, request, pixels)
	}
	if proc == nil {
		return Reply{}, err
	}
	l.pool.took(pipeline, took)
	l.pool.metrics.seconds.WithLabelValues(pipeline).Observe(took.Seconds())
	outcome := "done"
	if err != nil {
		outcome = reasonOf(err)
		err = l.problem(ctx, s, proc, err)
		var p *v1.Problem
		if errors.As(err, &p) {
			outcome = string(p.Code)
		}
	}
	l.pool.metrics.jobs.WithLabelValues(pipeline, outcome).Inc()
	return reply, err
}

// notToBlame reports whether a process went away for another reason than the
// request that it had: it was gone before, or an earlier request has left it
// too large.
func notToBlame(proc *process, err error) bool {
	if errors.Is(err, errUnasked) {
		return true
	}
	var grown memoryError
	return errors.As(err, &grown) && proc.jobs.Load() > 0 && grown.by != proc.jobs.Load()
}

// ask puts the request to the process that the slot has now, which is nil when
// there is none to ask.
func (l *Lane) ask(ctx context.Context, s *slot, pipeline string, request func(id uint64) any, pixels [][]byte) (*process, Reply, time.Duration, error) {
	proc, err := s.current(ctx, l.pool.cfg.StartTimeout)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, Reply{}, 0, v1.NewProblem(v1.DeadlineExceeded, "the deadline passed while the lane was being started")
		}
		return nil, Reply{}, 0, fmt.Errorf("wait for a lane: %w", err)
	}
	if st := s.status(pipeline); !st.Ready {
		return nil, Reply{}, 0, fmt.Errorf("pipeline %s is not served: %s", pipeline, st.Reason)
	}
	start := time.Now()
	l.pool.atWork(1)
	proc.working.Store(true)
	reply, err := proc.exchange(ctx, s.prog.Pipelines[pipeline].Timeout, request, pixels)
	proc.working.Store(false)
	l.pool.atWork(-1)
	return proc, reply, time.Since(start), err
}

// problem ends the process unless it has answered properly, and says what that
// means for the request.
func (l *Lane) problem(ctx context.Context, s *slot, proc *process, err error) error {
	var p *v1.Problem
	if errors.As(err, &p) {
		return p
	}
	proc.kill(err)
	<-proc.dead
	cause := proc.cause()
	where := fmt.Sprintf("lane %d of %s", s.lane, s.prog.Name)
	switch {
	case errors.Is(cause, errStopped), errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%s: %w", where, context.Canceled)
	case errors.Is(cause, errDeadline):
		return v1.NewProblem(v1.DeadlineExceeded, "the deadline passed while %s worked", where)
	case errors.Is(cause, errTimeout):
		return v1.NewProblem(v1.TooSlow, "%s was ended after %v", where, timeoutOf(cause))
	case errors.Is(cause, errMemory):
		return v1.NewProblem(v1.TooMuchMemory, "%s was ended at more than %d bytes", where, l.pool.cfg.MemoryLimit).WithLimit(l.pool.cfg.MemoryLimit)
	}
	return v1.NewProblem(v1.LaneDied, "%s %v", where, cause)
}

// timeoutOf is for the message only.
func timeoutOf(err error) time.Duration {
	var t timeoutError
	errors.As(err, &t)
	return t.after
}

type timeoutError struct{ after time.Duration }

func (t timeoutError) Error() string { return fmt.Sprintf("timeout after %v", t.after) }
func (t timeoutError) Unwrap() error { return errTimeout }

// exchange writes a request and reads the reply, in the goroutine of the
// caller: each hop to another costs more than the rest of it.
func (p *process) exchange(ctx context.Context, timeout time.Duration, request func(id uint64) any, pixels [][]byte) (Reply, error) {
	if err := ctx.Err(); err != nil {
		return Reply{}, err
	}
	// Whatever takes too long is ended from outside; the read ends with it.
	defer time.AfterFunc(timeout, func() { p.kill(timeoutError{timeout}) }).Stop()
	defer context.AfterFunc(ctx, func() {
		why := errStopped
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			why = errDeadline
		}
		p.kill(why)
	})()
	p.nextID++
	if err := lane.WriteFrame(p.conn, request(p.nextID), pixels...); err != nil {
		err = p.broken(err)
		if p.diedByItself() {
			err = errUnasked
		}
		return Reply{}, err
	}
	facts, out, err := lane.ReadFrame(p.r)
	if err != nil {
		return Reply{}, p.broken(err)
	}
	var head struct {
		Type   lane.Type `json:"type"`
		ID     uint64    `json:"id"`
		Code   v1.Code   `json:"code"`
		Detail string    `json:"detail"`
	}
	if err := json.Unmarshal(facts, &head); err != nil {
		return Reply{}, fmt.Errorf("%w: %w", errProtocol, err)
	}
	switch head.Type {
	case lane.TypeDetected, lane.TypeClassified, lane.TypeFailed:
	default:
		return Reply{}, fmt.Errorf("%w: answered with %q", errProtocol, head.Type)
	}
	if head.ID != p.nextID {
		return Reply{}, fmt.Errorf("%w: answered request %d when asked %d", errProtocol, head.ID, p.nextID)
	}
	p.jobs.Add(1)
	if head.Type == lane.TypeFailed {
		return Reply{}, v1.NewProblem(head.Code, "%s", head.Detail)
	}
	return Reply{Facts: facts, Pixels: out}, nil
}
