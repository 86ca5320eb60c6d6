package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/internal/jsonerror"
)

// Detect sends an image to the lane and returns its regions. It sets the type and the ID of
// the request. The reply has the requested crops, and no others, in the order of the
// regions, each with the number of its region. The second result has their pixels, one
// crop after the other.
//
// The reply of the lane is checked. The error of an invalid reply is a [*v1.Problem] that
// names the field and its value; it is permanent, because the lane would send the same
// reply again.
//
// Requests to one process wait for each other, and for a process that is being replaced.
//
// The error is a [*v1.Problem] when the request caused it or its deadline passed: the problem
// in the reply, [v1.LaneDied], [v1.TooSlow], [v1.TooMuchMemory] or [v1.DeadlineExceeded]. The
// process is killed in all cases but the first. When ctx is cancelled, the process is killed
// too, and the error is that of ctx. Any other error is temporary.
func (l *Lane) Detect(ctx context.Context, r lane.Detect, image []byte) (lane.Detected, []byte, error) {
	r.Type, r.ID = lane.TypeDetect, l.pool.lastID.Add(1)
	var found lane.Detected
	pixels, err := l.call(ctx, request{r.Pipeline, r.ID, r, image, lane.TypeDetected}, &found, &found.Timing)
	if err == nil {
		err = checkDetected(found, r.MaxRegions)
	}
	if err != nil {
		return found, nil, err
	}
	found.Crops, pixels, err = selectCrops(r, found, pixels)
	return found, pixels, err
}

// Classify sends crops to the lane and returns their labels, texts and words. pixels has the
// pixels of the crops, one crop after the other. It sets the type and the ID of the request.
// The errors are those of [Lane.Detect].
func (l *Lane) Classify(ctx context.Context, r lane.Classify, pixels []byte) (lane.Classified, error) {
	r.Type, r.ID = lane.TypeClassify, l.pool.lastID.Add(1)
	var named lane.Classified
	_, err := l.call(ctx, request{r.Pipeline, r.ID, r, pixels, lane.TypeClassified}, &named, &named.Timing)
	if err == nil {
		err = checkClassified(named, r.Crops)
	}
	return named, err
}

// Draw sends an image and regions to the lane, and returns the encoded image on which they
// are drawn. It sets the type and the ID of the request. The errors are those of
// [Lane.Detect].
func (l *Lane) Draw(ctx context.Context, r lane.Draw, image []byte) (lane.Drawn, []byte, error) {
	r.Type, r.ID = lane.TypeDraw, l.pool.lastID.Add(1)
	var drawn lane.Drawn
	encoded, err := l.call(ctx, request{r.Pipeline, r.ID, r, image, lane.TypeDrawn}, &drawn, nil)
	if err == nil {
		err = checkDrawn(drawn, encoded, r.MediaType)
	}
	return drawn, encoded, err
}

// request is a request to a lane.
type request struct {
	pipeline string
	id       uint64
	facts    any // to be encoded as JSON
	pixels   []byte
	want     lane.Type // type of a successful reply
}

// reply is the reply of a lane.
type reply struct {
	facts  []byte // JSON
	pixels []byte
}

// call sends a request to the lane and decodes the reply into out. It records a span, with
// child spans of the times that the lane has measured. timing is nil for a reply without
// times.
func (l *Lane) call(ctx context.Context, r request, out any, timing *lane.Timing) (pixels []byte, err error) {
	start := time.Now()
	ctx, end := l.pool.cfg.Tracer.StartSpan(ctx, "lane", start, l.attributes(r.pipeline)...)
	got, err := l.callWithRetry(ctx, r)
	defer func() { end(time.Now(), err) }()
	if err != nil {
		return nil, err
	}
	if err := decodeReply(got.facts, out); err != nil {
		return nil, err
	}
	if timing != nil {
		l.traceTiming(ctx, start, *timing)
	}
	return got.pixels, nil
}

// attributes returns the attributes of the span of a request.
func (l *Lane) attributes(pipeline string) []slog.Attr {
	attrs := []slog.Attr{slog.String("pipeline", pipeline)}
	if s, ok := l.slots[pipeline]; ok {
		attrs = append(attrs, slog.Int("lane", s.lane), slog.String("program", s.prog.Name))
	}
	return attrs
}

// addEvent records in the span of a request that its process ended, and why.
func (l *Lane) addEvent(ctx context.Context, name string, proc *process, reason error) {
	attrs := []slog.Attr{slog.String("reason", restartReason(reason))}
	if proc != nil {
		attrs = append(attrs, slog.Int("pid", proc.pid()))
	}
	l.pool.cfg.Tracer.AddEvent(ctx, name, attrs...)
}

