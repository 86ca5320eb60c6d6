package run_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/run"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service notes the order in which it is ended.
type service struct {
	started  chan struct{}
	stubborn bool
	mu       sync.Mutex
	order    []string
}

func (s *service) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = append(s.order, what)
}

func (s *service) Run(ctx, hard context.Context) error {
	close(s.started)
	<-ctx.Done()
	if hard.Err() != nil {
		return errors.New("hard ended first")
	}
	s.note("stopping")
	if s.stubborn {
		<-hard.Done()
		s.note("hard")
	}
	return nil
}

func spec(s *service) run.Spec {
	return run.Spec{Name: "test", New: func(p *run.Process) (run.Service, error) {
		set := p.SetReady
		p.SetReady = func(ready bool) {
			set(ready)
			if !ready {
				s.note("not ready")
			}
		}
		return s, p.ServeStatus(func() any { return map[string]string{"state": "fine"} })
	}}
}

func none(string) string { return "" }

func TestLife(t *testing.T) {
	for name, stubborn := range map[string]bool{"finishes": false, "is ended by the grace": true} {
		t.Run(name, func(t *testing.T) {
			server := bustest.Start(t, "text", "faces")
			s := &service{started: make(chan struct{}), stubborn: stubborn}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() {
				done <- run.Run(ctx, spec(s), []string{"--nats", server.URL, "--grace", "100ms"}, none, io.Discard)
			}()
			<-s.started
			m, err := server.Connect(t).Request(subject.Status("test"), nil, 5*time.Second)
			var status map[string]string
			if err != nil || json.Unmarshal(m.Data, &status) != nil || status["state"] != "fine" {
				t.Errorf("status %v, %v", status, err)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			want := "not ready stopping"
			if stubborn {
				want += " hard"
			}
			if got := strings.Join(s.order, " "); got != want {
				t.Errorf("ended as %q, want %q", got, want)
			}
		})
	}
}

// TestWaitsForTheSetUp: in a cluster the services may be there before it.
func TestWaitsForTheSetUp(t *testing.T) {
	server := bustest.StartEmpty(t)
	s := &service{started: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	var log bytes.Buffer
	go func() { done <- run.Run(ctx, spec(s), []string{"--nats", server.URL}, none, &log) }()
	select {
	case <-s.started:
		t.Fatal("started without streams")
	case <-time.After(300 * time.Millisecond):
	}
	js, err := jetstream.New(server.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second changes nothing
		if err := streams.Ensure(ctx, js, streams.Config{Pipelines: []string{"text", "faces"}}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-s.started:
	case <-time.After(20 * time.Second):
		t.Fatal("not started with streams")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "waiting for streams"); n != 1 {
		t.Errorf("the wait is logged %d times", n)
	}
}

func TestFlagsAndEnvironment(t *testing.T) {
	for name, args := range map[string][]string{"unknown flag": {"--nosuch"}, "bad level": {"--log-level", "loud"}, "no such file": {"--pipelines", "/no/such"}} {
		if err := run.Run(t.Context(), spec(&service{}), args, none, io.Discard); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := run.Run(t.Context(), spec(&service{}), []string{"-h"}, none, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
	t.Setenv("SIGHTMESH_PIPELINES", "/from/the/environment")
	if err := run.Run(t.Context(), spec(&service{}), nil, none, io.Discard); err == nil || !strings.Contains(err.Error(), "/from/the/environment") {
		t.Errorf("from the environment: %v", err)
	}
}
