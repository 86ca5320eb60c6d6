package run_test

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
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/internal/run/runtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testTimeout = time.Minute

// serviceFunc is a service of one function.
type serviceFunc func(ctx, hard context.Context) error

func (f serviceFunc) Run(ctx, hard context.Context) error { return f(ctx, hard) }

// checkNotReady checks that /readyz responds with 503 and body.
func checkNotReady(t *testing.T, p *runtest.Service, body string) {
	t.Helper()
	status, got := p.Probe(t, "/readyz")
	if status != http.StatusServiceUnavailable {
		t.Errorf("/readyz responds with %d, want 503", status)
	}
	if got != body {
		t.Errorf("/readyz responds with %q, want %q", got, body)
	}
}

// TestRun_StatesOfAProcess follows a service from a mesh that is not set up to its end.
func TestRun_StatesOfAProcess(t *testing.T) {
	t.Parallel()
	s := bustest.StartEmpty(t)
	stopping, asked := make(chan struct{}), make(chan struct{})
	var instance *run.Process
	p := runtest.Start(t, run.Spec{Name: "detect", Description: "Finds.", New: func(p *run.Process) (run.Service, error) {
		instance = p
		if err := p.ServeStatus(func() any { return map[string]int{"lanes": 3} }, nil); err != nil {
			return nil, err
		}
		return serviceFunc(func(ctx, hard context.Context) error {
			p.KeepReady(ctx, time.Hour, func(context.Context) error { return nil })
			if err := hard.Err(); err != nil {
				t.Errorf("when stopping begins, the hard stop is %v, want time to finish", err)
			}
			if s := p.Conn.Status(); s != nats.CONNECTED {
				t.Errorf("when stopping begins, the connection is %v, want %v", s, nats.CONNECTED)
			}
			close(stopping)
			<-asked
			<-hard.Done()
			return nil
		}), nil
	}}, "--nats", s.URL, "--grace", "2s")

	listening := p.AwaitLine(t, "listening")
	if got := listening["name"]; got != "admin" {
		t.Errorf("the first server that listens is %v, want admin", got)
	}
	if got := listening["service"]; got != "detect" {
		t.Errorf("the service in the log line is %v, want detect", got)
	}
	waiting := p.AwaitLine(t, "waiting for streams and consumers")
	for _, want := range []string{"IMAGES", "sightmesh setup"} { // the missing stream, and what to do
		if why := fmt.Sprint(waiting["error"]); !strings.Contains(why, want) {
			t.Errorf("the error in the log line is %q, want %q in it", why, want)
		}
	}
	if status, body := p.Probe(t, "/livez"); status != http.StatusOK {
		t.Errorf("while it waits: /livez %d %q, want 200", status, body)
	}
	checkNotReady(t, p, fmt.Sprintf("not ready: starting: waiting for streams and consumers: %s\n", waiting["error"]))

	nc := s.Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := streams.Ensure(t.Context(), js, streams.Config{Pipelines: pipeline.BuiltInNames()}); err != nil {
		t.Fatal(err)
	}
	p.AwaitReady(t)
	m, err := nc.Request(subject.Status("detect"), nil, testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(m.Data), `{"lanes":3}`; got != want {
		t.Errorf("the status is %s, want %s", got, want)
	}
	if m, err = nc.Request("$SRV.STATS.detect", nil, testTimeout); err != nil {
		t.Fatal(err)
	}
	var stats micro.Stats
	if err := json.Unmarshal(m.Data, &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Name != "detect" {
		t.Errorf("the service in the statistics is %s, want detect", stats.Name)
	}
	if got := stats.Metadata["instance"]; got != instance.Instance {
		t.Errorf("the instance in the statistics is %s, want %s", got, instance.Instance)
	}
	if n := len(stats.Endpoints); n != 1 {
		t.Fatalf("the statistics have %d endpoints, want 1", n)
	}
	if got, want := string(stats.Endpoints[0].Data), `{"lanes":3}`; got != want {
		t.Errorf("the status in the statistics is %s, want %s", got, want)
	}

	p.Stop()
	<-stopping
	checkNotReady(t, p, "not ready: stopping\n")
	close(asked)
	if err := p.Wait(t); err != nil {
		t.Error(err)
	}
	if !instance.Conn.IsClosed() {
		t.Error("the connection to NATS is still open")
	}
}

func TestRun_ReturnsErrorsOfTheService(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	broken := errors.New("broken")
	for name, spec := range map[string]run.Spec{
		"while it is made": {New: func(*run.Process) (run.Service, error) { return nil, broken }},
		"while it runs": {New: func(*run.Process) (run.Service, error) {
			return serviceFunc(func(context.Context, context.Context) error { return broken }), nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec.Name = "detect"
			if err := runtest.Start(t, spec, "--nats", s.URL).Wait(t); !errors.Is(err, broken) {
				t.Errorf("got %v, want the error of the service", err)
			}
		})
	}
}

// TestRun_ValidatesFlagsFirst has no NATS server: a wrong flag ends the service before it waits for one.
func TestRun_ValidatesFlagsFirst(t *testing.T) {
	t.Parallel()
	wrong := errors.New("lanes: 0")
	spec := run.Spec{Name: "detect", Validate: func(all []pipeline.Pipeline) error {
		if len(all) == 0 {
			return errors.New("no pipelines")
		}
		return wrong
	}}
	if err := runtest.Start(t, spec, "--nats", "nats://127.0.0.1:1").Wait(t); !errors.Is(err, wrong) {
		t.Errorf("got %v, want %v", err, wrong)
	}
}

// TestProcess_WithoutNATS starts a service before its server. It says at once
// what it waits for, and is live, so that nothing restarts it.
func TestProcess_WithoutNATS(t *testing.T) {
	t.Parallel()
	p := runtest.Start(t, run.Spec{Name: "detect"}, "--nats", "nats://mesh:s3cret@127.0.0.1:1")
	line := p.AwaitLine(t, "waiting for NATS")
	if line["url"] != "nats://mesh:xxxxx@127.0.0.1:1" {
		t.Errorf("it waits for %v, want the address without the password", line["url"])
	}
	if why := fmt.Sprint(line["error"]); !strings.Contains(why, "connection refused") {
		t.Errorf("it waits because of %q, want the reason", why)
	}
	if status, body := p.Probe(t, "/livez"); status != http.StatusOK {
		t.Errorf("while it waits: /livez %d %q, want 200", status, body)
	}
	p.Stop()
	err := p.Wait(t)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
	if strings.Contains(fmt.Sprint(err), "s3cret") {
		t.Errorf("the error has the password: %v", err)
	}
}

// TestProcess_Profiles: they are served where the flag says, and nowhere without
// it.
func TestProcess_Profiles(t *testing.T) {
	t.Parallel()
	p := runtest.Start(t, run.Spec{Name: "detect"}, "--nats", bustest.StartEmpty(t).URL, "--profiles", "127.0.0.1:0")
	if line := p.AwaitLine(t, "listening"); line["name"] != "admin" {
		t.Errorf("the first server is announced as %v, want admin", line)
	}
	profiles := p.AwaitLine(t, "listening")
	if profiles["name"] != "profiles" {
		t.Fatalf("the second server is announced as %v, want profiles", profiles)
	}
	client := &http.Client{Timeout: testTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(fmt.Sprintf("http://%v/debug/pprof/goroutine", profiles["addr"]))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("a profile: %s, want 200", res.Status)
	}
	if status, _ := p.Probe(t, "/debug/pprof/goroutine"); status != http.StatusNotFound {
		t.Errorf("a profile of the admin address: %d, want 404", status)
	}
}

func TestRun_StopsWhileStarting(t *testing.T) {
	t.Parallel()
	p := runtest.Start(t, run.Spec{Name: "detect"}, "--nats", bustest.StartEmpty(t).URL)
	p.AwaitLine(t, "waiting for streams and consumers")
	p.Stop()
	if err := p.Wait(t); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

func TestRun_RejectsInvalidFlags(t *testing.T) {
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
		"profiles for all":   {"--profiles :6060", "loopback"},
		"no credentials":     {"--nats-creds /nowhere/c", "--nats-creds"},
		"one of the service": {"--own x", "-own"},
		"help":               {"--help", flag.ErrHelp.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			spec := run.Spec{Name: "detect", Flags: func(fs *flag.FlagSet) { fs.Int("own", 1, "of the service") }}
			err := run.Run(t.Context(), spec, strings.Fields(tt.args), os.Getenv, &stderr)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error that says %s", err, tt.want)
			}
			if tt.args == "--help" && !strings.Contains(stderr.String(), "-own") {
				t.Errorf("help is %s, want it to name the flags of the service", stderr.String())
			}
		})
	}
}

func TestRun_ReadsFlagsFromTheEnvironment(t *testing.T) {
	t.Setenv("SIGHTMESH_PIPELINES", "/env/p.yaml")
	t.Setenv("SIGHTMESH_LOG_LEVEL", "error")
	for _, tt := range []struct {
		args []string
		want string
	}{{nil, "/env/p.yaml"}, {[]string{"--pipelines", "/flag/p.yaml"}, "/flag/p.yaml"}} {
		err := run.Run(t.Context(), run.Spec{Name: "detect"}, tt.args, os.Getenv, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want an error about %s", tt.args, err, tt.want)
		}
	}
	t.Setenv("SIGHTMESH_LOG_LEVEL", "loud")
	err := run.Run(t.Context(), run.Spec{Name: "detect"}, nil, os.Getenv, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "loud") {
		t.Errorf("a wrong level in the environment: %v", err)
	}
}