// traceTiming records spans of the times that a lane has measured.
func (l *Lane) traceTiming(ctx context.Context, start time.Time, t lane.Timing) {
	decoded := start.Add(milliseconds(t.DecodeMS))
	if t.DecodeMS > 0 {
		_, end := l.pool.cfg.Tracer.StartSpan(ctx, "decode", start)
		end(decoded, nil)
	}
	_, end := l.pool.cfg.Tracer.StartSpan(ctx, "infer", decoded)
	end(decoded.Add(milliseconds(t.InferMS)), nil)
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// callWithRetry sends a request to the process that serves its pipeline and waits for the reply. It
// retries once when the process ended for a reason other than the request.
func (l *Lane) callWithRetry(ctx context.Context, r request) (reply, error) {
	s, ok := l.slots[r.pipeline]
	if !ok {
		return reply{}, fmt.Errorf("no lane program serves pipeline %s", r.pipeline)
	}
	proc, got, serviceTime, err := l.callOnce(ctx, s, r)
	if err != nil && ctx.Err() == nil && isBlameless(proc, err) { // once: the second time, the request is the cause
		l.addEvent(ctx, "retry", proc, err)
		proc, got, serviceTime, err = l.callOnce(ctx, s, r)
	}
	if proc == nil {
		return reply{}, err
	}
	l.pool.addServiceTime(r.pipeline, serviceTime)
	outcome := "done"
	if err != nil {
		outcome = restartReason(err)
		err = l.requestError(ctx, s, proc, err)
		var p *v1.Problem
		if errors.As(err, &p) {
			outcome = string(p.Code)
		}
	}
	l.pool.cfg.Metrics.AddRequest(r.pipeline, outcome, serviceTime)
	return got, err
}

// isBlameless reports whether a process ended for a reason other than its request: it had
// ended before, or an earlier request had made it too large.
func isBlameless(proc *process, err error) bool {
	if errors.Is(err, errNotSent) {
		return true
	}
	var grown memoryError
	return errors.As(err, &grown) && proc.jobs.Load() > 0 && grown.by != proc.jobs.Load()
}

// callOnce sends a request to the process of a slot. The returned process is nil when none was
// ready.
func (l *Lane) callOnce(ctx context.Context, s *slot, r request) (*process, reply, time.Duration, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	proc, err := s.awaitProcess(ctx, l.pool.cfg.StartTimeout)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, reply{}, 0, v1.NewProblem(v1.DeadlineExceeded,
				"the deadline passed while the lane was being started")
		}
		return nil, reply{}, 0, fmt.Errorf("wait for a lane: %w", err)
	}
	if st := s.status(r.pipeline); !st.Ready {
		return nil, reply{}, 0, fmt.Errorf("pipeline %s is not served: %s", r.pipeline, st.Reason)
	}
	start := time.Now()
	l.pool.startRequest(proc, busyRequest{r.pipeline, start})
	got, err := proc.exchange(ctx, s.prog.Pipelines[r.pipeline].Timeout, r)
	l.pool.endRequest(proc)
	return proc, got, time.Since(start), err
}

// requestError returns the error of a request. It kills the process, unless err is a problem in
// its reply.
func (l *Lane) requestError(ctx context.Context, s *slot, proc *process, err error) error {
	var p *v1.Problem
	if errors.As(err, &p) {
		return p
	}
	proc.kill(err)
	<-proc.dead
	cause := proc.endReason()
	isStopped := errors.Is(cause, errStopped) || errors.Is(ctx.Err(), context.Canceled)
	if isStopped {
		l.addEvent(ctx, "hand-back", proc, cause)
	} else {
		l.addEvent(ctx, "restart", proc, cause)
	}
	where := fmt.Sprintf("lane %d of %s", s.lane, s.prog.Name)
	switch {
	case isStopped:
		return fmt.Errorf("%s: %w", where, context.Canceled)
	case errors.Is(cause, errDeadline):
		return v1.NewProblem(v1.DeadlineExceeded, "the deadline passed while %s worked", where)
	case errors.Is(cause, errTimeout):
		return v1.NewProblem(v1.TooSlow, "%s was ended after %v", where, timeoutDuration(cause))
	case errors.Is(cause, errMemory):
		limit := s.prog.Memory
		return v1.NewProblem(v1.TooMuchMemory, "%s was ended at more than %d bytes (%s)",
			where, limit.Bytes, limit.Setting).WithLimit(limit.Bytes)
	}
	return v1.NewProblem(v1.LaneDied, "%s %v", where, cause)
}

// timeoutDuration returns the timeout of a [timeoutError], for messages.
func timeoutDuration(err error) time.Duration {
	var t timeoutError
	errors.As(err, &t)
	return t.after
}

type timeoutError struct{ after time.Duration }

func (t timeoutError) Error() string { return fmt.Sprintf("timeout after %v", t.after) }
func (t timeoutError) Unwrap() error { return errTimeout }

// exchange writes a request and reads the reply. It does so in the goroutine of the caller,
// because a switch to another goroutine takes longer than the rest of it.
func (p *process) exchange(ctx context.Context, timeout time.Duration, r request) (reply, error) {
	// The process is killed when it takes too long, which ends the read.
	defer time.AfterFunc(timeout, func() { p.kill(timeoutError{timeout}) }).Stop()
	defer context.AfterFunc(ctx, func() {
		reason := errStopped
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			reason = errDeadline
		}
		p.kill(reason)
	})()
	if err := lane.WriteFrame(p.conn, r.facts, r.pixels); err != nil {
		err = p.connError(err)
		if p.diedByItself() {
			err = errNotSent
		}
		return reply{}, err
	}
	facts, pixels, err := lane.ReadFrame(p.r)
	if err != nil {
		return reply{}, p.connError(err)
	}
	var head struct {
		Type   lane.Type `json:"type"`
		ID     uint64    `json:"id"`
		Code   v1.Code   `json:"code"`
		Detail string    `json:"detail"`
	}
	if err := json.Unmarshal(facts, &head); err != nil {
		return reply{}, fmt.Errorf("%w: the reply is invalid: %s", errProtocol, jsonerror.Describe("", facts, err))
	}
	switch {
	case head.Type != r.want && head.Type != lane.TypeFailed:
		return reply{}, fmt.Errorf("%w: the reply has the type %q, want %q or %q", errProtocol, head.Type, r.want,
			lane.TypeFailed)
	case head.ID != r.id:
		return reply{}, fmt.Errorf("%w: the reply has the id %d, want %d", errProtocol, head.ID, r.id)
	}
	if p.jobs.Add(1) <= fieldChecks {
		p.logUnknownField(facts, head.Type)
	}
	if head.Type == lane.TypeFailed {
		return reply{}, newFailureProblem(head.Code, head.Detail)
	}
	return reply{facts, pixels}, nil
}
