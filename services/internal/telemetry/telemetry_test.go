package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNewLogger_AddsJobAndTrace(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := NewLogger(&b, slog.LevelInfo, "detect", "i1").With("k", "v")
	ctx, span := sdktrace.NewTracerProvider().Tracer("t").Start(WithJob(t.Context(), "j1"), "s")
	log.InfoContext(ctx, "hello")
	log.Info("no context")
	var with, without map[string]any
	d := json.NewDecoder(&b)
	if err := d.Decode(&with); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(&without); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"job": "j1", "trace_id": span.SpanContext().TraceID().String(), "service": "detect", "k": "v",
	} {
		if got := with[key]; got != want {
			t.Errorf("with a context %s is %v, want %v", key, got, want)
		}
	}
	for _, key := range []string{"job", "trace_id"} {
		if got := without[key]; got != nil {
			t.Errorf("without a context %s is %v, want none", key, got)
		}
	}
}

// TestInject_UsesLowerCaseHeaders: NATS headers are case-sensitive, and the W3C names
// are lower-case.
func TestInject_UsesLowerCaseHeaders(t *testing.T) {
	t.Parallel()
	ctx, span := sdktrace.NewTracerProvider().Tracer("t").Start(t.Context(), "s")
	h := nats.Header{}
	Inject(ctx, h)
	if n := len(h["traceparent"]); n != 1 {
		t.Errorf("%d headers traceparent, want 1", n)
	}
	if got := h["Traceparent"]; got != nil {
		t.Errorf("the header Traceparent is %v, want none", got)
	}
	_, child := sdktrace.NewTracerProvider().Tracer("t").Start(Extract(context.Background(), h), "c")
	if child.SpanContext().TraceID() != span.SpanContext().TraceID() {
		t.Error("the child has another trace ID than its parent")
	}
}

func TestAdmin_ServesProbesAndMetrics(t *testing.T) {
	t.Parallel()
	a, err := StartAdmin("127.0.0.1:0", NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) (int, string) {
		t.Helper()
		res, err := client.Get("http://" + a.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	for _, tt := range []struct {
		path string
		want int
	}{{"/livez", 200}, {"/debug/pprof/", 404}, {"/debug/pprof/cmdline", 404}, {"/nothing", 404}} {
		if got, _ := get(tt.path); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.path, got, tt.want)
		}
	}
	for _, tt := range []struct {
		set  func()
		want int
		body string
	}{
		{func() {}, 503, "not ready: starting\n"},
		{a.SetReady, 200, "ready\n"},
		{func() { a.SetNotReady("NATS cannot be reached") }, 503, "not ready: NATS cannot be reached\n"},
		{a.SetReady, 200, "ready\n"},
	} {
		tt.set()
		status, body := get("/readyz")
		if status != tt.want {
			t.Errorf("/readyz responds with %d, want %d", status, tt.want)
		}
		if body != tt.body {
			t.Errorf("/readyz responds with %q, want %q", body, tt.body)
		}
	}
	status, body := get("/metrics")
	if status != 200 {
		t.Errorf("/metrics responds with %d, want 200", status)
	}
	if want := "go_goroutines"; !strings.Contains(body, want) {
		t.Errorf("/metrics has no metric %s", want)
	}
	if _, err := StartAdmin(a.Addr(), NewRegistry()); err == nil {
		t.Error("two servers on one port")
	}
	if err := a.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestStartProfiles_OnLoopbackOnly(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{":6060", "0.0.0.0:6060", "[::]:6060", "10.1.2.3:6060", "somewhere:6060", "6060"} {
		p, err := StartProfiles(addr)
		if err == nil {
			p.Close(context.Background())
			t.Errorf("%s: it listens", addr)
		}
	}
}

func TestStartProfiles_WithoutTheCommandLine(t *testing.T) {
	t.Parallel()
	p, err := StartProfiles("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(context.Background())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]int{"/debug/pprof/heap": 200, "/debug/pprof/cmdline": 404, "/metrics": 404} {
		res, err := client.Get("http://" + p.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
}
