package telemetry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/spantest"
)

// record returns the span that f was called with, as it is exported.
func record(t *testing.T, f func(trace.Span)) sdktrace.ReadOnlySpan {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	_, span := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("t").Start(t.Context(), "s")
	f(span)
	span.End()
	return spans.Ended()[0]
}

func TestFail_RecordsTheTypeOfTheError(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"lane-died":           fmt.Errorf("wrapped: %w", v1.NewProblem(v1.LaneDied, "")),
		"cancelled":           fmt.Errorf("wrapped: %w", context.Canceled),
		"deadline-exceeded":   fmt.Errorf("wrapped: %w", context.DeadlineExceeded),
		"*errors.errorString": fmt.Errorf("wrapped: %w", errors.New("other")),
	} {
		s := record(t, func(s trace.Span) { Fail(s, err) })
		if got := spantest.Attributes(s.Attributes())["error.type"]; got != want {
			t.Errorf("%v has the error.type %q, want %q", err, got, want)
		}
		if s.Status().Code != codes.Error {
			t.Errorf("%v leaves the status %v, want an error", err, s.Status().Code)
		}
		var names []string
		for _, e := range s.Events() {
			names = append(names, e.Name)
		}
		if want := []string{"exception"}; !slices.Equal(names, want) {
			t.Errorf("%v makes the events %q, want %q", err, names, want)
		}
	}
}

// TestReject_FailsASpanOnlyForTheServer: the problem of a client is no error of the
// server, whatever way its request came.
func TestReject_FailsASpanOnlyForTheServer(t *testing.T) {
	t.Parallel()
	for code, want := range map[v1.Code]codes.Code{
		v1.Damaged: codes.Unset, v1.LaneDied: codes.Unset, v1.Unavailable: codes.Error,
	} {
		s := record(t, func(s trace.Span) { Reject(s, v1.NewProblem(code, "")) })
		attrs := spantest.Attributes(s.Attributes())
		if attrs[AttrProblem] != string(code) {
			t.Errorf("%s: %s is %q", code, AttrProblem, attrs[AttrProblem])
		}
		if s.Status().Code != want {
			t.Errorf("%s: the status is %v, want %v", code, s.Status().Code, want)
		}
		if failed := attrs["error.type"] != ""; failed != (want == codes.Error) {
			t.Errorf("%s: error.type is %q", code, attrs["error.type"])
		}
	}
}

func spanContext(trace1, span byte) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{trace1}, SpanID: trace.SpanID{span}, TraceFlags: trace.FlagsSampled,
	})
}

// TestInjectCreated_KeepsTheSpanOfTheJob checks that the span of a job stays the same over several messages, and that
// each message names the span that created it.
func TestInjectCreated_KeepsTheSpanOfTheJob(t *testing.T) {
	t.Parallel()
	job := spanContext(1, 1)
	ctx := trace.ContextWithSpanContext(t.Context(), job)
	for _, created := range []byte{2, 3} {
		h := nats.Header{}
		InjectCreated(ctx, spanContext(1, created), h)
		got := Extract(t.Context(), h)
		if id := trace.SpanContextFromContext(got).SpanID(); id != job.SpanID() {
			t.Errorf("message %d has the parent %s, want %s", created, id, job.SpanID())
		}
		links := CreationLinks(got)
		if len(links) != 1 {
			t.Fatalf("message %d has the links %+v, want one", created, links)
		}
		if got, want := links[0].SpanContext.SpanID(), (trace.SpanID{created}); got != want {
			t.Errorf("message %d is linked to the span %s, want %s", created, got, want)
		}
		processing := trace.ContextWithSpanContext(got, spanContext(1, 9))
		ctx = WithJobSpan(processing, trace.SpanContextFromContext(got))
	}
}

func TestInjectCreated_OfANewTrace(t *testing.T) {
	t.Parallel()
	ctx := WithJobSpan(t.Context(), spanContext(1, 1))
	h := nats.Header{}
	InjectCreated(ctx, spanContext(2, 2), h)
	got := Extract(t.Context(), h)
	parent := trace.SpanContextFromContext(got)
	if want := (trace.TraceID{2}); parent.TraceID() != want {
		t.Errorf("the trace is %s, want %s, that of the message", parent.TraceID(), want)
	}
	if want := (trace.SpanID{2}); parent.SpanID() != want {
		t.Errorf("the parent is %s, want %s, the span that created the message", parent.SpanID(), want)
	}
	if links := CreationLinks(got); links != nil {
		t.Errorf("the message is linked to %+v, which is its parent already", links)
	}
}

func TestCreationLinks_MessageOfAnotherProcess(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"", "other=1", "sightmesh=none", "sightmesh=0000000000000000"} {
		h := nats.Header{"traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "tracestate": {state}}
		if links := CreationLinks(Extract(t.Context(), h)); links != nil {
			t.Errorf("trace state %q makes the links %+v", state, links)
		}
	}
}
