package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/micro"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Reject answers a request with the problem p because of err, whose delay is the
// header Retry-After. The problem gets the trace ID of the span in ctx, which
// records it as [telemetry.Reject] says.
func Reject(ctx context.Context, r micro.Request, p *v1.Problem, err error) error {
	out := *p
	if span := trace.SpanFromContext(ctx); span.SpanContext().HasTraceID() {
		out.TraceID = span.SpanContext().TraceID().String()
		telemetry.Reject(span, &out)
	}
	h := micro.Headers{}
	if after := retry.FormatAfter(err); after != "" {
		h["Retry-After"] = []string{after}
	}
	return RespondProblem(r, &out, micro.WithHeaders(h))
}

// RespondProblem answers a request with p as an error of the NATS service
// framework: the code is the HTTP status, the description is the problem's
// code and detail, and the body is the problem as JSON.
//
// The headers are those that Error of the framework writes. It is not called,
// because it is only safe in the goroutine of a handler, and requests are
// answered in others; the framework's own count of errors stays 0 for that.
func RespondProblem(r micro.Request, p *v1.Problem, opts ...micro.RespondOpt) error {
	body, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode problem: %w", err)
	}
	opts = append(opts, micro.WithHeaders(micro.Headers{
		micro.ErrorCodeHeader: {strconv.Itoa(p.Status)}, micro.ErrorHeader: {p.Error()},
	}))
	if err := r.Respond(body, opts...); err != nil {
		return fmt.Errorf("respond with a problem: %w", err)
	}
	return nil
}
