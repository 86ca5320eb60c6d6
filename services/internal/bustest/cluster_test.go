package bustest_test

import (
	"testing"

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
