package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

type jobKey struct{}

// WithJob returns a context that adds the job to each log record.
func WithJob(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, jobKey{}, id)
}

// NewLogger returns a logger that writes JSON lines to w. A line has the job and the
// span of its context.
func NewLogger(w io.Writer, level slog.Leveler, service, instance string) *slog.Logger {
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
	return slog.New(contextHandler{h}).With("service", service, "instance", instance)
}

// jobAttr returns the attribute of the job of ctx, if it has one.
func jobAttr(ctx context.Context) (slog.Attr, bool) {
	id, ok := ctx.Value(jobKey{}).(string)
	return slog.String("job", id), ok
}

type contextHandler struct{ slog.Handler }

func (h contextHandler) Handle(ctx context.Context, r slog.Record) error {
	if job, ok := jobAttr(ctx); ok {
		r.AddAttrs(job)
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h contextHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return contextHandler{h.Handler.WithAttrs(a)}
}

func (h contextHandler) WithGroup(name string) slog.Handler {
	return contextHandler{h.Handler.WithGroup(name)}
}

// exportHandler also passes each record to exporter, which adds the trace and the
// process itself.
type exportHandler struct {
	slog.Handler
	exporter slog.Handler
}

func (h exportHandler) Handle(ctx context.Context, r slog.Record) error {
	exported := r.Clone()
	if job, ok := jobAttr(ctx); ok {
		exported.AddAttrs(job)
	}
	return errors.Join(h.Handler.Handle(ctx, r), h.exporter.Handle(ctx, exported))
}

func (h exportHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return exportHandler{h.Handler.WithAttrs(a), h.exporter.WithAttrs(a)}
}

func (h exportHandler) WithGroup(name string) slog.Handler {
	return exportHandler{h.Handler.WithGroup(name), h.exporter.WithGroup(name)}
}
