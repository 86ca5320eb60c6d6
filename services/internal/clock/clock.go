// Package clock returns the time of the NATS server.
//
// Deadlines of jobs are compared on several machines, and the server stamps every
// message with its time. Machines with different clocks would end jobs too early or
// too late. So each service measures the difference of its own clock to that of the
// server. The clocks of the servers of a cluster are assumed to be equal.
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

// Clock returns the time of the server. Before the first [Clock.Measure] it returns
// the time of this machine. A Clock is safe for concurrent use by multiple
// goroutines.
type Clock struct {
	local  func() time.Time
	offset atomic.Int64 // of the server, in nanoseconds
}

// New returns a Clock based on local, the clock of this machine. It is [time.Now]
// except in tests.
func New(local func() time.Time) *Clock { return &Clock{local: local} }

// Now returns the time of the server.
func (c *Clock) Now() time.Time { return c.local().Add(time.Duration(c.offset.Load())) }

// Until returns the duration until t, a time of the server.
func (c *Clock) Until(t time.Time) time.Duration { return t.Sub(c.Now()) }

// WithDeadline is [context.WithDeadline] for a time of the server.
func (c *Clock) WithDeadline(ctx context.Context, t time.Time) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.Until(t))
}

const (
	measurePeriod = 10 * time.Second // between two measurements
	// maxRoundTrip is the longest round trip of a valid measurement. The error of a
	// measurement is at most half of it.
	maxRoundTrip = time.Second
	// minLoggedOffset is the difference above which an operator is warned.
	minLoggedOffset = time.Second
)

// Measure requests the time of the server. A difference that is not larger than the
// error of the measurement is taken as zero.
func (c *Clock) Measure(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, maxRoundTrip)
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

// Run measures every 10 s until ctx ends. It logs a warning when the difference has
// changed by more than 1 s.
func (c *Clock) Run(ctx context.Context, js jetstream.JetStream, log *slog.Logger) {
	logged := time.Duration(0)
	for {
		if err := c.Measure(ctx, js); err != nil {
			log.DebugContext(ctx, "cannot measure the clock", "error", err)
		}
		offset := time.Duration(c.offset.Load())
		if (offset - logged).Abs() > minLoggedOffset {
			log.WarnContext(ctx, "the clock of this machine differs from that of the NATS server",
				"server_is_ahead_by", offset.String())
			logged = offset
		}
		if retry.Sleep(ctx, measurePeriod) != nil {
			return
		}
	}
}
