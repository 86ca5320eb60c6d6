// Package clock tells the time of the NATS server.
//
// Deadlines of jobs travel between machines, and the server stamps every
// message. Machines whose clocks disagree would give jobs up too early or too
// late, so that every service measures how far its own clock is from that of
// the server. The servers of a cluster are taken to agree with each other.
package clock

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
)

// Clock tells the time of the server. It is that of the machine until the
// first [Clock.Measure]. A Clock is safe for concurrent use by multiple
// goroutines.
type Clock struct {
	local  func() time.Time
	offset atomic.Int64 // of the server, in nanoseconds
}

// New returns a clock over that of the machine, [time.Now] outside of tests.
func New(local func() time.Time) *Clock { return &Clock{local: local} }

// Now returns the time of the server.
func (c *Clock) Now() time.Time { return c.local().Add(time.Duration(c.offset.Load())) }

// Until returns how long it is until t, a time of the server.
func (c *Clock) Until(t time.Time) time.Duration { return t.Sub(c.Now()) }

// WithDeadline is [context.WithDeadline] for a time of the server.
func (c *Clock) WithDeadline(ctx context.Context, t time.Time) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.Until(t))
}

const (
	period = 10 * time.Second // between two measurements
	// longest is how long the server may take to answer for a measurement to
	// count: the error is half of it at most.
	longest = time.Second
	// worthLogging is a difference that an operator should know of.
	worthLogging = time.Second
)

// Measure asks the server for its time. A difference that the time of the
// answer may explain counts as none.
func (c *Clock) Measure(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	before := c.local()
	s, err := js.Stream(ctx, streams.Images)
	if err != nil {
		return fmt.Errorf("measure the clock of the server: %w", err)
	}
	after := c.local()
	uncertain := after.Sub(before) / 2
	offset := s.CachedInfo().TimeStamp.Sub(before.Add(uncertain))
	if offset.Abs() <= uncertain {
		offset = 0
	}
	c.offset.Store(int64(offset))
	return nil
}

// Run measures until ctx ends. A large difference is logged when it is new.
func (c *Clock) Run(ctx context.Context, js jetstream.JetStream, log *slog.Logger) {
	logged := time.Duration(0)
	for {
		if err := c.Measure(ctx, js); err != nil {
			log.DebugContext(ctx, "cannot measure the clock", "error", err)
		}
		offset := time.Duration(c.offset.Load())
		if (offset - logged).Abs() > worthLogging {
			log.WarnContext(ctx, "the clock of this machine differs from that of the NATS server", "server_is_ahead_by", offset.String())
			logged = offset
		}
		if retry.Sleep(ctx, period) != nil {
			return
		}
	}
}
