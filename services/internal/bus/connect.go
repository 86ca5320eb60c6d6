// Package bus connects a service to NATS. It has a connection that survives
// restarts of the server, publishes with acknowledgement and message ID, and serves
// endpoints of the NATS service framework.
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

// InboxPrefix returns the prefix of the reply subjects of a service. Each service
// has its own, so that permissions can keep services from reading each other's
// replies.
func InboxPrefix(service string) string { return subject.InboxPrefix + "_" + service }

// connectPause is the time between two attempts to connect for the first time.
const connectPause = 500 * time.Millisecond

// Connect returns a connection to the servers of cfg. It waits for the first
// connection until ctx ends. Afterwards the connection reconnects without limit. A
// publish without a connection fails immediately and is not buffered. While there is
// no connection, the reason is logged immediately and every
// [connection.WaitingPeriod]. Connect returns an error immediately when cfg is
// invalid.
//
// The caller closes the connection with Drain or Close.
func Connect(
	ctx context.Context, cfg connection.Config, service, instance string, log *slog.Logger,
) (*nats.Conn, error) {
	if _, err := cfg.Options(); err != nil {
		return nil, err
	}
	w := &waitLog{url: cfg.Redacted(), log: log}
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
			nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { w.logError(err) }),
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
				if err != nil {
					log.Warn("disconnected from NATS", "error", err)
				}
			}),
			nats.ErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
				if sub == nil && !nc.IsConnected() { // such as credentials that the server rejects
					w.logError(err)
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
		w.logError(err)
		if ended := retry.Sleep(ctx, connectPause); ended != nil {
			return nil, fmt.Errorf("%w: %w", ended, err)
		}
	}
}

// wrapNotConnected adds the meaning to the error of a publish without a connection:
// the client library reports a full buffer.
func wrapNotConnected(err error) error {
	if errors.Is(err, nats.ErrReconnectBufExceeded) {
		return fmt.Errorf("not connected to NATS: %w", err)
	}
	return err
}

// waitLog logs why there is no connection.
type waitLog struct {
	url string
	log *slog.Logger

	mu    sync.Mutex
	state connection.Waiting
}

func (w *waitLog) logError(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state.ShouldLog(err, time.Now()) {
		w.log.Warn("waiting for NATS", "url", w.url, "error", err)
	}
}

// Drain ends the subscriptions of nc, waits until received messages are handled,
// sends published messages and closes the connection. When ctx ends first, Drain
// closes the connection immediately.
func Drain(ctx context.Context, nc *nats.Conn) error {
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	if nc.IsClosed() {
		return nil
	}
	if nc.Drain() != nil { // not connected, so there is nothing to wait for
		nc.Close()
		<-closed
		return nil //nolint:nilerr // nor an error to report
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
