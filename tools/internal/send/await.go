package send

import (
	"context"
	"errors"
	"time"
)

// errAbandoned is the error of a call that did not return in time.
var errAbandoned = errors.New("interrupted while a file or an output was blocked")

// await returns what f returns. It returns errAbandoned when f has not returned
// within this time after the end of ctx. A blocked system call cannot be ended,
// such as the open of a FIFO without a writer, or the read of a file on a server
// that does not respond. Its goroutine ends with the process.
func await[T any](ctx context.Context, within time.Duration, f func() (T, error)) (T, error) {
	type returned struct {
		value T
		err   error
	}
	done := make(chan returned, 1)
	go func() {
		v, err := f()
		done <- returned{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.value, r.err
	case <-time.After(within):
		var none T
		return none, errAbandoned
	}
}
