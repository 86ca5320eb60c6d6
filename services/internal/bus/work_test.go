package bus

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// TestWork: as many at a time as there is room, none twice though one takes
// longer than the consumer waits, and what is left stays in the stream.
func TestWork(t *testing.T) {
	t.Parallel()
	js, err := jetstream.New(bustest.Start(t, "text").Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	const n = 6
	for i := range n {
		if _, err := js.Publish(t.Context(), subject.Fetches("text", string(rune('a'+i))), nil); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var now, most, handled atomic.Int64
	work := func(m jetstream.Msg) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		if handled.Add(1) == 1 {
			time.Sleep(streams.AckWait + time.Second)
		}
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Error(err)
		}
		if s, err := js.Stream(t.Context(), streams.Fetches); err != nil || s.CachedInfo().State.Msgs == 0 {
			cancel()
		}
	}
	if err := Work(ctx, js, streams.Fetches, streams.FetchesConsumer, 2, work); err != nil {
		t.Fatal(err)
	}
	if handled.Load() != n || most.Load() != 2 {
		t.Errorf("handled %d, %d at a time, want %d and 2", handled.Load(), most.Load(), n)
	}
}
