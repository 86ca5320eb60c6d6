package bustest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStartCluster_ReplicatesEveryStream(t *testing.T) {
	t.Parallel()
	c := bustest.StartCluster(t, 3, "text")
	for i, s := range c.Servers {
		js, err := jetstream.New(s.Connect(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := streams.Check(t.Context(), js, streams.Config{Pipelines: []string{"text"}}); err != nil {
			t.Errorf("server %d: %v", i, err)
		}
		stream, err := js.Stream(t.Context(), streams.Jobs)
		if err != nil {
			t.Fatal(err)
		}
		if got := stream.CachedInfo().Config.Replicas; got != len(c.Servers) {
			t.Errorf("server %d: stream %s has %d replicas, want %d", i, streams.Jobs, got, len(c.Servers))
		}
	}
}

// TestStreams_LimitEachRequest: a request without a reply does not use up the time of the others.
func TestStreams_LimitEachRequest(t *testing.T) {
	t.Parallel()
	p := bustest.StartProxy(t, bustest.Start(t, "text"))
	nc, err := nats.Connect(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	p.PauseReplies(true)
	t.Cleanup(func() { p.PauseReplies(false) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for name, f := range map[string]func(context.Context, jetstream.JetStream, streams.Config) error{
		"Ensure": streams.Ensure, "Check": streams.Check,
	} {
		if err := f(ctx, js, streams.Config{Pipelines: []string{"text"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want %v", name, err, context.DeadlineExceeded)
		}
	}
}
