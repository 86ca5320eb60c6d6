package consume

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Handler returns the messages that follow from a delivery, in the order in which
// the loop stores them, or an error. Its context ends at the deadline of the delivery
// or, without a deadline, after Config.Timeout.
type Handler func(context.Context, *Delivery) ([]bus.Message, error)

// Config configures a Loop. All fields are required unless stated otherwise.
type Config struct {
	// Open reads the job and the deadline of a delivery. The handler is not
	// called when it returns an error.
	Open func(*Delivery) error
	// Fail returns the messages that end the job of a delivery with a problem. It
	// is nil for consumers whose messages have no outcome.
	Fail func(context.Context, *Delivery, *v1.Problem) ([]bus.Message, error)
	// Traced reports whether a delivery has spans. When it is nil, every delivery
	// has.
	Traced func(*Delivery) bool
	// PublishOnce disables the retries of a publish. When a publish fails, the
	// message is redelivered after Backoff. When PublishOnce is false, a publish is
	// retried until the deadline of the job, but for at least 10 s, so that the
	// result of the handler is not lost.
	PublishOnce bool
	// Timeout limits the handler of a delivery that has no deadline. It is unused
	// when all deliveries have one.
	Timeout time.Duration
	// Backoff is the delay before a redelivery, by the number of deliveries so far.
	Backoff   retry.Backoff
	Clock     *clock.Clock
	Publisher *bus.Publisher
	Tracer    trace.Tracer
	Logger    *slog.Logger
	Hooks     Hooks
}

// Hooks are called for events of a delivery, for metrics. Each may be nil.
type Hooks struct {
	// Published is called for every message that was stored, with the number of
	// retries of its publish.
	Published func(m bus.Message, retries int)
	// Ended is called at the end of every delivery that has a job.
	Ended func(context.Context, *Delivery, Outcome)
}

// Loop processes deliveries. A Loop is safe for concurrent use by multiple
// goroutines.
type Loop struct {
	acknowledger
	cfg       Config
	heartbeat *heartbeat
}

// publishBudget is the minimum time for the retries of the publishes of a delivery,
// also when the deadline of its job is earlier.
const publishBudget = 10 * time.Second

// publishBackoff is the delay before a publish is retried.
var publishBackoff = retry.Exponential(50*time.Millisecond, time.Second, 2)

// NewLoop returns a loop.
func NewLoop(cfg Config) *Loop {
	return &Loop{acknowledger: acknowledger{cfg.Logger, cfg.Backoff}, cfg: cfg, heartbeat: newHeartbeat(cfg.Logger)}
}

// SendHeartbeats sends heartbeats while pull runs. It is for packages that pull messages
// themselves and call Process.
func (l *Loop) SendHeartbeats(pull func()) { l.heartbeat.beatWhile(pull) }

// Process processes one message and acknowledges it. handle is called with a context
// derived from ctx, which ends when the grace period of the process is over.
func (l *Loop) Process(ctx context.Context, m Message, handle Handler) {
	if m.Headers().Get(v1.HeaderMarker) != "" { // a marker of the server for a deleted message
		l.ack(ctx, m)
		return
	}
	one, untrack := l.heartbeat.track(m)
	defer untrack()
	d, err := newDelivery(m, l.cfg.Clock.Now())
	if err == nil {
		err = l.cfg.Open(d)
	}
	if d == nil || d.Job.ID == "" { // without a job there is no outcome
		l.log.Error("a message does not belong to a job, and is dropped", "subject", m.Subject(), "error", err)
		l.term(ctx, m, "the message does not belong to a job")
		return
	}
	ctx, span := l.startSpan(ctx, d)
	var outcome Outcome
	defer func() { l.endSpan(span, d, outcome, err) }()
	outcome, err = l.process(ctx, one, d, err, handle)
	if l.cfg.Hooks.Ended != nil {
		l.cfg.Hooks.Ended(ctx, d, outcome)
	}
}

// process calls the handler unless err is set, which is the error of reading the
// delivery. It publishes the messages of the handler and acknowledges the delivery. It
// returns the error that led to the outcome, for the span.
func (l *Loop) process(
	ctx context.Context, one *inFlightMessage, d *Delivery, err error, handle Handler,
) (Outcome, error) {
	var msgs []bus.Message
	if err == nil {
		msgs, err = l.handle(ctx, d, handle)
	}
	if l.heartbeat.isLost(one) {
		l.log.WarnContext(ctx, "drop the result of a message that was redelivered to another process", "subject", d.Subject)
		return Lost, err
	}
	if err == nil {
		err = l.publish(ctx, d.Deadline, msgs)
	}
	if err == nil && d.onStored != nil {
		d.onStored(ctx)
	}
	act := actionFor(err, ctx.Err() != nil, l.cfg.Fail != nil)
	if act == fail {
		var p *v1.Problem
		errors.As(err, &p)
		if err = l.fail(ctx, d, p); err == nil {
			l.log.WarnContext(ctx, "job failed", "pipeline", d.Job.Pipeline, "part", d.Job.Part, "code", p.Code,
				"detail", p.Detail)
			l.term(ctx, one.m, string(p.Code))
			return Outcome(p.Code), p
		}
		act = actionFor(err, ctx.Err() != nil, false)
	}
	return l.finish(ctx, one.m, d, act, err), err
}

