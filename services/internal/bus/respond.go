package bus

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Reject replies to a request with the problem p. When err has a delay, see
// [retry.Delay], the reply has the header Retry-After. The problem gets the trace ID
// of the span in ctx, and the span records the problem, see [telemetry.Reject].
func Reject(ctx context.Context, r *Request, p *v1.Problem, err error) error {
	out := *p
	if span := trace.SpanFromContext(ctx); span.SpanContext().HasTraceID() {
		out.TraceID = span.SpanContext().TraceID().String()
		telemetry.Reject(span, &out)
	}
	h := nats.Header{}
	if after := retry.FormatAfter(err); after != "" {
		h["Retry-After"] = []string{after}
	}
	return r.RespondProblem(&out, h)
}
