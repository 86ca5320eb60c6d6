package eventually

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestSucceeds_ReturnsOnceTheConditionHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		Succeeds(t, time.Minute, func() error {
			if d := time.Since(start); d < time.Second {
				return fmt.Errorf("%v have passed", d)
			}
			return nil
		})
		if d := time.Since(start); d > time.Second+longestPause {
			t.Errorf("returned after %v, want at most %v after the condition held", d, longestPause)
		}
	})
}

func TestSucceeds_EndsTheTestWithTheLastError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start, calls, returned := time.Now(), 0, false
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			Succeeds(r, time.Second, func() error {
				calls++
				return fmt.Errorf("call %d failed", calls)
			})
			returned = true
		}()
		<-done
		if returned {
			t.Error("Succeeds has returned, want the end of the goroutine")
		}
		if want := fmt.Sprintf("after 1s: call %d failed", calls); r.err == nil || r.err.Error() != want {
			t.Errorf("the test failed with %v, want %q", r.err, want)
		}
		if d := time.Since(start); d < time.Second || d > time.Second+longestPause {
			t.Errorf("the test failed after %v, want 1s and at most %v", d, longestPause)
		}
	})
}

func TestSucceeds_CallsTheConditionAtLeastOnce(t *testing.T) {
	t.Parallel()
	calls := 0
	Succeeds(t, 0, func() error { calls++; return nil })
	if calls != 1 {
		t.Errorf("%d calls, want 1", calls)
	}
}

func TestRetry_ReturnsTheLastError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		err := Retry(time.Second, func() error {
			calls++
			return fmt.Errorf("call %d failed", calls)
		})
		if want := fmt.Sprintf("call %d failed", calls); err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %q", err, want)
		}
	})
}

// recorder keeps the failure that would end a test.
type recorder struct {
	testing.TB
	err error
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.err = fmt.Errorf(format, args...)
	runtime.Goexit()
}
