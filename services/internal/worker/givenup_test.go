package worker

import (
	"testing"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestJobIsNotGivenUpWithoutAnAnswer: however often a job was handed out in
// vain, it ends in an answer.
func TestJobIsNotGivenUpWithoutAnAnswer(t *testing.T) {
	m := newMesh(t)
	m.send(t, interactive("tried"), order{})
	c, err := m.js.Consumer(t.Context(), streams.Images, streams.WorkConsumer(subject.Detect, "a", subject.Interactive))
	if err != nil {
		t.Fatal(err)
	}
	for i := range streams.MaxDeliveries { // workers that die, or cannot store what they say
		msg, err := c.Next()
		if err != nil {
			t.Fatalf("delivery %d: %v", i+1, err)
		}
		if err := msg.Nak(); err != nil {
			t.Fatal(err)
		}
	}
	startWorker(t, m.Server, 1, nil)
	if r := m.result(t, "a", "tried"); r.Problem == nil || r.Problem.Code != v1.TooManyDeliveries {
		t.Errorf("got %+v", r)
	}
}
