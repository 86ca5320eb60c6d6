package run

import (
	"context"
	"errors"
	"testing"
)

// serviceFunc is a service that is a function.
type serviceFunc func(ctx, hard context.Context) error

func (f serviceFunc) Run(ctx, hard context.Context) error { return f(ctx, hard) }

func TestCombine_AnErrorStopsTheOthers(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	err := Combine(
		serviceFunc(func(ctx, _ context.Context) error { <-ctx.Done(); return nil }),
		serviceFunc(func(_, _ context.Context) error { return broken }),
	).Run(t.Context(), t.Context())
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want that of the service", err)
	}
}

func TestCombine_OneThatEndsDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	err := Combine(
		serviceFunc(func(_, _ context.Context) error { close(ended); return nil }),
		serviceFunc(func(ctx, _ context.Context) error {
			<-ended
			if ctx.Err() != nil {
				t.Error("the other was stopped")
			}
			stop()
			<-ctx.Done()
			return nil
		}),
	).Run(ctx, t.Context())
	if err != nil {
		t.Error(err)
	}
}
