// Package retry helps to repeat operations that fail temporarily. It has an error that
// says when to try again, delays that grow, and a sleep that ends with its context. It
// depends on the standard library only.
//
// It is used for the Retry-After of HTTP and NATS replies, for requests of the services,
// and for restarts of processes.
package retry

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"
)

// Error says that a later try may succeed.
type Error struct {
	// Err says what failed. It is often a problem of package v1.
	Err error
	// After is how long to wait before another try. 0 means that it is not known.
	After time.Duration
}

// After returns an [*Error] that wraps err.
func After(err error, d time.Duration) error { return &Error{Err: err, After: d} }

// Error returns the text of the wrapped error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// Delay reports whether err wraps an [*Error], and returns its After.
func Delay(err error) (d time.Duration, ok bool) {
	var e *Error
	if errors.As(err, &e) {
		return e.After, true
	}
	return 0, false
}

// FormatAfter returns the value of a Retry-After header for err: whole seconds,
// rounded up. It is empty when err does not say when to try again.
func FormatAfter(err error) string {
	d, ok := Delay(err)
	if !ok || d <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// ParseAfter parses a Retry-After header in seconds. It returns 0 for an empty or
// invalid value, and for a date.
func ParseAfter(header string) time.Duration {
	n, err := strconv.Atoi(header)
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// Backoff lists the delay after each failed attempt. The last one repeats. The delays
// of an empty Backoff are 0.
type Backoff []time.Duration

// Exponential returns the Backoff that begins with first, multiplies by factor
// and ends with longest.
func Exponential(first, longest time.Duration, factor int) Backoff {
	var b Backoff
	for d := first; d < longest; d *= time.Duration(factor) {
		b = append(b, d)
	}
	return append(b, longest)
}

// Delay returns how long to wait after attempt n, counted from 1. Up to a
// quarter is added at random, so that operations that failed at the same time are not
// repeated at the same time.
func (b Backoff) Delay(n int) time.Duration {
	if len(b) == 0 {
		return 0
	}
	return jitter(b[min(max(n, 1), len(b))-1])
}

func jitter(d time.Duration) time.Duration {
	return d + rand.N(d/4+1) //nolint:gosec // not a secret
}

// Sleep waits for d. It returns the error of ctx when that ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
