package run_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/internal/run/runtest"
)

// startPuller runs a service that is ready while it can pull images and parts.
func startPuller(t *testing.T, url string) *runtest.Service {
	t.Helper()
	return runtest.Start(t, run.Spec{Name: "puller", New: func(p *run.Process) (run.Service, error) {
		return serviceFunc(func(ctx, _ context.Context) error {
			p.KeepReadyToPull(ctx, run.Consumer{Stream: streams.Images, Name: "detect-text-bulk"},
				run.Consumer{Stream: streams.Parts, Name: streams.PartsConsumer})
			return nil
		}), nil
	}}, "--nats", url)
}

// TestProcess_NotReadyWhileACheckFails breaks what the service pulls from, in several ways, and repairs it.
func TestProcess_NotReadyWhileACheckFails(t *testing.T) {
	t.Parallel()
	// mesh is what a fault breaks.
	type mesh struct {
		server *bustest.Server
		proxy  *bustest.Proxy
		js     jetstream.JetStream // not through the proxy
	}
	setUp := func(t *testing.T, m mesh) {
		t.Helper()
		if err := streams.Ensure(t.Context(), m.js, streams.Config{Pipelines: pipeline.BuiltInNames()}); err != nil {
			t.Fatal(err)
		}
	}
	for name, fault := range map[string]struct {
		begin, end func(*testing.T, mesh)
		reason     string
	}{
		"NATS cannot be reached": {
			begin: func(_ *testing.T, m mesh) {
				m.proxy.PauseReplies(true) // also of a connection that is made anew
				m.proxy.Break()
			},
			end:    func(_ *testing.T, m mesh) { m.proxy.PauseReplies(false) },
			reason: "NATS cannot be reached",
		},
		"replies hang": {
			begin:  func(_ *testing.T, m mesh) { m.proxy.PauseReplies(true) },
			end:    func(_ *testing.T, m mesh) { m.proxy.PauseReplies(false) },
			reason: "no reply in 2s",
		},
		"requests hang": {
			begin:  func(_ *testing.T, m mesh) { m.proxy.PauseRequests(true) },
			end:    func(_ *testing.T, m mesh) { m.proxy.PauseRequests(false) },
			reason: "no reply in 2s",
		},
		"a consumer is deleted": {
			begin: func(t *testing.T, m mesh) {
				if err := m.js.DeleteConsumer(t.Context(), streams.Images, "detect-text-bulk"); err != nil {
					t.Fatal(err)
				}
			},
			end:    setUp,
			reason: "consumer detect-text-bulk of IMAGES",
		},
		"a stream is deleted": {
			begin: func(t *testing.T, m mesh) {
				if err := m.js.DeleteStream(t.Context(), streams.Parts); err != nil {
					t.Fatal(err)
				}
			},
			end:    setUp,
			reason: "consumer join of PARTS",
		},
		"JetStream is disabled, as after a failed disk": {
			begin:  func(t *testing.T, m mesh) { m.server.StopJetStream(t) },
			end:    func(t *testing.T, m mesh) { m.server.Restart(t) },
			reason: "read consumer",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := bustest.Start(t, pipeline.BuiltInNames()...)
			js, err := jetstream.New(s.Connect(t))
			if err != nil {
				t.Fatal(err)
			}
			m := mesh{s, bustest.StartProxy(t, s), js}
			puller := startPuller(t, m.proxy.URL)
			puller.AwaitReady(t)
			fault.begin(t, m)
			puller.AwaitNotReady(t, fault.reason)
			if status, _ := puller.Probe(t, "/livez"); status != http.StatusOK {
				t.Errorf("/livez is %d, want 200", status)
			}
			fault.end(t, m)
			puller.AwaitReady(t)
			if n := puller.Count("not ready"); n != 1 {
				t.Errorf("%d lines say that it is not ready, want one", n)
			}
			if n := puller.Count("ready"); n != 2 {
				t.Errorf("%d lines say that it is ready, want two", n)
			}
		})
	}
}

// TestProcess_StaysReadyAfterOneFailure has a check that fails every other time.
func TestProcess_StaysReadyAfterOneFailure(t *testing.T) {
	t.Parallel()
	enough := make(chan struct{})
	p := runtest.Start(t, run.Spec{Name: "puller", New: func(p *run.Process) (run.Service, error) {
		return serviceFunc(func(ctx, _ context.Context) error {
			checks := 0
			p.KeepReady(ctx, time.Millisecond, func(context.Context) error {
				if checks++; checks == 10 {
					close(enough)
				}
				if checks%2 == 0 {
					return errors.New("a short fault")
				}
				return nil
			})
			return nil
		}), nil
	}}, "--nats", bustest.Start(t, pipeline.BuiltInNames()...).URL)
	p.AwaitReady(t)
	<-enough
	p.Stop()
	if err := p.Wait(t); err != nil {
		t.Errorf("the service ended with %v", err)
	}
	if n := p.Count("not ready"); n != 0 {
		t.Errorf("%d lines say that it is not ready, want none", n)
	}
}

// TestProcess_StopsDuringACheck has a check that returns nil after the stop of the service
// has begun.
func TestProcess_StopsDuringACheck(t *testing.T) {
	t.Parallel()
	checking := make(chan struct{})
	p := runtest.Start(t, run.Spec{Name: "puller", New: func(p *run.Process) (run.Service, error) {
		return serviceFunc(func(ctx, _ context.Context) error {
			p.KeepReady(ctx, time.Millisecond, func(ctx context.Context) error {
				close(checking)
				<-ctx.Done()
				return nil
			})
			return nil
		}), nil
	}}, "--nats", bustest.Start(t, pipeline.BuiltInNames()...).URL)
	<-checking
	p.Stop()
	if err := p.Wait(t); err != nil {
		t.Errorf("the service ended with %v", err)
	}
	if n := p.Count("ready"); n != 0 {
		t.Errorf("%d lines say that it is ready, want none", n)
	}
}
