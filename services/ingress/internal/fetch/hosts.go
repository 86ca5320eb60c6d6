package fetch

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Hosts bounds what is done with each host at a time.
type Hosts struct {
	each int

	mu   sync.Mutex
	used map[string]*host
}

type host struct {
	slots *semaphore.Weighted
	users int // that have a slot or wait for one
}

// NewHosts gives every host so many slots.
func NewHosts(each int) *Hosts { return &Hosts{each: each, used: map[string]*host{}} }

// Enter waits for a slot of a host; leave gives it back.
func (h *Hosts) Enter(ctx context.Context, name string) (leave func(), err error) {
	return h.take(name, func(slots *semaphore.Weighted) error { return slots.Acquire(ctx, 1) })
}

// TryEnter takes a slot of a host that is free, or says [ErrBusy].
func (h *Hosts) TryEnter(name string) (leave func(), err error) {
	return h.take(name, func(slots *semaphore.Weighted) error {
		if !slots.TryAcquire(1) {
			return ErrBusy
		}
		return nil
	})
}

func (h *Hosts) take(name string, acquire func(*semaphore.Weighted) error) (leave func(), err error) {
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
