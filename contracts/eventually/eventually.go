// Package eventually waits for conditions in tests. No program links it.
package eventually

import (
	"testing"
	"time"
)

// longestPause bounds the pauses between two calls of a condition. The first
// pause is 1 ms, and each pause is twice as long as the one before.
const longestPause = 50 * time.Millisecond

// Succeeds calls f until it returns nil. When f still fails after the time
// within, Succeeds ends the test with the last error of f. It is called from
// the goroutine of the test, as [testing.TB.FailNow] is.
//
// A condition that only shows that a test does not hang is given much time:
// on a busy machine everything takes longer.
func Succeeds(t testing.TB, within time.Duration, f func() error) {
	t.Helper()
	if err := Retry(within, f); err != nil {
		t.Fatalf("after %v: %v", within, err)
	}
}

// Retry calls f until it returns nil. When f still fails after the time within,
// Retry returns the last error of f. It is for tests that continue after a failure,
// and for goroutines other than that of the test.
func Retry(within time.Duration, f func() error) error {
	start := time.Now()
	for pause := time.Millisecond; ; pause = min(2*pause, longestPause) {
		err := f()
		if err == nil || time.Since(start) >= within {
			return err
		}
		time.Sleep(pause)
	}
}
