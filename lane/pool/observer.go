package pool

import (
	"context"
	"log/slog"
	"time"
)

// Metrics counts what a pool does. Its methods are called by several goroutines
// at once.
type Metrics interface {
	// SetBusy sets how many lanes work on a request.
	SetBusy(lanes int)
	// AddRequest counts a request that a process worked on. serviceTime is how
	// long it held the lane. outcome is done, or the code of the problem, or the
	// reason for which the process ended.
	AddRequest(pipeline, outcome string, serviceTime time.Duration)
	// AddRestart counts a process that ended and is replaced. reason is died,
	// timeout, deadline, memory, protocol, stopped or recycled.
	AddRestart(program, reason string)
}

// Tracer records a span for each request, named lane, and below it one for each
// time that the lane has measured, named decode and infer. Its method is called
// by several goroutines at once.
type Tracer interface {
	// StartSpan begins a span as a child of that in ctx, and returns the context
	// of the new one. The caller ends the span with end; err is nil unless what
	// the span stands for has failed. The attributes are pipeline, lane and program
	// of a span named lane, and none of the others.
	StartSpan(ctx context.Context, name string, start time.Time, attrs ...slog.Attr,
	) (spanCtx context.Context, end func(at time.Time, err error))
	// AddEvent records what happened during the span in ctx. The attributes are
	// reason and pid, which say why which process ended. The events are
	//
	//	retry      the process ended, and the request was not to blame; it is put to another
	//	restart    the process ended with the request; another is started
	//	hand-back  the process was ended because the client has left or the worker stops
	AddEvent(ctx context.Context, name string, attrs ...slog.Attr)
}

// discard is the [Metrics] and the [Tracer] of a pool that is given none.
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
