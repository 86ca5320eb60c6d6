package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
)

// TestLateAnswerIsNotLeftBehind: after a question whose answer came too late,
// no message lies in a puller while another is worked on.
func TestLateAnswerIsNotLeftBehind(t *testing.T) {
	m := newMesh(t)
	for i := range 4 {
		m.send(t, interactive(fmt.Sprint("late", i)), order{})
	}
	nc := m.Connect(t)
	sources := newSources(subject.Detect, []string{"a"})
	p, err := newPuller(nc, sources, time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	sources[0].saw(4)
	if _, _, err := p.next(t.Context(), func(string) bool { return true }); err == nil {
		t.Fatal("the question was answered in time")
	}
	p.wait = 2 * time.Second // the server is itself again
	for i := range 3 {
		msg, _, err := p.next(t.Context(), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // working on it
		n, _, _ := p.replies.Pending()
		c, err := m.js.Consumer(t.Context(), streams.Images, sources[0].consumer)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("turn %d: working on %s, %d lie in the puller, %d unacknowledged", i, msg.Subject, n, c.CachedInfo().NumAckPending)
		if n > 0 {
			t.Errorf("turn %d: a message lies in the puller, and nobody says that it is in progress", i)
		}
		if err := msg.AckSync(); err != nil {
			t.Fatal(err)
		}
	}
}
