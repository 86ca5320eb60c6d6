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

// Handler returns the messages that follow from a delivery, in the order in
// which they are to be stored, or an error that [actionFor] has a row for. Its
// context ends at the deadline of the delivery, or after the time that the
// consumer allows.
type Handler func(context.Context, *Delivery) ([]bus.Message, error)

// Config of a loop. All fields are needed unless they say otherwise.
type Config struct {
	// Open reads the job and the deadline of a delivery. The handler is not
	// called when it returns an error.
	Open func(*Delivery) error
	// Fail returns the messages that end the job of a delivery with a problem.
	// A nil Fail means that the messages of this consumer have no outcome.
	Fail func(context.Context, *Delivery, *v1.Problem) ([]bus.Message, error)
	// Traced reports whether a delivery has spans of its own. A nil Traced
	// means that every delivery has.
	Traced func(*Delivery) bool
	// PublishOnce has each message of a delivery published once. When that fails,
	// the delivery comes again after Backoff. Without it a publish is repeated for
	// some seconds, or until the deadline of the job, because what was computed is
	// worth keeping.
	PublishOnce bool
	// Timeout is how long a handler may process a delivery that has no
	// deadline.
	Timeout time.Duration
	// Backoff is the delay before another delivery, by the number of those so
	// far.
	Backoff   retry.Backoff
	Clock     *clock.Clock
	Publisher *bus.Publisher
	Tracer    trace.Tracer
	Logger    *slog.Logger
	Hooks     Hooks
}

// Hooks are called with what happens to a delivery. Each may be nil.
type Hooks struct {
	// Published is called for every message that was stored, with how often
	// its publish was repeated.
	Published func(m bus.Message, retries int)
	// Ended is called for every delivery whose job could be read.
	Ended func(context.Context, *Delivery, Outcome)
}

// Loop processes deliveries. It is safe for use by several goroutines.
type Loop struct {
	ender
	cfg       Config
	heartbeat *heartbeat
}

// publishBudget is how long the messages of a delivery may take to be stored,
// whatever the deadline of its job.
const publishBudget = 10 * time.Second

// publishBackoff is the delay before a publish is repeated.
var publishBackoff = retry.Exponential(50*time.Millisecond, time.Second, 2)

// NewLoop returns a loop.
func NewLoop(cfg Config) *Loop {
	return &Loop{ender: ender{cfg.Logger, cfg.Backoff}, cfg: cfg, heartbeat: newHeartbeat(cfg.Logger)}
}

// Beat sends heartbeats while pull runs, for strategies of pulling outside of
// this package.
func (l *Loop) Beat(pull func()) { l.heartbeat.during(pull) }

// Process takes one message to its end. Its handlers are called with ctx,
// which ends when the process has no more time to stop.
func (l *Loop) Process(ctx context.Context, m Message, handle Handler) {
	if m.Headers().Get(v1.HeaderMarker) != "" { // the server says that a message was there
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
		l.log.Error("drop a message that is not of a job", "subject", m.Subject(), "error", err)
		l.term(ctx, m, "not of a job")
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

// process calls the handler unless err says that the delivery cannot be read,
// publishes what follows, and ends the delivery. It returns the error that led to
// the outcome, for the span.
func (l *Loop) process(ctx context.Context, one *held, d *Delivery, err error, handle Handler) (Outcome, error) {
	var msgs []bus.Message
	if err == nil {
		msgs, err = l.handle(ctx, d, handle)
	}
	if l.heartbeat.isLost(one) {
		l.log.WarnContext(ctx, "drop the work on a message that another process has", "subject", d.Subject)
		return Lost, err
	}
	if err == nil {
		err = l.publish(ctx, d.Deadline, msgs)
	}
	if err == nil && d.then != nil {
		d.then(ctx)
	}
	act := actionFor(err, ctx.Err() != nil, l.cfg.Fail != nil)
	if act == fail {
		var p *v1.Problem
		errors.As(err, &p)
		if err = l.fail(ctx, d, p); err == nil {
			l.log.WarnContext(ctx, "job failed", "pipeline", d.Job.Pipeline, "part", d.Job.Part, "code", p.Code, "detail", p.Detail)
			l.term(ctx, one.m, string(p.Code))
			return Outcome(p.Code), p
		}
		act = actionFor(err, ctx.Err() != nil, false)
	}
	return l.end(ctx, one.m, d, act, err), err
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

// publishTimeout is how long one try of a publish waits for its
// acknowledgement, which does not come when the connection was lost meanwhile.
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

// publish stores msgs in order. What was computed is kept while a stream is
// full or away: a publish is repeated until the deadline of the job, unless it
// can never succeed. Its spans are beside that of the delivery: see endSpan.
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

// touching is what lies between two spans that follow on each other. Jaeger counts in
// microseconds, and takes of two that touch only one into the critical path.
const touching = time.Microsecond

// startSpan begins the consumer span of a delivery, and beside it the queue wait as
// a span of its own: the gap in a trace is what its reader wants to see. Both are
// children of the request that brought the job, and linked to the span that
// published the message: see [telemetry.WithJobSpan]. Of a message without a trace
// the queue wait is the root. The context also marks logs with the job.
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
		queue.End(trace.WithTimestamp(d.Received.Add(-touching)))
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

// endSpan ends the span of a delivery with its outcome. err is why it was not done.
// The span ends when the handler has: what follows begins while the acknowledgements
// of its publishes are on their way, and of spans that overlap Jaeger takes only one
// into the critical path.
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
