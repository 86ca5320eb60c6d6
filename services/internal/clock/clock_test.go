package clock

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// TestClock_ReturnsTheTimeOfTheServer: however far the clock of a machine is off, Now is
// the time of the server.
func TestClock_ReturnsTheTimeOfTheServer(t *testing.T) {
	t.Parallel()
	js, err := jetstream.New(bustest.Start(t, "text").Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, shift := range []time.Duration{0, 90 * time.Second, -90 * time.Second, -24 * time.Hour} {
		c := New(func() time.Time { return time.Now().Add(shift) })
		if off := c.Until(time.Now()); (off + shift).Abs() > time.Second {
			t.Errorf("shifted by %v, before it was measured: off by %v", shift, off)
		}
		if err := c.Measure(t.Context(), js); err != nil {
			t.Fatal(err)
		}
		if off := c.Until(time.Now()); off.Abs() > maxRoundTrip {
			t.Errorf("shifted by %v: off by %v", shift, off)
		}
	}
}
