package send

import (
	"errors"
	"math/rand/v2"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// failure is an attempt that gave no outcome of the picture.
type failure struct {
	problem *v1.Problem // nil when the mesh said nothing
	err     error
	// again: another attempt may succeed; after retryAfter if the mesh said so.
	again      bool
	retryAfter time.Duration
}

func (f *failure) Error() string {
	if f.problem != nil {
		return f.problem.Error()
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// passes is the one table of problems that another attempt may get over.
// Everything else is the picture's or the request's own.
func passes(c v1.Code) bool {
	switch c {
	case v1.Overloaded, v1.NoWorker, v1.Unavailable, v1.TruncatedBody, v1.Internal:
		return true
	}
	return false
}

const (
	firstDelay = 500 * time.Millisecond
	longDelay  = 30 * time.Second
)

// delay is how long to wait after attempt n, counted from 1: what the mesh
// asks for, or exponential back-off, both with full jitter, so that many
// senders do not come back together.
func delay(n int, retryAfter time.Duration) time.Duration {
	if retryAfter > 0 {
		return retryAfter + rand.N(retryAfter/2+1) //nolint:gosec // not a secret
	}
	return rand.N(min(firstDelay<<(min(n, 10)-1), longDelay)) + 1 //nolint:gosec // not a secret
}

// overloaded reports whether an attempt says that too much is sent.
func overloaded(err error) bool {
	var f *failure
	return errors.As(err, &f) && f.problem != nil && f.problem.Code == v1.Overloaded
}
