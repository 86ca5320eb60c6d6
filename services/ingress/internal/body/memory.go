// Package body bounds what the bodies of requests may take: memory, which is
// taken as bytes arrive, and time, by the rate at which they arrive.
package body

import (
	"context"
	"sync"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Memory bounds the bytes of bodies that are held at a time, of all clients and
// of each. It is safe for concurrent use by multiple goroutines.
type Memory struct {
	size, share int64

	mu      sync.Mutex
	used    int64
	clients map[string]int64
	freed   chan struct{} // closed when memory is given back
}

// NewMemory returns a Memory of size bytes, of which one client can have share.
func NewMemory(size, share int64) *Memory {
	return &Memory{size: size, share: min(share, size), clients: map[string]int64{}, freed: make(chan struct{})}
}

// Used returns the bytes that are held.
func (m *Memory) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// NewReservation returns a Reservation of a client that has nothing yet. The caller ends it
// with Release.
func (m *Memory) NewReservation(client string) *Reservation {
	return &Reservation{memory: m, client: client}
}

// Reservation is what one request or frame has of a [Memory].
type Reservation struct {
	memory *Memory
	client string
	bytes  int64
}

// busyDelay is how long a client should wait until other bodies have been
// stored.
const busyDelay = time.Second

// Grow takes n more bytes. The error is a [*retry.Error] with an overloaded
// problem when the memory, or the share of the client, has no room.
func (h *Reservation) Grow(n int64) error {
	h.memory.mu.Lock()
	defer h.memory.mu.Unlock()
	return h.grow(n)
}

func (h *Reservation) grow(n int64) error {
	m := h.memory
	switch {
	case m.used+n > m.size:
		return retry.After(v1.NewProblem(v1.Overloaded, "too many bodies are being received"), busyDelay)
	case m.clients[h.client]+n > m.share:
		p := v1.NewProblem(v1.Overloaded, "the bodies of this client take %d bytes, more than one may have", m.share)
		return retry.After(p.WithLimit(m.share), busyDelay)
	}
	h.add(n)
	return nil
}

func (h *Reservation) add(n int64) {
	m := h.memory
	h.bytes += n
	m.used += n
	if m.clients[h.client] += n; m.clients[h.client] == 0 {
		delete(m.clients, h.client)
	}
	if n < 0 {
		close(m.freed)
		m.freed = make(chan struct{})
	}
}

// GrowWait is Grow that waits until there is room, but no longer than timeout and no
// longer than ctx lives.
func (h *Reservation) GrowWait(ctx context.Context, n int64, timeout time.Duration) error {
	t := time.NewTimer(timeout)
	defer t.Stop()
	for {
		h.memory.mu.Lock()
		err := h.grow(n)
		freed := h.memory.freed
		h.memory.mu.Unlock()
		if err == nil {
			return nil
		}
		select {
		case <-freed:
		case <-t.C:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Available returns how many bytes Grow could take now.
func (h *Reservation) Available() int64 {
	m := h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	return min(m.size-m.used, m.share-m.clients[h.client])
}

// ShrinkTo gives back what is over n bytes.
func (h *Reservation) ShrinkTo(n int64) {
	h.memory.mu.Lock()
	defer h.memory.mu.Unlock()
	if h.bytes > n {
		h.add(n - h.bytes)
	}
}

// Release gives everything back. More than once does no harm.
func (h *Reservation) Release() { h.ShrinkTo(0) }
