package telemetry

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Propagator speaks W3C trace context and baggage.
func Propagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// Inject writes the span context of ctx into h.
func Inject(ctx context.Context, h nats.Header) { Propagator().Inject(ctx, carrier(h)) }

// Extract returns ctx with the span context found in h.
func Extract(ctx context.Context, h nats.Header) context.Context {
	return Propagator().Extract(ctx, carrier(h))
}

type jobSpanKey struct{}

// WithJobSpan returns ctx for work on a message of a job. span is the parent of
// all spans of that job which messages lead to: the request that brought it.
// [InjectCreated] hands it on, so that those spans lie within the time of the
// request that waits, and not behind the end of a span that published them.
func WithJobSpan(ctx context.Context, span trace.SpanContext) context.Context {
	return context.WithValue(ctx, jobSpanKey{}, span)
}

// JobContext returns ctx with the span of [WithJobSpan], if it has one, as the parent
// of the spans that are begun with it.
func JobContext(ctx context.Context) context.Context {
	if span, ok := ctx.Value(jobSpanKey{}).(trace.SpanContext); ok {
		return trace.ContextWithSpanContext(ctx, span)
	}
	return ctx
}

// stateKey is the member of the W3C trace state that has the ID of the span that
// created a message.
const stateKey = "sightmesh"

// InjectCreated writes into h the span context of the job in ctx, or else the span
// of ctx, and which span has created the message.
func InjectCreated(ctx context.Context, created trace.SpanContext, h nats.Header) {
	parent, ok := ctx.Value(jobSpanKey{}).(trace.SpanContext)
	if !ok {
		parent = trace.SpanContextFromContext(ctx)
	}
	if parent.TraceID() != created.TraceID() { // the message begins a trace
		parent = created
	}
	if state, err := parent.TraceState().Insert(stateKey, created.SpanID().String()); err == nil {
		parent = parent.WithTraceState(state)
	}
	Inject(trace.ContextWithSpanContext(ctx, parent), h)
}

// CreationLinks returns the link to the span that created the message whose span
// context, as [InjectCreated] wrote it, is that of ctx. There is none in a message
// of an older version, or of a client.
func CreationLinks(ctx context.Context) []trace.Link {
	parent := trace.SpanContextFromContext(ctx)
	id, err := trace.SpanIDFromHex(parent.TraceState().Get(stateKey))
	if err != nil || id == parent.SpanID() {
		return nil
	}
	return []trace.Link{{SpanContext: parent.WithSpanID(id)}}
}

// carrier keeps header names as they are: NATS names are case-sensitive, and
// the W3C names are lower-case.
type carrier nats.Header

func (c carrier) Get(k string) string { return nats.Header(c).Get(k) }
func (c carrier) Set(k, v string)     { nats.Header(c).Set(k, v) }
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}
