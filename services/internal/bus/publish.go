package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Message is something to be stored in a stream.
type Message struct {
	Subject string
	Stream  string
	// ID becomes the Nats-Msg-Id: the stream keeps one message of it.
	ID string
	// Header holds what is to travel besides the trace context.
	Header nats.Header
	Body   []byte
}

// Travel returns a fresh header with those of h that go from hop to hop. The
// trace context is left out: [Publisher.Publish] writes that of its own span.
func Travel(h nats.Header) nats.Header {
	out := nats.Header{}
	for _, k := range v1.TravelHeaders() {
		if v := h.Get(k); v != "" && k != "traceparent" && k != "tracestate" {
			out.Set(k, v)
		}
	}
	return out
}

// ErrFull is returned for a publish to a stream that is at its limit.
var ErrFull = errors.New("stream is full")

// Error codes of JetStream for which the client library has no constant.
const (
	errStreamStoreFailed  jetstream.ErrorCode = 10077 // a limit of the stream, with DiscardNew
	errTooManyRequests    jetstream.ErrorCode = 10167 // ingest limit
	errInsufficientMemory jetstream.ErrorCode = 10023 // no room on the server
)

// Publisher stores messages.
type Publisher struct {
	js     jetstream.JetStream
	tracer trace.Tracer
}

// NewPublisher returns a publisher over js.
func NewPublisher(js jetstream.JetStream, tp trace.TracerProvider) *Publisher {
	return &Publisher{js: js, tracer: tp.Tracer("github.com/sightmesh/sightmesh/services/internal/bus")}
}

// Publish stores m and returns once the stream has acknowledged it, in a
// producer span whose context travels with the message. A stream at its limit
// gives [ErrFull]; a message that was stored before is no error.
func (p *Publisher) Publish(ctx context.Context, m Message) error {
	ctx, span := p.tracer.Start(ctx, "publish "+m.Stream, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
		attribute.String("messaging.system", "nats"),
		attribute.String("messaging.operation.type", "send"),
		attribute.String("messaging.destination.name", m.Stream),
		attribute.Int("messaging.message.body.size", len(m.Body)),
		attribute.String("messaging.message.id", m.ID)))
	defer span.End()
	msg := &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Body}
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	telemetry.Inject(ctx, msg.Header)
	_, err := p.js.PublishMsg(ctx, msg, jetstream.WithMsgID(m.ID), jetstream.WithExpectStream(m.Stream))
	if err == nil {
		return nil
	}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case errStreamStoreFailed, errTooManyRequests, errInsufficientMemory:
			err = fmt.Errorf("%w: %s", ErrFull, api.Description)
		}
	}
	span.SetStatus(codes.Error, err.Error())
	return fmt.Errorf("publish %s to %s: %w", m.ID, m.Stream, err)
}
