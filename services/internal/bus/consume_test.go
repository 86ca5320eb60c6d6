package bus

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// TestConsumeOutlivesItsConsumer: a consumer that is removed and made again is
// consumed again, or the end of it is said.
func TestConsumeOutlivesItsConsumer(t *testing.T) {
	js, err := jetstream.New(bustest.Start(t, "text").Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan string, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- Consume(ctx, js, streams.Results, streams.ResultsConsumer, func(m jetstream.Msg) {
			got <- m.Subject()
			m.Ack() //nolint:errcheck // test
		})
	}()
	send := func(job string) {
		if _, err := js.Publish(ctx, subject.Results("text", job), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	send("one")
	<-got
	if err := js.DeleteConsumer(ctx, streams.Results, streams.ResultsConsumer); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if err := streams.Ensure(ctx, js, streams.Config{Pipelines: []string{"text"}}); err != nil {
		t.Fatal(err)
	}
	send("two")
	deadline := time.After(15 * time.Second)
	for {
		select {
		case s := <-got:
			t.Log("got", s)
			if s == subject.Results("text", "two") {
				cancel()
				<-ended
				return
			}
		case err := <-ended:
			t.Log("ended with", err)
			if err == nil {
				t.Error("ended without a word")
			}
			return
		case <-deadline:
			t.Fatal("nothing is consumed, and nobody is told")
		}
	}
}
