package bus

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// TestConsumeEndsWithItsConsumer: whoever consumes has to hear of it.
func TestConsumeEndsWithItsConsumer(t *testing.T) {
	t.Parallel()
	js, err := jetstream.New(bustest.Start(t, "text").Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- Consume(t.Context(), js, streams.Results, streams.ResultsConsumer, func(m jetstream.Msg) {
			m.Ack()
			got <- m.Subject()
		})
	}()
	if _, err := js.Publish(t.Context(), subject.Results("text", "one"), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	<-got
	if err := js.DeleteConsumer(t.Context(), streams.Results, streams.ResultsConsumer); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("ended without a word")
	}
}
