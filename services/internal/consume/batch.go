package consume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// BatchHandler processes many deliveries. It returns one error for each of
// them, which [actionFor] has a row for, or an error that concerns all.
type BatchHandler func(context.Context, []*Delivery) (each []error, all error)

// Batches pulls many messages at a time, for handlers that are much cheaper
// together, such as a transaction of a database. All fields are needed.
type Batches struct {
	Consumer jetstream.Consumer
	// Size is how many messages a batch has at most.
	Size int
	// Timeout is how long a handler may process a batch.
	Timeout time.Duration
	Backoff retry.Backoff
	Clock   *clock.Clock
	Tracer  trace.Tracer
	Logger  *slog.Logger
}

// batchWait is how long the first message of a batch is waited for.
const batchWait = 5 * time.Second

// Run processes batches until ctx ends, and returns nil then. A batch that was
// begun is finished. When the handler returns an error that concerns all of a
// batch, its messages are delivered again later and Run returns the error.
//
// idle is called before each pull.
func (b Batches) Run(ctx context.Context, idle func(context.Context), handle BatchHandler) (err error) {
	beat, e := newHeartbeat(b.Logger), ender{b.Logger, b.Backoff}
	beat.during(func() {
		for err == nil {
			idle(ctx)
			var messages []Message
			messages, err = b.pull(ctx)
			if ctx.Err() != nil {
				for _, m := range messages {
					e.end(ctx, m, nil, nak, nil)
				}
				err = nil
				return
			}
			if err == nil {
				err = b.process(context.WithoutCancel(ctx), beat, e, messages, handle)
			}
		}
	})
	return err
}

// pull waits for a message, and takes all that are there by then, up to the
// size of a batch: while one batch is processed, the next one grows.
func (b Batches) pull(ctx context.Context) ([]Message, error) {
	wait, cancel := context.WithTimeout(ctx, batchWait)
	defer cancel()
	first, err := b.Consumer.Next(jetstream.FetchContext(wait))
	if err != nil {
		if wait.Err() != nil || errors.Is(err, nats.ErrTimeout) {
			return nil, nil
		}
		return nil, fmt.Errorf("pull a batch: %w", err)
	}
	messages := []Message{first}
	more, err := b.Consumer.FetchNoWait(b.Size - 1)
	if err != nil {
		return messages, nil // the next pull says it
	}
	for m := range more.Messages() {
		messages = append(messages, m)
	}
	return messages, nil
}

func (b Batches) process(ctx context.Context, beat *heartbeat, e ender, messages []Message, handle BatchHandler) error {
	for _, m := range messages {
		_, untrack := beat.track(m)
		defer untrack()
	}
	var batch []*Delivery
	var open []Message
	for _, m := range messages {
		d, err := newDelivery(m, b.Clock.Now())
		switch {
		case err != nil:
			e.end(ctx, m, nil, term, err)
		case m.Headers().Get(v1.HeaderMarker) != "": // the server says that a message was there
			e.ack(ctx, m)
		default:
			batch, open = append(batch, d), append(open, m)
		}
	}
	if len(batch) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, b.Timeout)
	defer cancel()
	ctx, span := b.startSpan(ctx, batch)
	defer span.End()
	each, err := handle(ctx, batch)
	if err != nil {
		telemetry.Fail(span, err)
	}
	for i, m := range open {
		why := err
		if err == nil {
			why = each[i]
		}
		e.end(ctx, m, batch[i], actionFor(why, false, false), why)
	}
	return err
}

// startSpan begins the span of a batch. It is of many traces, and so in none of them:
// it has a link to each, of which the SDK keeps 128 unless it is told otherwise.
func (b Batches) startSpan(ctx context.Context, batch []*Delivery) (context.Context, trace.Span) {
	first := batch[0]
	links := make([]trace.Link, 0, len(batch))
	for _, d := range batch {
		from := telemetry.Extract(context.Background(), d.Header)
		// Where no other span has created the message, the parent has.
		created := append(telemetry.CreationLinks(from), trace.LinkFromContext(from))[0]
		if created.SpanContext.IsValid() {
			links = append(links, created)
		}
	}
	return b.Tracer.Start(ctx, "process "+first.Stream, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithNewRoot(),
		trace.WithLinks(links...), trace.WithAttributes(bus.DestinationAttributes(first.Stream)...),
		trace.WithAttributes(
			semconv.MessagingOperationName("process"), semconv.MessagingOperationTypeProcess,
			semconv.MessagingConsumerGroupName(first.Consumer), semconv.MessagingBatchMessageCount(len(batch))))
}
