package run

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second // only ends tests that would hang

// process is a run of a service in this process.
type process struct {
	lines chan map[string]any // its log
	done  chan error
	stop  context.CancelFunc // what a signal does
}

func start(t *testing.T, spec Spec, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{lines: make(chan map[string]any, 1000), done: make(chan error, 1), stop: cancel}
	r, w := io.Pipe()
	var reading sync.WaitGroup
	reading.Go(func() {
		for d := json.NewDecoder(r); ; {
			var line map[string]any
			if d.Decode(&line) != nil {
				return
			}
			p.lines <- line
		}
	})
	go func() {
		p.done <- Run(ctx, spec, args, os.Getenv, w)
		w.Close()
	}()
	t.Cleanup(func() {
		cancel()
		reading.Wait()
	})
	return p
}

// said waits for a line of the log.
func (p *process) said(t *testing.T, msg string) map[string]any {
	t.Helper()
	for {
		select {
		case line := <-p.lines:
			if line["msg"] == msg {
				return line
			}
		case <-time.After(patience):
			t.Fatalf("the service did not say %q", msg)
		}
	}
}

func (p *process) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.done:
		return err
	case <-time.After(patience):
		t.Fatal("the service did not end")
		return nil
	}
}

func status(t *testing.T, url string) int {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

type serviceFunc func(ctx, hard context.Context) error

func (f serviceFunc) Run(ctx, hard context.Context) error { return f(ctx, hard) }

// TestLife follows a service from a mesh that is not set up to its end.
func TestLife(t *testing.T) {
	t.Parallel()
	s := bustest.StartEmpty(t)
	adminURL := make(chan string, 1)
	stopping := make(chan struct{})
	var instance *Process
	p := start(t, Spec{Name: "detect", Description: "Finds.", New: func(p *Process) (Service, error) {
		instance = p
		if err := p.ServeStatus(func() any { return map[string]int{"lanes": 3} }); err != nil {
			return nil, err
		}
		return serviceFunc(func(ctx, hard context.Context) error {
			p.SetReady(true)
			p.Logger.Info("working")
			<-ctx.Done()
			if code := status(t, <-adminURL+"/readyz"); code != http.StatusServiceUnavailable {
				t.Errorf("while it stops /readyz says %d, want 503", code)
			}
			if hard.Err() != nil || p.Conn.Status().String() != "CONNECTED" {
				t.Errorf("at the begin of the end: hard %v, NATS %v; want time and a connection", hard.Err(), p.Conn.Status())
			}
			close(stopping)
			<-hard.Done()
			return nil
		}), nil
	}}, "--nats", s.URL, "--grace", "100ms")

	listening := p.said(t, "listening")
	if listening["name"] != "admin" || listening["service"] != "detect" {
		t.Errorf("the first server is announced as %v", listening)
	}
	admin := fmt.Sprintf("http://%s", listening["addr"])
	adminURL <- admin
	waiting := p.said(t, "waiting for streams and consumers")
	if why := fmt.Sprint(waiting["error"]); !strings.Contains(why, "IMAGES") || !strings.Contains(why, "sightmesh setup") {
		t.Errorf("it waits because of %q, want the missing stream and the cure", why)
	}
	if live, ready := status(t, admin+"/livez"), status(t, admin+"/readyz"); live != 200 || ready != 503 {
		t.Errorf("while it waits: /livez %d, /readyz %d, want 200 and 503", live, ready)
	}

	nc := s.Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := streams.Ensure(t.Context(), js, streams.Config{Pipelines: []string{"text", "faces"}}); err != nil {
		t.Fatal(err)
	}
	p.said(t, "working")
	if code := status(t, admin+"/readyz"); code != 200 {
		t.Errorf("at work: /readyz %d, want 200", code)
	}
	m, err := nc.Request(subject.Status("detect"), nil, patience)
	if err != nil || string(m.Data) != `{"lanes":3}` {
		t.Errorf("status: %v, %v", m, err)
	}
	if m, err = nc.Request("$SRV.STATS.detect", nil, patience); err != nil {
		t.Fatal(err)
	}
	var stats micro.Stats
	if err := json.Unmarshal(m.Data, &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Name != "detect" || stats.Metadata["instance"] != instance.Instance || len(stats.Endpoints) != 1 || string(stats.Endpoints[0].Data) != `{"lanes":3}` {
		t.Errorf("statistics are %s", m.Data)
	}

	p.stop()
	<-stopping
	if err := p.end(t); err != nil {
		t.Error(err)
	}
	if !instance.Conn.IsClosed() {
		t.Error("the connection to NATS is still open")
	}
}

func TestErrorsEndTheProcess(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "text", "faces")
	broken := errors.New("broken")
	for name, spec := range map[string]Spec{
		"while it is made": {New: func(*Process) (Service, error) { return nil, broken }},
		"while it runs": {New: func(*Process) (Service, error) {
			return serviceFunc(func(context.Context, context.Context) error { return broken }), nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec.Name = "detect"
			if err := start(t, spec, "--nats", s.URL).end(t); !errors.Is(err, broken) {
				t.Errorf("got %v, want the error of the service", err)
			}
		})
	}
}

func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	p := start(t, Spec{Name: "detect"}, "--nats", bustest.StartEmpty(t).URL)
	p.said(t, "waiting for streams and consumers")
	p.stop()
	if err := p.end(t); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args string
		want string
	}{
		"unknown":            {"--lances 3", "-lances"},
		"no duration":        {"--grace soon", "-grace"},
		"no level":           {"--log-level loud", "-log-level"},
		"no file":            {"--pipelines /nowhere/p.yaml", "/nowhere/p.yaml"},
		"no address":         {"--admin nowhere", "nowhere"},
		"one of the service": {"--own x", "-own"},
		"help":               {"--help", flag.ErrHelp.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			err := Run(t.Context(), Spec{Name: "detect", Flags: func(fs *flag.FlagSet) { fs.Int("own", 1, "of the service") }}, strings.Fields(tt.args), os.Getenv, &stderr)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error that says %s", err, tt.want)
			}
			if tt.args == "--help" && !strings.Contains(stderr.String(), "-own") {
				t.Errorf("help is %s, want it to name the flags of the service", stderr.String())
			}
		})
	}
}

