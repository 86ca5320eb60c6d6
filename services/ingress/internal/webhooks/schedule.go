package webhooks

import (
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
)

// schedule is the wait after each attempt that failed, as the Standard
// Webhooks specification recommends.
var schedule = retry.Backoff{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour,
}

// longestRetryAfter bounds what a receiver can ask for.
const longestRetryAfter = time.Hour

// retryDelay is how long to wait after attempt n, counted from 1: what the schedule
// says, or longer when the receiver has said so.
func retryDelay(n int, retryAfter time.Duration) time.Duration {
	return max(schedule.Delay(n), min(retryAfter, longestRetryAfter))
}
