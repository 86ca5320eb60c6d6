// Package bus is how a service reaches NATS: a connection that outlives the
// server, and publishing with an acknowledgement and a message id.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/connection"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
)

// InboxPrefix is what the reply subjects of a service begin with, so that
// permissions can keep services from reading each other's replies.
func InboxPrefix(service string) string { return subject.InboxPrefix + "_" + service }

// connectPause is the time between two attempts to connect for the first time.
const connectPause = 500 * time.Millisecond

// Connect returns a connection to the servers of cfg. It waits for the first
// connection until ctx ends, and afterwards reconnects for ever; what is
// published meanwhile fails at once instead of piling up. While it waits, and
// while it reconnects, the log says why, at once and every
// [connection.WaitingPeriod]. A configuration that cannot be used is an error at
// once.
//
// The caller ends it with Drain or Close.
func Connect(
	ctx context.Context, cfg connection.Config, service, instance string, log *slog.Logger,
) (*nats.Conn, error) {
	if _, err := cfg.Options(); err != nil {
		return nil, err
	}
	w := &waiting{url: cfg.Redacted(), log: log}
	for {
		nc, err := cfg.Connect(
			nats.Name(service+" "+instance),
			nats.CustomInboxPrefix(InboxPrefix(service)),
			nats.MaxReconnects(-1),
			nats.ReconnectWait(200*time.Millisecond),
			nats.ReconnectJitter(200*time.Millisecond, 500*time.Millisecond),
			nats.ReconnectBufSize(-1),
			nats.PingInterval(5*time.Second),
			nats.MaxPingsOutstanding(2),
			nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("reconnected to NATS", "url", nc.ConnectedUrlRedacted()) }),
			nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { w.failed(err) }),
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
				if err != nil {
					log.Warn("disconnected from NATS", "error", err)
				}
			}),
			nats.ErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
				if sub == nil && !nc.IsConnected() { // such as credentials that the server rejects
					w.failed(err)
					return
				}
				var name string
				if sub != nil {
					name = sub.Subject
				}
				log.Error("NATS reported an error", "subject", name, "error", err)
			}),
		)
		if err == nil {
			return nc, nil
		}
		w.failed(err)
		if ended := retry.Sleep(ctx, connectPause); ended != nil {
			return nil, fmt.Errorf("%w: %w", ended, err)
		}
	}
}

// explain adds to the error of a publish without a connection what it means: the
// client says that a buffer is full.
func explain(err error) error {
	if errors.Is(err, nats.ErrReconnectBufExceeded) {
		return fmt.Errorf("not connected to NATS: %w", err)
	}
	return err
}

// waiting logs why there is no connection.
type waiting struct {
	url string
	log *slog.Logger

	mu      sync.Mutex
	waiting connection.Waiting
}

func (w *waiting) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting.ShouldSay(err, time.Now()) {
		w.log.Warn("waiting for NATS", "url", w.url, "error", err)
	}
}

// Drain ends the subscriptions of nc, lets what was received be handled, sends
// what was published and closes. It returns when all of that is done or ctx
// has ended, in which case the connection is closed the hard way.
func Drain(ctx context.Context, nc *nats.Conn) error {
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	if nc.IsClosed() {
		return nil
	}
	if nc.Drain() != nil { // not connected: there is nothing to wait for
		nc.Close()
		<-closed
		return nil //nolint:nilerr // and nothing to tell
	}
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		nc.Close()
		<-closed
		return fmt.Errorf("drain NATS connection: %w", ctx.Err())
	}
}
