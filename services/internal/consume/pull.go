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

// Source is a durable consumer to pull from.
type Source struct {
	JetStream jetstream.JetStream
	Stream    string
	Consumer  string
	// Width is how many messages are processed at a time.
	Width int
	// Prefetch is how many messages are requested at a time. With 1 no message
	// is held that is not being processed. More suits handlers that are much
	// quicker than [streams.AckWait], and saves a round trip for each message.
	Prefetch int
}

// Run processes the messages of src until ctx ends, and returns when what was
// pulled by then has been processed. Handlers are called with hard.
//
// A consumer that is missing, or is removed meanwhile, is logged and waited
// for.
func (l *Loop) Run(ctx, hard context.Context, src Source, handle Handler) {
	l.Beat(func() {
		said := ""
		for attempt := 1; ctx.Err() == nil; attempt++ {
			begin := time.Now()
			err := l.pull(ctx, hard, src, handle)
			if err == nil {
				return // ctx has ended
			}
			if time.Since(begin) > pullExpiry { // it was there for a while
				attempt, said = 1, ""
			}
			if err.Error() != said {
				said = err.Error()
				l.log.Error("cannot pull messages", "stream", src.Stream, "consumer", src.Consumer, "error", err)
			}
			if retry.Sleep(ctx, pullBackoff.Delay(attempt)) != nil {
				return
			}
		}
	})
}

// pullBackoff is the delay before a consumer that cannot be pulled from is
// looked up again.
var pullBackoff = retry.Exponential(100*time.Millisecond, 2*time.Second, 2)

const (
	// pullExpiry is how long a pull request waits at the server.
	pullExpiry = 30 * time.Second
	// pullHeartbeat is short because the client library can miss the moment to
	// ask for more, and notices only by the heartbeat.
	pullHeartbeat = 500 * time.Millisecond
)

// pull processes messages until ctx ends, or returns why it cannot.
func (l *Loop) pull(ctx, hard context.Context, src Source, handle Handler) error {
	c, err := src.JetStream.Consumer(ctx, src.Stream, src.Consumer)
	if ctx.Err() != nil {
		return nil // it ended before it began
	}
	if err != nil {
		return fmt.Errorf("open consumer %s of %s: %w", src.Consumer, src.Stream, err)
	}
	// The library requests more only when its callback has returned, which is
	// when there is room for another message.
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
		case <-ctx.Done(): // what was received by now is processed
			consuming.Drain()
			<-consuming.Closed()
			return nil
		case <-consuming.Closed():
			return fmt.Errorf("pull from %s of %s: %w", src.Consumer, src.Stream, errGone)
		case <-suspect:
			// The library notices the removal of a consumer only when a pull
			// request waits for it.
			if _, err := src.JetStream.Consumer(ctx, src.Stream, src.Consumer); errors.Is(err, jetstream.ErrConsumerNotFound) {
				consuming.Stop()
				<-consuming.Closed()
				return fmt.Errorf("pull from %s of %s: %w", src.Consumer, src.Stream, errGone)
			}
		}
	}
}

// errGone says that the library stopped to pull: the consumer was removed.
var errGone = errors.New("the consumer is gone")
