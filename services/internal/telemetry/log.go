package telemetry

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

type jobKey struct{}

// WithJob marks everything logged with the context as being about a job.
func WithJob(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, jobKey{}, id)
}

// NewLogger returns a logger that writes JSON lines to w. A line logged with
// a context carries the job and the trace the context belongs to.
func NewLogger(w io.Writer, level slog.Leveler, service, instance string) *slog.Logger {
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
	return slog.New(contextual{h}).With("service", service, "instance", instance)
}

type contextual struct{ slog.Handler }

func (h contextual) Handle(ctx context.Context, r slog.Record) error {
	if id, ok := ctx.Value(jobKey{}).(string); ok {
		r.AddAttrs(slog.String("job", id))
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h contextual) WithAttrs(a []slog.Attr) slog.Handler {
	return contextual{h.Handler.WithAttrs(a)}
}

func (h contextual) WithGroup(name string) slog.Handler {
	return contextual{h.Handler.WithGroup(name)}
}
