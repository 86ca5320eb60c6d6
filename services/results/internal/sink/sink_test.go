package sink

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/clock"
)

// TestSink_MeasuresTheLagWithoutADatabase: the lag matters most while the database is
// unavailable. TestInteropPostgres tests it with a database.
func TestSink_MeasuresTheLagWithoutADatabase(t *testing.T) {
	js, err := jetstream.New(bustest.StartEmpty(t).Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := streams.Ensure(t.Context(), js, streams.Config{Pipelines: []string{"text"}, Sink: true}); err != nil {
		t.Fatal(err)
	}
	s, err := New(js, clock.New(time.Now), "postgres://nobody@127.0.0.1:1/nothing", noop.NewTracerProvider().Tracer(""),
		slog.New(slog.NewTextHandler(t.Output(), nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for _, id := range []string{"a", "b", "c"} {
		result := []byte(`{"id":"` + id + `","pipeline":"text","status":"done"}`)
		if _, err := js.Publish(t.Context(), subject.Results("text", id), result); err != nil {
			t.Fatal(err)
		}
	}
	eventually.Succeeds(t, time.Minute, func() error {
		if lag := testutil.ToFloat64(s.lag); lag != 3 {
			return fmt.Errorf("the lag is %v, want 3", lag)
		}
		return nil
	})
}
