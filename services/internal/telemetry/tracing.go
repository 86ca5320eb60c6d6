package telemetry

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Propagator returns a propagator of W3C trace context and baggage.
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

// WithJobSpan returns a context with the span of the request that submitted the job.
// [InjectCreated] writes that span into messages, so that it is the parent of the spans
// of all stages. These spans are within the time of the request that waits. As children
// of the span that published their message they would start after its end.
func WithJobSpan(ctx context.Context, span trace.SpanContext) context.Context {
	return context.WithValue(ctx, jobSpanKey{}, span)
}

// JobContext returns ctx with the span of [WithJobSpan], if it has one, as the parent
// of new spans.
func JobContext(ctx context.Context) context.Context {
	if span, ok := ctx.Value(jobSpanKey{}).(trace.SpanContext); ok {
		return trace.ContextWithSpanContext(ctx, span)
	}
	return ctx
}

// stateKey is the key in the W3C trace state for the ID of the span that created a
// message.
const stateKey = "sightmesh"

// InjectCreated writes into h the job span of ctx or, without one, the span of ctx, and
// the ID of the span created, which created the message.
func InjectCreated(ctx context.Context, created trace.SpanContext, h nats.Header) {
	parent, ok := ctx.Value(jobSpanKey{}).(trace.SpanContext)
	if !ok {
		parent = trace.SpanContextFromContext(ctx)
	}
	if parent.TraceID() != created.TraceID() { // the message starts a trace
		parent = created
	}
	if state, err := parent.TraceState().Insert(stateKey, created.SpanID().String()); err == nil {
		parent = parent.WithTraceState(state)
	}
	Inject(trace.ContextWithSpanContext(ctx, parent), h)
}

// CreationLinks returns the link to the span that created a message. ctx has the span
// context that [InjectCreated] wrote. Messages of older versions and of clients have no
// link.
func CreationLinks(ctx context.Context) []trace.Link {
	parent := trace.SpanContextFromContext(ctx)
	id, err := trace.SpanIDFromHex(parent.TraceState().Get(stateKey))
	if err != nil || id == parent.SpanID() {
		return nil
	}
	return []trace.Link{{SpanContext: parent.WithSpanID(id)}}
}

// carrier does not change header names: names in NATS are case-sensitive, and the W3C
// names are lower-case.
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
