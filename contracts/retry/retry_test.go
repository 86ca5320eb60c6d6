package retry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestError_WrapsAndHasADelay(t *testing.T) {
	t.Parallel()
	cause := errors.New("the queue is full")
	err := fmt.Errorf("store an image: %w", After(cause, 3*time.Second))
	d, ok := Delay(err)
	if !ok {
		t.Error("the error has no delay")
	}
	if d != 3*time.Second {
		t.Errorf("the delay is %v, want 3s", d)
	}
	if !errors.Is(err, cause) {
		t.Error("the error does not wrap its cause")
	}
	if _, ok := Delay(cause); ok {
		t.Error("an error that is not temporary has a delay")
	}
}

func TestExponential_EndsWithLongest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		got, want Backoff
	}{
		{Exponential(time.Second, 64*time.Second, 4),
			Backoff{time.Second, 4 * time.Second, 16 * time.Second, 64 * time.Second}},
		{Exponential(time.Second, 5*time.Second, 2), Backoff{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second}},
		{Exponential(time.Second, time.Second, 2), Backoff{time.Second}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}

func TestParseAfter(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "0": 0, "-1": 0, "soon": 0, "Fri, 27 Nov 2026 10:00:00 GMT": 0,
	} {
		if got := ParseAfter(header); got != want {
			t.Errorf("ParseAfter(%q) = %v, want %v", header, got, want)
		}
	}
}

func TestBackoff_Delay(t *testing.T) {
	t.Parallel()
	b := Backoff{time.Second, time.Minute}
	for n, least := range map[int]time.Duration{
		0: time.Second, 1: time.Second, 2: time.Minute, 3: time.Minute, 1000: time.Minute,
	} {
		for range 100 {
			if d := b.Delay(n); d < least || d > least+least/4 {
				t.Fatalf("Delay(%d) = %v, want %v and at most a quarter more", n, d, least)
			}
		}
	}
	if d := (Backoff{}).Delay(1); d != 0 {
		t.Errorf("an empty Backoff waits %v", d)
	}
}

func TestSleep_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	if err := Sleep(t.Context(), time.Millisecond); err != nil {
		t.Errorf("Sleep = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("Sleep = %v, want %v", err, context.Canceled)
	}
}

func TestFormatAfter_RoundsUp(t *testing.T) {
	t.Parallel()
	problem := errors.New("the queue is full")
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{problem, ""},
		{After(problem, 0), ""},
		{After(problem, time.Nanosecond), "1"},
		{After(problem, time.Second), "1"},
		{After(problem, time.Second+1), "2"},
		{fmt.Errorf("accept an image: %w", After(problem, 85*time.Second)), "85"},
	} {
		if got := FormatAfter(c.err); got != c.want {
			t.Errorf("%v: Retry-After is %q, want %q", c.err, got, c.want)
		}
	}
}
