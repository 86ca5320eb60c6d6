package intake

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

func TestStoreError_HasAProblemAndADelay(t *testing.T) {
	t.Parallel()
	for cause, want := range map[error]v1.Code{
		fmt.Errorf("publish: %w", bus.ErrFull):          v1.Overloaded,
		fmt.Errorf("publish: %w", context.Canceled):     v1.Unavailable,
		errors.New("no route to the server of streams"): v1.Unavailable,
	} {
		err := StoreError(t.Context(), cause)
		if code := problemCode(err); code != want {
			t.Errorf("%v: the code is %s, want %s", cause, code, want)
		}
		if d, _ := retry.Delay(err); d != RetryDelay {
			t.Errorf("%v: the retry delay is %v, want %v", cause, d, RetryDelay)
		}
		var s *ServerError
		if !errors.As(err, &s) {
			t.Errorf("%v: got %v, want a ServerError", cause, err)
		} else if !errors.Is(s.Err, cause) {
			t.Errorf("%v: the reason is %v", cause, s.Err)
		}
		if errors.Is(err, context.Canceled) {
			t.Errorf("%v: the error for the client wraps the reason", cause)
		}
	}
}

func TestStoreError_KeepsOtherErrors(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	problem := v1.NewProblem(v1.KeyConflict, "")
	for _, c := range []struct {
		ctx context.Context
		err error
	}{{t.Context(), nil}, {t.Context(), problem}, {ended, context.Canceled}} {
		got := StoreError(c.ctx, c.err)
		if !errors.Is(got, c.err) {
			t.Errorf("got %v, want %v", got, c.err)
		}
		if _, ok := retry.Delay(got); ok {
			t.Errorf("%v has a retry delay", c.err)
		}
	}
}

func TestJobError_AddsTheID(t *testing.T) {
	t.Parallel()
	full := StoreError(t.Context(), bus.ErrFull)
	broken := errors.New("broken")
	for _, c := range []struct {
		err    error
		code   v1.Code
		reason error
		after  time.Duration
	}{
		{v1.NewProblem(v1.JobExpired, ""), v1.JobExpired, nil, 0},
		{full, v1.Overloaded, bus.ErrFull, RetryDelay},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), v1.Unavailable, nil, 0},
		{broken, v1.Internal, broken, 0},
	} {
		err := JobError(c.err, "j1")
		var p *v1.Problem
		if !errors.As(err, &p) {
			t.Errorf("%v: got %v, want a problem", c.err, err)
			continue
		}
		if p.Code != c.code {
			t.Errorf("%v: the code is %s, want %s", c.err, p.Code, c.code)
		}
		if p.Job != "j1" {
			t.Errorf("%v: the id is %q, want j1", c.err, p.Job)
		}
		if after, _ := retry.Delay(err); after != c.after {
			t.Errorf("%v: the retry delay is %v, want %v", c.err, after, c.after)
		}
		if c.reason == nil {
			continue
		}
		var s *ServerError
		if !errors.As(err, &s) {
			t.Errorf("%v: got %v, want a ServerError", c.err, err)
		} else if !errors.Is(s.Err, c.reason) {
			t.Errorf("%v: the reason is %v, want %v", c.err, s.Err, c.reason)
		}
	}
	var p *v1.Problem
	if errors.As(full, &p); p.Job != "" {
		t.Errorf("the problem of the cause has changed: %+v", p)
	}
}

func TestJobError_KeepsCancellation(t *testing.T) {
	t.Parallel()
	for _, want := range []error{nil, context.Canceled} {
		if got := JobError(want, "j1"); !errors.Is(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}
