package consume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/retry"
)

// Source is a durable consumer from which a Loop pulls.
type Source struct {
	JetStream jetstream.JetStream
	Stream    string
	Consumer  string
	// Width is the maximum number of messages that are processed concurrently.
	Width int
	// Prefetch is how many messages are requested at a time. With 1 the loop holds
	// no message that is not being processed. A larger number saves a round trip for
	// each message, and suits handlers that are much faster than [streams.AckWait].
	Prefetch int
}

// Run processes the messages of src until ctx ends, and returns when all messages
// that it had pulled are processed. Handlers are called with hard.
//
// When the consumer is missing or is deleted, Run logs that and waits for it.
func (l *Loop) Run(ctx, hard context.Context, src Source, handle Handler) {
	l.SendHeartbeats(func() {
		logged := ""
		for attempt := 1; ctx.Err() == nil; attempt++ {
			begin := time.Now()
			err := l.pull(ctx, hard, src, handle)
			if err == nil {
				return // ctx has ended
			}
			if time.Since(begin) > pullExpiry { // it worked for a while
				attempt, logged = 1, ""
			}
			if err.Error() != logged {
				logged = err.Error()
				l.log.Error("cannot pull messages", "stream", src.Stream, "consumer", src.Consumer, "error", err)
			}
			if retry.Sleep(ctx, pullBackoff.Delay(attempt)) != nil {
				return
			}
		}
	})
}

// pullBackoff is the delay before the next attempt to pull after an error.
var pullBackoff = retry.Exponential(100*time.Millisecond, 2*time.Second, 2)

const (
	// pullExpiry is how long a pull request waits at the server.
	pullExpiry = 30 * time.Second
	// pullHeartbeat is short because the client library can miss the moment for the
	// next pull request, and then notices it only by the heartbeat.
	pullHeartbeat = 500 * time.Millisecond
)

// pull processes messages until ctx ends and returns nil, or returns an error.
func (l *Loop) pull(ctx, hard context.Context, src Source, handle Handler) error {
	c, err := src.JetStream.Consumer(ctx, src.Stream, src.Consumer)
	if ctx.Err() != nil {
		return nil // ended before it started
	}
	if err != nil {
		return fmt.Errorf("open consumer %s of %s: %w", src.Consumer, src.Stream, err)
	}
	// The library requests more messages only when its callback has returned. The
	// callback returns when another message can be processed.
	room := make(chan struct{}, src.Width)
	room <- struct{}{}
	var group sync.WaitGroup
	suspect := make(chan struct{}, 1)
	consuming, err := c.Consume(func(m jetstream.Msg) {
		group.Go(func() {
			l.Process(hard, m, handle)
			<-room
		})
		room <- struct{}{}
	}, jetstream.PullMaxMessages(src.Prefetch), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat),
		jetstream.ConsumeErrHandler(func(jetstream.ConsumeContext, error) {
			select {
			case suspect <- struct{}{}:
			default:
			}
		}))
	if err != nil {
		return fmt.Errorf("pull from %s of %s: %w", src.Consumer, src.Stream, err)
	}
	defer group.Wait()
	for {
		select {
		case <-ctx.Done(): // messages received so far are processed
			consuming.Drain()
			<-consuming.Closed()
			return nil
		case <-consuming.Closed():
			return fmt.Errorf("pull from %s of %s: %w", src.Consumer, src.Stream, errConsumerDeleted)
		case <-suspect:
			// The library notices the removal of a consumer only when a pull
			// request waits for it.
			if _, err := src.JetStream.Consumer(ctx, src.Stream, src.Consumer); errors.Is(err, jetstream.ErrConsumerNotFound) {
				consuming.Stop()
				<-consuming.Closed()
				return fmt.Errorf("pull from %s of %s: %w", src.Consumer, src.Stream, errConsumerDeleted)
			}
		}
	}
}

// errConsumerDeleted is the error of a pull whose consumer was deleted.
var errConsumerDeleted = errors.New("the consumer was deleted")
