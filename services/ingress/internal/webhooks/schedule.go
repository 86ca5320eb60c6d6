package webhooks

import (
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
)

// schedule is the delay after each failed attempt, as the Standard Webhooks specification recommends.
var schedule = retry.Backoff{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour,
}

// longestRetryAfter limits the delay that a receiver can request.
const longestRetryAfter = time.Hour

// retryDelay returns the delay after attempt n, counted from 1: that of the schedule, or a longer one that
// the receiver has requested.
func retryDelay(n int, retryAfter time.Duration) time.Duration {
	return max(schedule.Delay(n), min(retryAfter, longestRetryAfter))
}