func TestEnvironmentStandsInForFlags(t *testing.T) {
	t.Setenv("SIGHTMESH_PIPELINES", "/env/p.yaml")
	t.Setenv("SIGHTMESH_LOG_LEVEL", "error")
	for _, tt := range []struct {
		args []string
		want string
	}{{nil, "/env/p.yaml"}, {[]string{"--pipelines", "/flag/p.yaml"}, "/flag/p.yaml"}} {
		if err := Run(t.Context(), Spec{Name: "detect"}, tt.args, os.Getenv, io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want an error about %s", tt.args, err, tt.want)
		}
	}
	t.Setenv("SIGHTMESH_LOG_LEVEL", "loud")
	if err := Run(t.Context(), Spec{Name: "detect"}, nil, os.Getenv, io.Discard); err == nil || !strings.Contains(err.Error(), "loud") {
		t.Errorf("a wrong level in the environment: %v", err)
	}
}

func TestHardEndComesWithTheGraceOrNotAtAll(t *testing.T) {
	t.Parallel()
	ctx, signal := context.WithCancel(context.Background())
	called := make(chan struct{})
	stopping, hard, cancel := deadlines(ctx, time.Hour, func() { close(called) })
	if stopping.Err() != nil || hard.Err() != nil {
		t.Fatal("it ends before the signal")
	}
	signal()
	<-stopping.Done()
	select {
	case <-called:
	default:
		t.Error("it stops before it said so")
	}
	if hard.Err() != nil {
		t.Error("the hard end does not wait for the grace")
	}
	cancel() // finished early: the clock of the grace must not keep running
	if hard.Err() == nil {
		t.Error("the contexts outlive the service")
	}
}
