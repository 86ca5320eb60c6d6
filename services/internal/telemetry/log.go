package telemetry

import (
	"context"
	"errors"
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

// jobAttr returns the attribute of the job that ctx belongs to, if it does.
func jobAttr(ctx context.Context) (slog.Attr, bool) {
	id, ok := ctx.Value(jobKey{}).(string)
	return slog.String("job", id), ok
}

type contextual struct{ slog.Handler }

func (h contextual) Handle(ctx context.Context, r slog.Record) error {
	if job, ok := jobAttr(ctx); ok {
		r.AddAttrs(job)
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

// exporting is a handler whose records are handled by another one, too, which knows
// the trace and the process of each.
type exporting struct {
	slog.Handler
	exporter slog.Handler
}

func (h exporting) Handle(ctx context.Context, r slog.Record) error {
	exported := r.Clone()
	if job, ok := jobAttr(ctx); ok {
		exported.AddAttrs(job)
	}
	return errors.Join(h.Handler.Handle(ctx, r), h.exporter.Handle(ctx, exported))
}

func (h exporting) WithAttrs(a []slog.Attr) slog.Handler {
	return exporting{h.Handler.WithAttrs(a), h.exporter.WithAttrs(a)}
}

func (h exporting) WithGroup(name string) slog.Handler {
	return exporting{h.Handler.WithGroup(name), h.exporter.WithGroup(name)}
}
