package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/clock"
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
	// Once stores the message only if its subject has none. When another one
	// was first, that counts as stored: what it says stays.
	Once bool
	// Deadline of the job that the message is work for. The stream deletes the
	// message [streams.Margin] after it, whether or not it was processed. Zero
	// leaves it to the age of the stream.
	Deadline time.Time
	// NewTrace has the message begin a trace, linked to that of the context. One
	// trace of all images of a report could not be read.
	NewTrace bool
	// Stored is called when the stream has stored this message, and no other one was
	// first. It is not called when the acknowledgement of that was lost. Nil for
	// nothing.
	Stored func()
}

// maxTravel is how many bytes the headers that travel may have together. A server
// rejects messages with more than 64 KiB of headers, and each hop adds its own.
const maxTravel = streams.HeaderAllowance / 2

// Travel returns a fresh header with those of h that go from hop to hop. The
// trace context is left out: [Publisher.Publish] writes that of its own span. So
// are the longest, such as metadata that a client published, when all together
// would leave too little room: else the outcome of a job could not be stored.
func Travel(h nats.Header) nats.Header {
	names := v1.TravelHeaders()
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(len(h.Get(a)), len(h.Get(b))) })
	out := nats.Header{}
	size := 0
	for _, k := range names {
		v := h.Get(k)
		size += len(k) + len(v)
		if v != "" && size <= maxTravel && k != "traceparent" && k != "tracestate" {
			out.Set(k, v)
		}
	}
	return out
}

// ErrFull is returned for a publish to a stream that is at its limit.
var ErrFull = errors.New("stream is full")

// IsUnknown reports whether the message of a publish that failed with err may
// be stored all the same, such as when its acknowledgement was lost. It knows
// the errors of this package; [streams.IsUnknown] decides on the others.
func IsUnknown(err error) bool {
	var p *v1.Problem
	return !errors.As(err, &p) && !errors.Is(err, ErrFull) && streams.IsUnknown(err)
}

// Publisher stores messages.
type Publisher struct {
	js     jetstream.JetStream
	clock  *clock.Clock
	tracer trace.Tracer
}

// NewPublisher returns a publisher over js. Deadlines are times of c.
func NewPublisher(js jetstream.JetStream, c *clock.Clock, tp trace.TracerProvider) *Publisher {
	return &Publisher{js: js, clock: c, tracer: tp.Tracer("github.com/sightmesh/sightmesh/services/internal/bus")}
}

// Publish stores m and returns once the stream has acknowledged it, in a
// producer span. The context of its parent travels with the message, and which span
// has published it: see [telemetry.InjectCreated]. A message that was
// stored before is no error. The error is a [*v1.Problem] when the message can
// never be stored, and [ErrFull] when the stream is at its limit. After an error
// for which [IsUnknown] is true, Publish can be called again with m.
func (p *Publisher) Publish(ctx context.Context, m Message) error {
	_, err := p.PublishFirst(ctx, m)
	return err
}

// PublishFirst is [Publisher.Publish] that also reports whether m is what the
// stream keeps. It is false when another message was first: one with the ID of
// m, or, if m is to be stored once, one on its subject. That message can be an
// earlier try of m whose acknowledgement was lost.
func (p *Publisher) PublishFirst(ctx context.Context, m Message) (first bool, err error) {
	parent := ctx
	opts := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(m.attributes()...), trace.WithAttributes(p.ServerAttributes()...)}
	if m.NewTrace {
		opts = append(opts, trace.WithNewRoot(), trace.WithLinks(trace.LinkFromContext(ctx)))
	}
	ctx, span := p.tracer.Start(ctx, "publish "+m.Stream, opts...)
	defer span.End()
	msg := &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Body}
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	telemetry.InjectCreated(parent, span.SpanContext(), msg.Header)
	publishOpts := []jetstream.PublishOpt{jetstream.WithMsgID(m.ID), jetstream.WithExpectStream(m.Stream)}
	if m.Once {
		publishOpts = append(publishOpts, jetstream.WithExpectLastSequencePerSubject(0))
	}
	if !m.Deadline.IsZero() {
		// The server counts from when it stores the message, in whole seconds.
		ttl := max(p.clock.Until(m.Deadline)+streams.Margin, time.Second)
		publishOpts = append(publishOpts, jetstream.WithMsgTTL(ttl.Round(time.Second)))
	}
	ack, err := p.publishOnce(ctx, msg, publishOpts)
	if err := publishError(m, err); err != nil {
		telemetry.Fail(span, err)
		return false, fmt.Errorf("publish %s to %s: %w", m.ID, m.Stream, err)
	}
	first = err == nil && !ack.Duplicate
	if first && m.Stored != nil {
		m.Stored()
	}
	return first, nil
}

// ServerAttributes returns the attributes of a span that say which server messages
// come from and go to; see the function of that name.
func (p *Publisher) ServerAttributes() []attribute.KeyValue { return ServerAttributes(p.js.Conn()) }

// InFlightBackoff has the delays between two tries of a publish that meets
// another one in flight. A write to a replicated stream is in flight for a few
// milliseconds, or for seconds while the stream elects a leader.
var InFlightBackoff = retry.Exponential(5*time.Millisecond, 320*time.Millisecond, 2)

// publishOnce publishes a message. While another one with its id, or on its
// subject, is being stored, it tries again until the outcome of that is known
// or ctx ends: the other write can still fail.
func (p *Publisher) publishOnce(ctx context.Context, m *nats.Msg, opts []jetstream.PublishOpt) (*jetstream.PubAck, error) {
	for attempt := 1; ; attempt++ {
		ack, err := p.js.PublishMsg(ctx, m, opts...)
		if !streams.IsInFlight(err) {
			return ack, err
		}
		if ended := retry.Sleep(ctx, InFlightBackoff.Delay(attempt)); ended != nil {
			return nil, fmt.Errorf("%w: %w", ended, err)
		}
	}
}

// publishError is the one table that says what an error of a publish means.
func publishError(m Message, err error) error {
	switch {
	case err == nil:
		return nil
	case streams.IsTooLarge(err):
		return tooLarge(m)
	case errors.Is(err, nats.ErrBadSubject):
		return v1.NewProblem(v1.Internal, "%s is no subject to publish to", m.Subject)
	case streams.IsFull(err):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case m.Once && isWrongLastSequence(err):
		return nil // another one was first
	}
	return explain(err)
}

// isWrongLastSequence reports whether a message with an expected last sequence
// met a stored one on its subject.
func isWrongLastSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

func tooLarge(m Message) error {
	return v1.NewProblem(v1.Internal, "%s has %d bytes, more than a message may have", m.ID, len(m.Body))
}
