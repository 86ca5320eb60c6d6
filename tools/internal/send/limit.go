package send

import (
	"context"
	"math"
	"sync"
	"time"
)

// maxConcurrency is the limit without --concurrency.
const maxConcurrency = 256

// limit bounds the number of images in flight. With auto, it follows the gradient
// of the latency, as Gradient2 of Netflix's concurrency-limits does
// (https://github.com/Netflix/concurrency-limits). While the latency stays near the
// latency of few images, the limit grows. When the latency doubles, the limit stays
// or falls. The problem overloaded halves the limit.
type limit struct {
	auto bool

	mu       sync.Mutex
	free     *sync.Cond
	at       float64
	inFlight int
	// since has the measurements since the last step.
	since struct {
		n      int
		sum    float64 // seconds
		halved bool
	}
	usual float64 // lowest mean latency, in seconds
}

func newLimit(n int, auto bool) *limit {
	l := &limit{auto: auto, at: float64(n)}
	if auto {
		l.at = 2
	}
	l.free = sync.NewCond(&l.mu)
	return l
}

// enter waits until an image may be sent. It returns false when ctx ends first.
func (l *limit) enter(ctx context.Context) bool {
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.free.Broadcast()
	})()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.inFlight >= int(l.at) && ctx.Err() == nil {
		l.free.Wait()
	}
	if ctx.Err() != nil {
		return false
	}
	l.inFlight++
	return true
}

// leave ends an image that entered.
func (l *limit) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	l.free.Broadcast()
}

// observe adjusts the limit after an attempt with this latency.
func (l *limit) observe(latency time.Duration, overloaded bool) {
	if !l.auto {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if overloaded {
		if !l.since.halved { // once for all images that were in flight together
			l.at, l.since.halved = max(1, l.at/2), true
		}
	} else {
		l.since.n++
		l.since.sum += latency.Seconds()
	}
	if l.since.n < max(8, int(l.at)) {
		return
	}
	if mean := l.since.sum / float64(l.since.n); !l.since.halved {
		l.at, l.usual = step(l.at, l.usual, mean)
	}
	l.since.n, l.since.sum, l.since.halved = 0, 0, false
	l.free.Broadcast()
}

// tolerance is the factor of the usual latency above which the limit no longer grows
// freely.
const tolerance = 2

// step returns the next limit. mean is the mean latency in seconds at the limit at.
// usual is the lowest mean so far. It does not age: an average that includes the
// time in a queue would let the queue grow forever.
func step(at, usual, mean float64) (next, newUsual float64) {
	if usual == 0 || mean < usual {
		usual = mean
	}
	gradient := min(1, max(0.5, tolerance*usual/mean))
	next = gradient*at + math.Sqrt(at)
	return min(maxConcurrency, max(1, 0.7*at+0.3*next)), usual
}

func (l *limit) current() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.at)
}
