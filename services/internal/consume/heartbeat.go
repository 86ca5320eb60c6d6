package consume

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sightmesh/sightmesh/contracts/streams"
)

// heartbeat tells the server at every [streams.Heartbeat] which messages are
// being processed.
type heartbeat struct {
	log *slog.Logger

	mu       sync.Mutex
	inFlight map[*held]struct{}
}

// held is a message that is being processed.
type held struct {
	m Message
	// extended is when its delivery was last extended, as the clock on the
	// wall has it: that of the process may stand still while it is paused.
	extended time.Time
}

func newHeartbeat(log *slog.Logger) *heartbeat {
	return &heartbeat{log: log, inFlight: map[*held]struct{}{}}
}

// track adds a message until untrack is called.
func (h *heartbeat) track(m Message) (one *held, untrack func()) {
	one = &held{m: m, extended: now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inFlight[one] = struct{}{}
	return one, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.inFlight, one)
	}
}

// isLost reports whether the message has been delivered to another process by
// now: this one was paused for longer than [streams.AckWait].
func (h *heartbeat) isLost(one *held) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now().Sub(one.extended) > streams.AckWait
}

func now() time.Time { return time.Now().Round(0) }

// during sends heartbeats while f runs.
func (h *heartbeat) during(f func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var beating sync.WaitGroup
	beating.Go(func() { h.run(ctx) })
	defer beating.Wait()
	defer cancel()
	f()
}

func (h *heartbeat) run(ctx context.Context) {
	tick := time.NewTicker(streams.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.beat()
		}
	}
}

// beat extends the deliveries that are not lost yet. Those that are stay so:
// the server would take the word of this process for a message that another
// one has.
func (h *heartbeat) beat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for one := range h.inFlight {
		at := now()
		if at.Sub(one.extended) > streams.AckWait {
			continue
		}
		if err := one.m.InProgress(); err != nil {
			h.log.Warn("cannot say that a message is in progress", "subject", one.m.Subject(), "error", err)
			continue
		}
		one.extended = at
	}
}
