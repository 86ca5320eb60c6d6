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

// BatchHandler processes many deliveries. It returns one error for each delivery,
// nil when it was processed, or one error for all of them.
type BatchHandler func(context.Context, []*Delivery) (each []error, all error)

// Batches pulls many messages at a time, for handlers that process them together at
// much lower cost, such as a database transaction. All fields are required.
type Batches struct {
	Consumer jetstream.Consumer
	// Size is the maximum number of messages of a batch.
	Size int
	// Timeout limits the handler of a batch.
	Timeout time.Duration
	Backoff retry.Backoff
	Clock   *clock.Clock
	Tracer  trace.Tracer
	Logger  *slog.Logger
}

// batchWait is how long a pull waits for the first message of a batch.
const batchWait = 5 * time.Second

// Run processes batches until ctx ends, finishes the batch in progress, and returns
// nil. When the handler returns an error for all messages of a batch, they are
// redelivered after Backoff, and Run returns the error.
//
// Run calls idle before each pull.
func (b Batches) Run(ctx context.Context, idle func(context.Context), handle BatchHandler) (err error) {
	beat, e := newHeartbeat(b.Logger), acknowledger{b.Logger, b.Backoff}
	beat.beatWhile(func() {
		for err == nil {
			idle(ctx)
			var messages []Message
			messages, err = b.pull(ctx)
			if ctx.Err() != nil {
				for _, m := range messages {
					e.finish(ctx, m, nil, nak, nil)
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

// pull waits for a message, and then fetches all messages that are available, up to
// the size of a batch. The next batch grows while one is being processed.
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
		return messages, nil // the next pull returns the error
	}
	for m := range more.Messages() {
		messages = append(messages, m)
	}
	return messages, nil
}

func (b Batches) process(
	ctx context.Context, beat *heartbeat, e acknowledger, messages []Message, handle BatchHandler,
) error {
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
			e.finish(ctx, m, nil, term, err)
		case m.Headers().Get(v1.HeaderMarker) != "": // a marker of the server for a deleted message
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
		e.finish(ctx, m, batch[i], actionFor(why, false, false), why)
	}
	return err
}

// startSpan starts the span of a batch. The span starts a new trace, with a link to
// the trace of each message. The SDK keeps 128 links by default.
func (b Batches) startSpan(ctx context.Context, batch []*Delivery) (context.Context, trace.Span) {
	first := batch[0]
	links := make([]trace.Link, 0, len(batch))
	for _, d := range batch {
		from := telemetry.Extract(context.Background(), d.Header)
		// Without a creation link the parent has created the message.
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
