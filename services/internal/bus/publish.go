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

// Message is a message to store in a stream.
type Message struct {
	Subject string
	Stream  string
	// ID is sent as Nats-Msg-Id. The stream stores one message with each ID.
	ID string
	// Header is sent in addition to the trace context.
	Header nats.Header
	Body   []byte
	// Once stores the message only if its subject has no message yet. Otherwise
	// the message of the subject is kept, and the publish succeeds.
	Once bool
	// Deadline is that of the job of the message. The stream deletes the message
	// [streams.DeadlineMargin] after the deadline, whether or not it was processed. Zero
	// means that only the maximum age of the stream applies.
	Deadline time.Time
	// NewTrace starts a new trace with the message, linked to the trace of the
	// context. A single trace of all images of a report would be too large to read.
	NewTrace bool
	// Stored is called when the stream has stored this message and not kept an
	// earlier one. It is not called when the acknowledgement was lost. It may be nil.
	Stored func()
}

// maxCopied is the maximum size, in bytes, of all headers that CopyHeaders copies. A
// server rejects messages with more than 64 KiB of headers, and each stage adds its
// own headers.
const maxCopied = streams.HeaderAllowance / 2

// CopyHeaders returns a new header with the fields of h that each message of a job
// carries. It omits the trace context, because [Publisher.Publish] writes that of its
// own span. When the fields are longer than maxCopied together, it omits the longest,
// such as metadata of the client. Otherwise the outcome of the job could not be
// stored.
func CopyHeaders(h nats.Header) nats.Header {
	names := v1.CopiedHeaders()
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(len(h.Get(a)), len(h.Get(b))) })
	out := nats.Header{}
	size := 0
	for _, k := range names {
		v := h.Get(k)
		size += len(k) + len(v)
		if v != "" && size <= maxCopied && k != "traceparent" && k != "tracestate" {
			out.Set(k, v)
		}
	}
	return out
}

// ErrFull is the error of a publish to a stream that has reached its limit.
var ErrFull = errors.New("stream is full")

// IsUnknown reports whether the message of a publish that failed with err may
// have been stored, for example because the acknowledgement was lost. It recognizes
// the errors of this package and calls [streams.IsUnknown] for all others.
func IsUnknown(err error) bool {
	var p *v1.Problem
	return !errors.As(err, &p) && !errors.Is(err, ErrFull) && streams.IsUnknown(err)
}

// Publisher publishes messages to streams.
type Publisher struct {
	js     jetstream.JetStream
	clock  *clock.Clock
	tracer trace.Tracer
}

// NewPublisher returns a Publisher that uses js. Deadlines are compared with c.
func NewPublisher(js jetstream.JetStream, c *clock.Clock, tp trace.TracerProvider) *Publisher {
	return &Publisher{js: js, clock: c, tracer: tp.Tracer("github.com/sightmesh/sightmesh/services/internal/bus")}
}

// Publish stores m in its stream and returns when the stream has acknowledged it.
// It records a producer span. The message carries the span context of the parent and
// the ID of the producer span, see [telemetry.InjectCreated]. A message that is
// already stored is not an error. The error is a [*v1.Problem] when the message can
// never be stored, and wraps [ErrFull] when the stream has reached its limit. After an
// error for which [IsUnknown] is true, Publish can be called again with m.
func (p *Publisher) Publish(ctx context.Context, m Message) error {
	_, err := p.PublishFirst(ctx, m)
	return err
}

// PublishFirst does what [Publisher.Publish] does and also reports whether the
// stream has stored m. It reports false when the stream has kept an earlier message:
// one with the ID of m or, if m.Once is set, one on its subject. That message can be
// an earlier attempt to publish m whose acknowledgement was lost.
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
		ttl := max(p.clock.Until(m.Deadline)+streams.DeadlineMargin, time.Second)
		publishOpts = append(publishOpts, jetstream.WithMsgTTL(ttl.Round(time.Second)))
	}
	ack, err := p.publishRetryingInFlight(ctx, msg, publishOpts)
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

// ServerAttributes returns the span attributes of the server that the publisher is
// connected to, see [ServerAttributes].
func (p *Publisher) ServerAttributes() []attribute.KeyValue { return ServerAttributes(p.js.Conn()) }

// InFlightBackoff has the delays between the attempts of a publish while another
// publish with the same ID or subject is in flight. A write to a replicated stream is
// in flight for a few milliseconds, or for seconds while the stream elects a leader.
var InFlightBackoff = retry.Exponential(5*time.Millisecond, 320*time.Millisecond, 2)

// publishRetryingInFlight publishes a message. While another message with its ID or
// subject is in flight, it retries until the other write has succeeded or failed, or
// ctx ends.
func (p *Publisher) publishRetryingInFlight(
	ctx context.Context, m *nats.Msg, opts []jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
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

// publishError is the only place that decides what an error of a publish means.
func publishError(m Message, err error) error {
	switch {
	case err == nil:
		return nil
	case streams.IsTooLarge(err):
		return newTooLargeProblem(m)
	case errors.Is(err, nats.ErrBadSubject):
		return v1.NewProblem(v1.Internal, "%s is no subject to publish to", m.Subject)
	case streams.IsFull(err):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case m.Once && isWrongLastSequence(err):
		return nil // the stream has kept an earlier message
	}
	return wrapNotConnected(err)
}

// isWrongLastSequence reports whether the subject of a message with an expected
// last sequence already had a message.
func isWrongLastSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

func newTooLargeProblem(m Message) error {
	return v1.NewProblem(v1.Internal, "%s has %d bytes, more than a message may have", m.ID, len(m.Body))
}
