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

func TestLogHasJobAndTrace(t *testing.T) {
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
	if with["job"] != "j1" || with["trace_id"] != span.SpanContext().TraceID().String() || with["service"] != "detect" || with["k"] != "v" {
		t.Errorf("got %v", with)
	}
	if without["job"] != nil || without["trace_id"] != nil {
		t.Errorf("got %v", without)
	}
}

// TestContextInHeaders: NATS headers are case-sensitive, and the W3C names are
// lower-case.
func TestContextInHeaders(t *testing.T) {
	t.Parallel()
	ctx, span := sdktrace.NewTracerProvider().Tracer("t").Start(t.Context(), "s")
	h := nats.Header{}
	Inject(ctx, h)
	if len(h["traceparent"]) != 1 || h["Traceparent"] != nil {
		t.Errorf("got %v", h)
	}
	_, child := sdktrace.NewTracerProvider().Tracer("t").Start(Extract(context.Background(), h), "c")
	if child.SpanContext().TraceID() != span.SpanContext().TraceID() {
		t.Error("the trace did not go on")
	}
}

func TestAdmin(t *testing.T) {
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
		if status, body := get("/readyz"); status != tt.want || body != tt.body {
			t.Errorf("/readyz: %d %q, want %d %q", status, body, tt.want, tt.body)
		}
	}
	if status, body := get("/metrics"); status != 200 || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics: %d", status)
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
