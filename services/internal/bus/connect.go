// Package bus is how a service reaches NATS: a connection that outlives the
// server, and publishing with an acknowledgement and a message id.
package bus

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
)

// InboxPrefix is what the reply subjects of a service begin with, so that
// permissions can keep services from reading each other's replies.
func InboxPrefix(service string) string { return subject.InboxPrefix + "_" + service }

// Connect returns a connection to the server or cluster at url. It waits for
// the first connection until ctx ends, and afterwards reconnects for ever;
// what is published meanwhile fails at once instead of piling up.
//
// The caller ends it with Drain or Close.
func Connect(ctx context.Context, url, service, instance string, log *slog.Logger) (*nats.Conn, error) {
	connected := make(chan struct{}, 1)
	signal := func(*nats.Conn) {
		select {
		case connected <- struct{}{}:
		default:
		}
	}
	nc, err := nats.Connect(url,
		nats.Name(service+" "+instance),
		nats.CustomInboxPrefix(InboxPrefix(service)),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(200*time.Millisecond),
		nats.ReconnectJitter(200*time.Millisecond, 500*time.Millisecond),
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5*time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(signal),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("reconnected to NATS", "url", nc.ConnectedUrlRedacted()) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("disconnected from NATS", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			var name string
			if sub != nil {
				name = sub.Subject
			}
			log.Error("NATS reported an error", "subject", name, "error", err)
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", url, err)
	}
	if nc.IsConnected() {
		return nc, nil
	}
	select {
	case <-connected:
		return nc, nil
	case <-ctx.Done():
		nc.Close()
		return nil, fmt.Errorf("connect to NATS at %s: %w", url, ctx.Err())
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
