package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
)

// TestLateAnswerIsNotLeftBehind: when a question for work has waited too long,
// its answer is not taken for that of the next one, which would lie in the
// puller while the first is worked on.
func TestLateAnswerIsNotLeftBehind(t *testing.T) {
	m := newMesh(t)
	for i := range 4 {
		m.send(t, interactive(fmt.Sprint("late", i)), order{})
	}
	sources := newSources(subject.Detect, []string{"a"})
	p, err := newPuller(m.Connect(t), sources, time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	every := func(string) bool { return true }
	sources[0].saw(4)
	late := p.replies
	if _, err := p.next(t.Context(), every); err == nil {
		t.Fatal("the question was answered in time")
	}
	if late.IsValid() {
		t.Error("the late answer is still waited for")
	}
	p.wait = 2 * time.Second // the server is itself again
	if msg, err := p.next(t.Context(), every); err != nil || msg == nil {
		t.Errorf("the next question: got %v, %v", msg, err)
	}
}
