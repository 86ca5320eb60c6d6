package send

import (
	"context"
	"math"
	"sync"
	"time"
)

// maxConcurrency is the most that is sent at a time when nothing is said.
const maxConcurrency = 256

// limit bounds how many images are in flight. When it is to find the number
// by itself, it follows the gradient of latency, as Gradient2 of Netflix's
// concurrency-limits does (https://github.com/Netflix/concurrency-limits):
// while latency stays near that of few images there is room for more; when
// it doubles, the mesh has enough to do. A mesh that is overloaded halves it.
type limit struct {
	auto bool

	mu       sync.Mutex
	free     *sync.Cond
	at       float64
	inFlight int
	// since is what was measured since the last step.
	since struct {
		n      int
		sum    float64 // seconds
		halved bool
	}
	usual float64 // seconds: latency when there was little to do
}

func newLimit(n int, auto bool) *limit {
	l := &limit{auto: auto, at: float64(n)}
	if auto {
		l.at = 2
	}
	l.free = sync.NewCond(&l.mu)
	return l
}

// enter waits for room; false means that ctx ended first.
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

// leave gives the room back.
func (l *limit) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	l.free.Broadcast()
}

// observe learns from one attempt.
func (l *limit) observe(took time.Duration, tooMuch bool) {
	if !l.auto {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if tooMuch {
		if !l.since.halved { // once for all that were in flight together
			l.at, l.since.halved = max(1, l.at/2), true
		}
	} else {
		l.since.n++
		l.since.sum += took.Seconds()
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

// tolerance is how much longer images may take than usual before less is
// sent.
const tolerance = 2

// step returns the next limit. mean is the mean latency in seconds at the limit at.
// usual is the lowest mean so far. It does not age: an average that follows
// what a queue adds would let the queue grow for ever.
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
