package pool

import (
	"context"
	"testing"
)

// TestMemoryOfAnother: a lane that was left large by one request does not fail
// the next one.
func TestMemoryOfAnother(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}, MemoryLimit: 160 << 20})
	for range 10 {
		if _, err := b.ask(t, context.Background(), "p", "leave"); err != nil {
			t.Logf("the large one: %v", err)
		}
		if _, err := b.ask(t, context.Background(), "p", "200"); err != nil {
			t.Errorf("an innocent one: %v", err)
		}
	}
}
