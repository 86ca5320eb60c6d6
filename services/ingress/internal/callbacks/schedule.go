package callbacks

import (
	"math/rand/v2"
	"time"
)

// schedule is the wait after each attempt that failed, as the Standard
// Webhooks specification recommends; the last one repeats.
var schedule = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour,
}

// delay is how long to wait after attempt n, counted from 1: what the schedule
// says and up to a fifth more, so that what failed together does not come back
// together; or longer when the receiver has said so.
func delay(n int, retryAfter time.Duration) time.Duration {
	d := schedule[min(n, len(schedule))-1]
	return max(d+rand.N(d/5), min(retryAfter, time.Hour)) //nolint:gosec // not a secret
}
