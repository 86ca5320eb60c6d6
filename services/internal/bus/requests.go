package bus

import (
	"sync"

	"golang.org/x/sync/semaphore"
)

// Requests limits how many requests of an endpoint are served concurrently. The
// handler of an [Endpoint] must not block. TryGo starts a goroutine for the request, or
// returns an error immediately.
type Requests struct {
	places         *semaphore.Weighted
	busy, stopping error
	running        sync.WaitGroup

	mu      sync.Mutex
	stopped bool
}

// NewRequests returns Requests with a limit of most. TryGo returns busy at the limit,
// and stopping after Stop.
func NewRequests(most int, busy, stopping error) *Requests {
	return &Requests{places: semaphore.NewWeighted(int64(most)), busy: busy, stopping: stopping}
}

// TryGo calls serve in a goroutine and counts it against the limit until serve calls
// free. serve calls free before it replies, so that a client that has received its
// reply can send its next request.
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

// Stop rejects further requests and waits until all requests have been served. A
// stopped [Service] may still pass on requests that it had received before.
func (r *Requests) Stop() {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.running.Wait()
}
