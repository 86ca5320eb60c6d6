package worker

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
)

// TestPuller_DropsTheSubscriptionOfALateReply: the late reply to a pull request that
// has timed out is not taken for the reply to the next request. Otherwise the message of
// the next request would wait in the puller while the first message is processed.
func TestPuller_DropsTheSubscriptionOfALateReply(t *testing.T) {
	m := newMesh(t)
	const messages = 20
	for i := range messages {
		m.send(t, interactive(fmt.Sprint("late", i)), order{})
	}
	sources := newSources(subject.Detect, []string{"a"})
	p, err := newPuller(m.Connect(t), sources, time.Nanosecond, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	every := func(string) bool { return true }
	late := p.replies
	// On a busy machine a reply can arrive within the nanosecond.
	for range messages - 2 {
		sources[0].setBacklog(messages)
		if _, err = p.next(t.Context(), every); err != nil {
			break
		}
	}
	if err == nil {
		t.Fatal("every request had a reply in time")
	}
	if late.IsValid() {
		t.Error("the subscription of the late reply is still valid")
	}
	p.wait = testTimeout
	if _, err := p.next(t.Context(), every); err != nil {
		t.Errorf("the next request: %v", err)
	}
}

// TestPuller_LogsAConsumerThatIsMissing, once, and that it is there again.
func TestPuller_LogsAConsumerThatIsMissing(t *testing.T) {
	m := newMesh(t)
	name := streams.WorkConsumer(subject.Detect, "a", subject.Interactive)
	c, err := m.js.Consumer(t.Context(), streams.Images, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.js.DeleteConsumer(t.Context(), streams.Images, name); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	p, err := newPuller(m.Connect(t), newSources(subject.Detect, []string{"a"}), 100*time.Millisecond,
		slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	every := func(string) bool { return true }
	for range 3 {
		if _, err := p.next(t.Context(), every); !errors.Is(err, errNoMessage) {
			t.Fatalf("next = %v, want %v", err, errNoMessage)
		}
	}
	if n := strings.Count(log.String(), "cannot pull messages"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, &log)
	}
	if _, err := m.js.CreateConsumer(t.Context(), streams.Images, c.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	m.send(t, interactive("job"), order{})
	eventually.Succeeds(t, testTimeout, func() error {
		_, err := p.next(t.Context(), every)
		return err
	})
	if !strings.Contains(log.String(), "messages can be pulled again") {
		t.Errorf("the log does not say that it is there again:\n%s", &log)
	}
}
