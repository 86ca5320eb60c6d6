package results

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// TestService_NotReadyWithoutAConsumer deletes each consumer of results, and creates it again.
func TestService_NotReadyWithoutAConsumer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ stream, name string }{
		{streams.Parts, streams.PartsConsumer},
		{streams.Results, streams.ResultsConsumer},
		{streams.Results, streams.FollowConsumer},
		{streams.Results, streams.NotifyConsumer},
		{streams.Reports, streams.ReportsConsumer},
		{streams.Results, streams.SinkConsumer},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := bustest.Start(t, pipeline.BuiltInNames()...)
			js, err := jetstream.New(s.Connect(t))
			if err != nil {
				t.Fatal(err)
			}
			cfg := streams.Config{Pipelines: pipeline.BuiltInNames(), Sink: true}
			if err := streams.Ensure(t.Context(), js, cfg); err != nil {
				t.Fatal(err)
			}
			found, err := js.Consumer(t.Context(), c.stream, c.name)
			if err != nil {
				t.Fatal(err)
			}
			results := startReplica(t, s.URL, "--postgres", "postgres://nobody@127.0.0.1:1/nothing")
			results.AwaitReady(t)
			if err := js.DeleteConsumer(t.Context(), c.stream, c.name); err != nil {
				t.Fatal(err)
			}
			results.AwaitNotReady(t, "consumer "+c.name+" of "+c.stream)
			if _, err := js.CreateConsumer(t.Context(), c.stream, found.CachedInfo().Config); err != nil {
				t.Fatal(err)
			}
			results.AwaitReady(t)
			if n := results.Count("not ready"); n != 1 {
				t.Errorf("%d lines say that it is not ready, want one", n)
			}
		})
	}
}

// TestService_ReadyWithoutADatabase does not need the consumer of one.
func TestService_ReadyWithoutADatabase(t *testing.T) {
	t.Parallel()
	startReplica(t, bustest.Start(t, pipeline.BuiltInNames()...).URL).AwaitReady(t)
}
