package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Taken describes a message that was taken from a stream.
type Taken struct {
	Stream   string
	Consumer string
	Header   nats.Header
	Job      subject.Job
	// Stored is when the stream took the message, Received when the service
	// did.
	Stored     time.Time
	Received   time.Time
	Deliveries int
}

// StartProcess begins the consumer span of a message, as a child of the span
// that published it, and beside it the wait in the queue as a span of its own:
// the gap in a trace is what its reader wants to see. The context also marks
// logs with the job. The caller ends the span.
func StartProcess(ctx context.Context, tracer trace.Tracer, t Taken) (context.Context, trace.Span) {
	ctx = telemetry.WithJob(telemetry.Extract(ctx, t.Header), t.Job.ID)
	attrs := trace.WithAttributes(
		telemetry.AttrJob.String(t.Job.ID), telemetry.AttrPipeline.String(t.Job.Pipeline), telemetry.AttrPart.Int(t.Job.Part),
		attribute.String("messaging.system", "nats"),
		attribute.String("messaging.operation.type", "process"),
		attribute.String("messaging.destination.name", t.Stream),
		attribute.String("messaging.consumer.group.name", t.Consumer),
		attribute.Int("messaging.nats.deliveries", t.Deliveries))
	if t.Received.After(t.Stored) {
		_, queue := tracer.Start(ctx, "queue "+t.Stream, trace.WithTimestamp(t.Stored), attrs)
		queue.End(trace.WithTimestamp(t.Received))
	}
	return tracer.Start(ctx, "process "+t.Stream, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(t.Received), attrs)
}

// Consume hands every message of a durable consumer to handle, one at a time,
// until ctx ends; then it lets those that were received be handled and
// returns. It is an error when the consumer is removed meanwhile. It suits quick
// handlers: a batch of messages is held.
func Consume(ctx context.Context, js jetstream.JetStream, stream, consumer string, handle func(jetstream.Msg)) error {
	c, err := js.Consumer(ctx, stream, consumer)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it ended before it began
	}
	if err != nil {
		return fmt.Errorf("consume %s of %s: %w", consumer, stream, err)
	}
	// The heartbeat is short because the client library can miss the moment
	// to ask for more, and notices only by the heartbeat.
	cc, err := c.Consume(handle, jetstream.PullMaxMessages(64),
		jetstream.PullExpiry(5*time.Second), jetstream.PullHeartbeat(500*time.Millisecond))
	if err != nil {
		return fmt.Errorf("consume %s of %s: %w", consumer, stream, err)
	}
	select {
	case <-ctx.Done():
	case <-cc.Closed():
		// The library gives up on a consumer that was removed, and would not
		// look for one that is made again.
		return fmt.Errorf("consume %s of %s: the consumer is gone", consumer, stream)
	}
	cc.Drain()
	<-cc.Closed()
	return nil
}

// Work hands the messages of a durable consumer to handle, as many at a time
// as width says, until ctx ends, and returns when what was taken is handled.
// It suits handlers that take long: no message is held that is not worked on,
// and the server hears every second that one is, so that the work of a process
// that dies moves on soon.
func Work(ctx context.Context, js jetstream.JetStream, stream, consumer string, width int, handle func(jetstream.Msg)) error {
	c, err := js.Consumer(ctx, stream, consumer)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it ended before it began
	}
	if err != nil {
		return fmt.Errorf("work on %s of %s: %w", consumer, stream, err)
	}
	var g errgroup.Group
	for range width {
		g.Go(func() error {
			for ctx.Err() == nil {
				m, err := next(ctx, c)
				switch {
				case err == nil:
					keepAlive(m, handle)
				case errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
				default: // the server is away; its client says so
					wait, cancel := context.WithTimeout(ctx, time.Second)
					<-wait.Done()
					cancel()
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// keepAlive handles a message and says meanwhile that it is in progress. An
// error means that the connection is away, which its client says.
func keepAlive(m jetstream.Msg, handle func(jetstream.Msg)) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = m.InProgress()
			case <-done:
				return
			}
		}
	})
	handle(m)
	close(done)
	wg.Wait()
}

func next(ctx context.Context, c jetstream.Consumer) (jetstream.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return c.Next(jetstream.FetchContext(ctx))
}
