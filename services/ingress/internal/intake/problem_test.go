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
		var p *v1.Problem
		if !errors.As(err, &p) || p.Code != want {
			t.Errorf("%v: the problem is %v, want %s", cause, p, want)
		}
		if d, ok := retry.Delay(err); !ok || d != RetryDelay {
			t.Errorf("%v: try again after %v, %v, want %v", cause, d, ok, RetryDelay)
		}
		var s *ServerError
		if !errors.As(err, &s) || !errors.Is(s.Err, cause) {
			t.Errorf("%v: the reason is lost: %v", cause, err)
		}
		if errors.Is(err, context.Canceled) {
			t.Errorf("%v: the reason is taken for that of the request", cause)
		}
	}
}

func TestStoreError_KeepsOtherErrors(t *testing.T) {
	t.Parallel()
	left, cancel := context.WithCancel(t.Context())
	cancel()
	problem := v1.NewProblem(v1.KeyConflict, "")
	for _, c := range []struct {
		ctx context.Context
		err error
	}{{t.Context(), nil}, {t.Context(), problem}, {left, context.Canceled}} {
		if got := StoreError(c.ctx, c.err); !errors.Is(got, c.err) || got != nil && c.err == nil {
			t.Errorf("%v became %v", c.err, got)
		}
		if _, ok := retry.Delay(StoreError(c.ctx, c.err)); ok {
			t.Errorf("%v is to be tried again", c.err)
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
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), v1.DeadlineExceeded, nil, 0},
		{broken, v1.Internal, broken, 0},
	} {
		err := JobError(c.err, "j1")
		var p *v1.Problem
		if !errors.As(err, &p) {
			t.Errorf("%v became %v, which is no problem", c.err, err)
			continue
		}
		if p.Code != c.code {
			t.Errorf("%v: the code is %s, want %s", c.err, p.Code, c.code)
		}
		if p.Job != "j1" {
			t.Errorf("%v: the id is %q, want j1", c.err, p.Job)
		}
		if after, _ := retry.Delay(err); after != c.after {
			t.Errorf("%v: to be tried again after %v, want %v", c.err, after, c.after)
		}
		var s *ServerError
		if errors.As(err, &s); c.reason != nil && (s == nil || !errors.Is(s.Err, c.reason)) {
			t.Errorf("%v: the reason is lost: %v", c.err, err)
		}
	}
	var p *v1.Problem
	if errors.As(full, &p); p.Job != "" {
		t.Errorf("the problem of the cause was changed: %+v", p)
	}
}

func TestJobError_KeepsCancellation(t *testing.T) {
	t.Parallel()
	for _, want := range []error{nil, context.Canceled} {
		if got := JobError(want, "j1"); !errors.Is(got, want) {
			t.Errorf("%v became %v", want, got)
		}
	}
}
