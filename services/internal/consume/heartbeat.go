package consume

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sightmesh/sightmesh/contracts/streams"
)

// heartbeat sends an in-progress acknowledgement every [streams.Heartbeat] for each
// message that is being processed.
type heartbeat struct {
	log *slog.Logger

	mu       sync.Mutex
	inFlight map[*inFlightMessage]struct{}
}

// inFlightMessage is a message that is being processed.
type inFlightMessage struct {
	m Message
	// extended is when its delivery was last extended. It is a wall clock time:
	// the monotonic clock may stop while the process is paused.
	extended time.Time
}

func newHeartbeat(log *slog.Logger) *heartbeat {
	return &heartbeat{log: log, inFlight: map[*inFlightMessage]struct{}{}}
}

// track adds a message to the heartbeats. untrack removes it.
func (h *heartbeat) track(m Message) (one *inFlightMessage, untrack func()) {
	one = &inFlightMessage{m: m, extended: now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inFlight[one] = struct{}{}
	return one, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.inFlight, one)
	}
}

// isLost reports whether the message has been redelivered, because this process was
// paused for longer than [streams.AckWait].
func (h *heartbeat) isLost(one *inFlightMessage) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now().Sub(one.extended) > streams.AckWait
}

func now() time.Time { return time.Now().Round(0) }

// beatWhile sends heartbeats while f runs.
func (h *heartbeat) beatWhile(f func()) {
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

// beat extends the deliveries that are not lost. It does not extend lost ones: the
// server would accept that for a message that another process has.
func (h *heartbeat) beat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for one := range h.inFlight {
		at := now()
		if at.Sub(one.extended) > streams.AckWait {
			continue
		}
		if err := one.m.InProgress(); err != nil {
			h.log.Warn("cannot extend a delivery", "subject", one.m.Subject(), "error", err)
			continue
		}
		one.extended = at
	}
}
