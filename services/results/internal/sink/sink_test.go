package sink

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

func sinkOn(t *testing.T, address string) (*Sink, jetstream.JetStream, func()) {
	t.Helper()
	js, err := jetstream.New(bustest.StartEmpty(t).Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := streams.Ensure(t.Context(), js, streams.Config{Pipelines: []string{"text"}, Sink: true}); err != nil {
		t.Fatal(err)
	}
	s, err := New(js, address, slog.New(slog.NewTextHandler(t.Output(), nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, js, func() { cancel(); <-done }
}

// TestLagWhileTheDatabaseIsAway: what waits is counted then, above all.
func TestLagWhileTheDatabaseIsAway(t *testing.T) {
	s, js, stop := sinkOn(t, "postgres://nobody@127.0.0.1:1/nothing")
	defer stop()
	for _, id := range []string{"a", "b", "c"} {
		if _, err := js.Publish(t.Context(), subject.Results("text", id), []byte(`{"id":"`+id+`","pipeline":"text","status":"done"}`)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(5 * time.Second)
	if n := testutil.ToFloat64(s.lag); n != 3 {
		t.Errorf("the lag is %v, want 3", n)
	}
}

// TestWhatDoesNotFitHoldsUpNobody: an answer that cannot be sent to the
// database at all is left out, as one that it refuses.
func TestWhatDoesNotFitHoldsUpNobody(t *testing.T) {
	address := os.Getenv("SIGHTMESH_TEST_POSTGRES")
	if address == "" {
		t.Skip("SIGHTMESH_TEST_POSTGRES")
	}
	s, js, stop := sinkOn(t, address)
	defer stop()
	for _, body := range []string{
		`{"id":"wide","pipeline":"text","status":"done","image":{"width":3000000000,"height":1}}`,
		`{"id":"after","pipeline":"text","status":"done","image":{"width":3,"height":1}}`,
	} {
		if _, err := js.Publish(t.Context(), subject.Results("text", body[7:11]), []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(12 * time.Second)
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var n int
	if err := conn.QueryRow(t.Context(), "select count(*) from results where id = 'after'").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows of the answer behind it, %v; written %v", n, err, testutil.ToFloat64(s.written))
	}
}
