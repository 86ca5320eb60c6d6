// Package body limits the memory and the time of request bodies. Memory is
// reserved as bytes arrive. Time is limited by the lowest rate at which they arrive.
package body

import (
	"context"
	"sync"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Memory limits the bytes of bodies in memory, of all clients and of each. It is
// safe for concurrent use by multiple goroutines.
type Memory struct {
	size, share int64

	mu      sync.Mutex
	used    int64
	clients map[string]int64
	freed   chan struct{} // closed when memory is released
}

// NewMemory returns a Memory of size bytes, of which one client can reserve share.
func NewMemory(size, share int64) *Memory {
	return &Memory{size: size, share: min(share, size), clients: map[string]int64{}, freed: make(chan struct{})}
}

// Used returns the bytes that are reserved.
func (m *Memory) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// NewReservation returns an empty Reservation of a client. The caller calls Release.
func (m *Memory) NewReservation(client string) *Reservation {
	return &Reservation{memory: m, client: client}
}

// Reservation is the part of a [Memory] that one request or frame has.
type Reservation struct {
	memory *Memory
	client string
	bytes  int64
}

// busyDelay is how long a client should wait for other bodies to be stored.
const busyDelay = time.Second

// Grow reserves n more bytes. When the memory or the share of the client is
// exhausted, it returns a [*retry.Error] with an overloaded problem.
func (r *Reservation) Grow(n int64) error {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	return r.grow(n)
}

func (r *Reservation) grow(n int64) error {
	m := r.memory
	switch {
	case m.used+n > m.size:
		return retry.After(v1.NewProblem(v1.Overloaded, "too many bodies are being received"), busyDelay)
	case m.clients[r.client]+n > m.share:
		p := v1.NewProblem(v1.Overloaded, "the bodies of this client take %d bytes, more than one may have", m.share)
		return retry.After(p.WithLimit(m.share), busyDelay)
	}
	r.add(n)
	return nil
}

func (r *Reservation) add(n int64) {
	m := r.memory
	r.bytes += n
	m.used += n
	if m.clients[r.client] += n; m.clients[r.client] == 0 {
		delete(m.clients, r.client)
	}
	if n < 0 {
		close(m.freed)
		m.freed = make(chan struct{})
	}
}

// GrowWait is like Grow, but waits for free memory until timeout or the end of ctx.
func (r *Reservation) GrowWait(ctx context.Context, n int64, timeout time.Duration) error {
	t := time.NewTimer(timeout)
	defer t.Stop()
	for {
		r.memory.mu.Lock()
		err := r.grow(n)
		freed := r.memory.freed
		r.memory.mu.Unlock()
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

// Available returns how many bytes Grow can reserve now.
func (r *Reservation) Available() int64 {
	m := r.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	return min(m.size-m.used, m.share-m.clients[r.client])
}

// ShrinkTo releases what exceeds n bytes.
func (r *Reservation) ShrinkTo(n int64) {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	if r.bytes > n {
		r.add(n - r.bytes)
	}
}

// Release releases all bytes. It can be called more than once.
func (r *Reservation) Release() { r.ShrinkTo(0) }
