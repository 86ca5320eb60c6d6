package bus

import (
	"sync"

	"golang.org/x/sync/semaphore"
)

// Requests are those of an endpoint that are under way, so many at most. A
// [Service] hands over one request at a time, so that a handler must not block: TryGo starts the work in a goroutine, or says at once why not.
type Requests struct {
	places         *semaphore.Weighted
	busy, stopping error
	running        sync.WaitGroup

	mu      sync.Mutex
	stopped bool
}

// NewRequests returns Requests of which most may be under way. TryGo returns busy
// for one more, and stopping for those after Stop.
func NewRequests(most int, busy, stopping error) *Requests {
	return &Requests{places: semaphore.NewWeighted(int64(most)), busy: busy, stopping: stopping}
}

// TryGo calls serve in a goroutine, with a place. serve frees the place before it
// replies: a client that has its reply can send its next request.
func (r *Requests) TryGo(serve func(free func())) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.stopped:
		return r.stopping
	case !r.places.TryAcquire(1):
		return r.busy
	}
	r.running.Go(func() { serve(func() { r.places.Release(1) }) })
	return nil
}

// Stop rejects the requests that come from here on, and returns when none is
// under way. A service, once stopped, may still hand over some that it had received.
func (r *Requests) Stop() {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.running.Wait()
}
