package fetch

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// HostLimiter limits concurrent requests to each host.
type HostLimiter struct {
	perHost int

	mu    sync.Mutex
	hosts map[string]*host // those with users
}

type host struct {
	permits *semaphore.Weighted
	users   int // requests that have a permit or wait for one
}

// NewHostLimiter returns a HostLimiter that allows perHost requests to each host at a time.
func NewHostLimiter(perHost int) *HostLimiter {
	return &HostLimiter{perHost: perHost, hosts: map[string]*host{}}
}

// Acquire waits for a permit of a host. The caller calls release.
func (l *HostLimiter) Acquire(ctx context.Context, name string) (release func(), err error) {
	return l.acquire(name, func(permits *semaphore.Weighted) error { return permits.Acquire(ctx, 1) })
}

// TryAcquire acquires a permit of a host without waiting. It returns [ErrBusy] when no permit is free.
func (l *HostLimiter) TryAcquire(name string) (release func(), err error) {
	return l.acquire(name, func(permits *semaphore.Weighted) error {
		if !permits.TryAcquire(1) {
			return ErrBusy
		}
		return nil
	})
}

func (l *HostLimiter) acquire(name string, acquire func(*semaphore.Weighted) error) (release func(), err error) {
	l.mu.Lock()
	h := l.hosts[name]
	if h == nil {
		h = &host{permits: semaphore.NewWeighted(int64(l.perHost))}
		l.hosts[name] = h
	}
	h.users++
	l.mu.Unlock()
	removeUser := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(l.hosts, name)
		}
	}
	if err := acquire(h.permits); err != nil {
		removeUser()
		return nil, err
	}
	return func() {
		h.permits.Release(1)
		removeUser()
	}, nil
}