func (l *Loop) handle(ctx context.Context, d *Delivery, handle Handler) ([]bus.Message, error) {
	until := d.Deadline
	if until.IsZero() {
		until = d.Received.Add(l.cfg.Timeout)
	}
	ctx, cancel := l.cfg.Clock.WithDeadline(ctx, until)
	defer cancel()
	defer func() { d.handled = l.cfg.Clock.Now() }()
	return handle(ctx, d)
}

// publishTimeout is how long one attempt of a publish waits for its acknowledgement,
// which never arrives when the connection was lost meanwhile.
const publishTimeout = 2 * time.Second

func (l *Loop) tryPublish(ctx context.Context, m bus.Message) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return l.cfg.Publisher.Publish(ctx, m)
}

// fail stores the outcome of a job that failed with p.
func (l *Loop) fail(ctx context.Context, d *Delivery, p *v1.Problem) error {
	out := *p
	out.Job, out.TraceID = d.Job.ID, trace.SpanContextFromContext(ctx).TraceID().String()
	msgs, err := l.cfg.Fail(ctx, d, &out)
	if err != nil {
		return err
	}
	return l.publish(ctx, time.Time{}, msgs)
}

// publish stores msgs in order. While a stream is full or unavailable, it retries
// until the deadline of the job, unless the publish can never succeed. The spans of
// the publishes are siblings of the span of the delivery, see endSpan.
func (l *Loop) publish(ctx context.Context, deadline time.Time, msgs []bus.Message) error {
	ctx = telemetry.JobContext(ctx)
	if budget := l.cfg.Clock.Now().Add(publishBudget); deadline.Before(budget) {
		deadline = budget
	}
	ctx, cancel := l.cfg.Clock.WithDeadline(ctx, deadline)
	defer cancel()
	for _, m := range msgs {
		retries := 0
		for {
			err := l.tryPublish(ctx, m)
			if err == nil {
				break
			}
			var never *v1.Problem
			if errors.As(err, &never) || l.cfg.PublishOnce {
				return err
			}
			retries++
			if retry.Sleep(ctx, publishBackoff.Delay(retries)) != nil {
				return err
			}
		}
		if l.cfg.Hooks.Published != nil {
			l.cfg.Hooks.Published(m, retries)
		}
	}
	return nil
}

// spanGap is the gap between two consecutive spans. Jaeger has a resolution of one
// microsecond. Without a gap it includes only one of the two spans in the critical
// path.
const spanGap = time.Microsecond

// startSpan starts the consumer span of a delivery, and records the queue wait as a
// sibling span. Both are children of the request that submitted the job, and linked
// to the span that published the message, see [telemetry.WithJobSpan]. For a message
// without a trace the queue wait is the root. The returned context adds the job to log
// records.
func (l *Loop) startSpan(ctx context.Context, d *Delivery) (context.Context, trace.Span) {
	ctx = telemetry.WithJob(telemetry.Extract(ctx, d.Header), d.Job.ID)
	if l.cfg.Traced != nil && !l.cfg.Traced(d) {
		return ctx, noop.Span{}
	}
	links := trace.WithLinks(telemetry.CreationLinks(ctx)...)
	attrs := trace.WithAttributes(append(bus.DestinationAttributes(d.Stream), bus.JobAttributes(d.Job, d.Header)...)...)
	job := trace.SpanContextFromContext(ctx)
	if d.Received.After(d.Stored) {
		queueCtx, queue := l.cfg.Tracer.Start(ctx, "queue "+d.Stream, trace.WithTimestamp(d.Stored), attrs, links,
			trace.WithAttributes(telemetry.AttrDeliveries.Int(d.Deliveries)))
		queue.End(trace.WithTimestamp(d.Received.Add(-spanGap)))
		if !job.IsValid() {
			ctx, job = queueCtx, queue.SpanContext()
		}
	}
	ctx, span := l.cfg.Tracer.Start(ctx, "process "+d.Stream, trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithTimestamp(d.Received), attrs, links, trace.WithAttributes(l.cfg.Publisher.ServerAttributes()...),
		trace.WithAttributes(
			semconv.MessagingOperationName("process"), semconv.MessagingOperationTypeProcess,
			semconv.MessagingConsumerGroupName(d.Consumer),
			semconv.MessagingMessageID(d.Header.Get(nats.MsgIdHdr)), semconv.MessagingMessageBodySize(len(d.Body)),
			telemetry.AttrDeliveries.Int(d.Deliveries)))
	if !job.IsValid() {
		job = span.SpanContext()
	}
	return telemetry.WithJobSpan(ctx, job), span
}

// endSpan ends the span of a delivery with its outcome. err is the error when the
// outcome is not Done. The end of the span is when the handler returned. The next
// stage can start before the acknowledgements of the publishes arrive, and Jaeger
// includes only one of two overlapping spans in the critical path.
func (l *Loop) endSpan(span trace.Span, d *Delivery, outcome Outcome, err error) {
	if outcome != Done {
		span.SetAttributes(telemetry.AttrProblem.String(string(outcome)))
	}
	if outcome != Done && outcome != Snoozed {
		if err != nil {
			span.RecordError(err)
		}
		span.SetStatus(codes.Error, string(outcome))
		span.SetAttributes(semconv.ErrorTypeKey.String(string(outcome)))
	}
	end := d.handled
	if end.IsZero() {
		end = l.cfg.Clock.Now()
	}
	span.End(trace.WithTimestamp(end))
}
