package fetch

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// HostLimiter bounds what is done with each host at a time.
type HostLimiter struct {
	each int

	mu   sync.Mutex
	used map[string]*host
}

type host struct {
	slots *semaphore.Weighted
	users int // that have a slot or wait for one
}

// NewHostLimiter gives every host so many slots.
func NewHostLimiter(each int) *HostLimiter { return &HostLimiter{each: each, used: map[string]*host{}} }

// Acquire waits for a slot of a host; leave gives it back.
func (h *HostLimiter) Acquire(ctx context.Context, name string) (leave func(), err error) {
	return h.acquire(name, func(slots *semaphore.Weighted) error { return slots.Acquire(ctx, 1) })
}

// TryAcquire takes a slot of a host that is free, or says [ErrBusy].
func (h *HostLimiter) TryAcquire(name string) (leave func(), err error) {
	return h.acquire(name, func(slots *semaphore.Weighted) error {
		if !slots.TryAcquire(1) {
			return ErrBusy
		}
		return nil
	})
}

func (h *HostLimiter) acquire(name string, acquire func(*semaphore.Weighted) error) (leave func(), err error) {
	h.mu.Lock()
	one := h.used[name]
	if one == nil {
		one = &host{slots: semaphore.NewWeighted(int64(h.each))}
		h.used[name] = one
	}
	one.users++
	h.mu.Unlock()
	gone := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(h.used, name)
		}
	}
	if err := acquire(one.slots); err != nil {
		gone()
		return nil, err
	}
	return func() {
		one.slots.Release(1)
		gone()
	}, nil
}
