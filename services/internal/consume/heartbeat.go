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
	inFlight map[Message]struct{}
}

func newHeartbeat(log *slog.Logger) *heartbeat {
	return &heartbeat{log: log, inFlight: map[Message]struct{}{}}
}

// track adds messages until the returned function is called.
func (h *heartbeat) track(ms ...Message) (untrack func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range ms {
		h.inFlight[m] = struct{}{}
	}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, m := range ms {
			delete(h.inFlight, m)
		}
	}
}

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

func (h *heartbeat) beat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for m := range h.inFlight {
		if err := m.InProgress(); err != nil {
			h.log.Warn("cannot say that a message is in progress", "subject", m.Subject(), "error", err)
		}
	}
}
