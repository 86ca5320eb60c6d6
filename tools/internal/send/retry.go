package send

import (
	"errors"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// isTransient reports whether another attempt may succeed after a problem. All
// other problems are caused by the image or the request.
func isTransient(c v1.Code) bool {
	switch c {
	case v1.Overloaded, v1.NoWorker, v1.Unavailable, v1.TruncatedBody, v1.Internal:
		return true
	}
	return false
}

// backoff is the delay after an attempt when the mesh requests none.
var backoff = retry.Exponential(500*time.Millisecond, 30*time.Second, 2)

// delay returns the delay after attempt n, counted from 1: the delay that the mesh
// requests, or else the back-off. Both have jitter, so that many senders do not retry
// at the same time.
func delay(n int, after time.Duration) time.Duration {
	if after > 0 {
		return retry.Backoff{after}.Delay(1)
	}
	return backoff.Delay(n)
}

// isOverloaded reports whether the error is the problem overloaded.
func isOverloaded(err error) bool {
	var p *v1.Problem
	return errors.As(err, &p) && p.Code == v1.Overloaded
}
