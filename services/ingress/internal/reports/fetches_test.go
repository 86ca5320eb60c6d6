package reports

import (
	"testing"
	"time"
)

func TestPause(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]time.Duration{1: time.Second, 2: 4 * time.Second, 3: 16 * time.Second, 4: 64 * time.Second} {
		if d := pause(n, 0); d < want || d > want+want/4 {
			t.Errorf("after attempt %d: %v, want %v and up to a quarter more", n, d, want)
		}
	}
	if d := pause(1, time.Minute); d != time.Minute {
		t.Errorf("told to wait a minute: %v", d)
	}
	if d := pause(1, time.Hour); d != 10*time.Minute {
		t.Errorf("told to wait an hour: %v", d)
	}
}
