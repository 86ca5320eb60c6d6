package fetch

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// hosts bounds what is done with each host at a time.
type hosts struct {
	each int

	mu   sync.Mutex
	used map[string]*host
}

type host struct {
	slots *semaphore.Weighted
	users int // that have a slot or wait for one
}

// enter waits for a slot of a host; leave gives it back.
func (h *hosts) enter(ctx context.Context, name string) (leave func(), err error) {
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
	if err := one.slots.Acquire(ctx, 1); err != nil {
		gone()
		return nil, err
	}
	return func() {
		one.slots.Release(1)
		gone()
	}, nil
}
