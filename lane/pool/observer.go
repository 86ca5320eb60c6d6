package pool

import (
	"context"
	"log/slog"
	"time"
)

// Metrics receives the metrics of a pool. Its methods must be safe for concurrent use.
type Metrics interface {
	// SetBusy sets the number of lanes that process a request.
	SetBusy(lanes int)
	// AddRequest counts a request that a process has worked on. serviceTime is how long the
	// lane was held. outcome is done, the code of the problem, or the reason why the process
	// ended.
	AddRequest(pipeline, outcome string, serviceTime time.Duration)
	// AddRestart counts a process that has ended and is replaced. reason is died, timeout,
	// deadline, memory, protocol, stopped or recycled.
	AddRestart(program, reason string)
}

// Tracer records a span for each request, named lane, with a child span for each time that
// the lane has measured, named decode and infer. Its methods must be safe for concurrent use.
type Tracer interface {
	// StartSpan starts a span as a child of the span in ctx, and returns a context with the
	// new span. The caller ends the span with end; err is nil if the operation succeeded.
	// The span lane has the attributes pipeline, lane and program, the others have none.
	StartSpan(ctx context.Context, name string, start time.Time, attrs ...slog.Attr,
	) (spanCtx context.Context, end func(at time.Time, err error))
	// AddEvent adds an event to the span in ctx. The attributes are reason and pid: why which
	// process ended. The events are
	//
	//	retry      the process ended for a reason other than the request, which is sent to another
	//	restart    the process ended because of the request; another is started
	//	hand-back  the process was killed because the client has disconnected or the worker stops
	AddEvent(ctx context.Context, name string, attrs ...slog.Attr)
}

// discard is the [Metrics] and the [Tracer] of a pool without them.
type discard struct{}

func (discard) SetBusy(int)                              {}
func (discard) AddRequest(string, string, time.Duration) {}
func (discard) AddRestart(string, string)                {}

func (discard) AddEvent(context.Context, string, ...slog.Attr) {}

func (discard) StartSpan(
	ctx context.Context, _ string, _ time.Time, _ ...slog.Attr,
) (context.Context, func(time.Time, error)) {
	return ctx, func(time.Time, error) {}
}
