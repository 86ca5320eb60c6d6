package worker

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/internal/run/runtest"
)

// startService runs detect, with the lanes of this package.
func startService(t *testing.T, s *bustest.Server) *runtest.Service {
	t.Helper()
	var o Options
	return runtest.Start(t, run.Spec{
		Name: "detect", Flags: o.Register,
		New: func(p *run.Process) (run.Service, error) {
			return NewService(p, subject.Detect, o, &testHandler{})
		},
	}, "--nats", s.URL, "--lanes", "1")
}

// TestService_ReadyIsTakenBackWithoutAConsumer deletes one of those that the
// worker pulls from, and makes it again.
func TestService_ReadyIsTakenBackWithoutAConsumer(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "text", "faces")
	js, err := jetstream.New(s.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	name := streams.WorkConsumer(subject.Detect, "faces", subject.Bulk)
	c, err := js.Consumer(t.Context(), streams.Images, name)
	if err != nil {
		t.Fatal(err)
	}
	detect := startService(t, s)
	detect.AwaitReady(t)
	if err := js.DeleteConsumer(t.Context(), streams.Images, name); err != nil {
		t.Fatal(err)
	}
	detect.AwaitNotReady(t, name)
	if _, err := js.CreateConsumer(t.Context(), streams.Images, c.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	detect.AwaitReady(t)
	detect.Stop()
	if err := detect.Wait(t); err != nil {
		t.Errorf("detect ended with %v", err)
	}
	if n := detect.Count("not ready"); n != 1 {
		t.Errorf("%d lines say that it is not ready, want one", n)
	}
}

// TestService_ReadyStaysWithoutTheWorkOfOthers deletes a consumer that the
// worker does not pull from.
func TestService_ReadyStaysWithoutTheWorkOfOthers(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "text", "faces")
	js, err := jetstream.New(s.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	detect := startService(t, s)
	detect.AwaitReady(t)
	own := streams.WorkConsumer(subject.Detect, "text", subject.Bulk)
	for _, c := range []struct{ stream, name string }{
		{streams.Crops, streams.WorkConsumer(subject.Classify, "text", subject.Bulk)},
		{streams.Images, own}, // so that there is a look after the first was deleted
	} {
		if err := js.DeleteConsumer(t.Context(), c.stream, c.name); err != nil {
			t.Fatal(err)
		}
	}
	detect.AwaitNotReady(t, own)
	_, body := detect.Probe(t, "/readyz")
	if strings.Contains(body, string(subject.Classify)) {
		t.Errorf("the reason is %q, which is not that of detect", body)
	}
}
