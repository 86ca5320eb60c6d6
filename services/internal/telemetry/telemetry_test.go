package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/baggage"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startSpan(t *testing.T) (context.Context, trace.SpanContext) {
	t.Helper()
	ctx, span := sdktrace.NewTracerProvider().Tracer("test").Start(context.Background(), "test")
	t.Cleanup(func() { span.End() })
	return ctx, span.SpanContext()
}

func TestLogLinesNameJobAndTrace(t *testing.T) {
	t.Parallel()
	ctx, sc := startSpan(t)
	var b bytes.Buffer
	log := NewLogger(&b, slog.LevelInfo, "detect", "one").With("part", "lanes")
	log.InfoContext(WithJob(ctx, "j1"), "inside")
	log.Info("outside")
	log.Debug("too quiet")

	var lines []map[string]any
	for d := json.NewDecoder(&b); ; {
		var line map[string]any
		if err := d.Decode(&line); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		delete(line, "time")
		lines = append(lines, line)
	}
	always := map[string]any{"level": "INFO", "service": "detect", "instance": "one", "part": "lanes"}
	inside := maps.Clone(always)
	maps.Copy(inside, map[string]any{"msg": "inside", "job": "j1", "trace_id": sc.TraceID().String(), "span_id": sc.SpanID().String()})
	outside := maps.Clone(always)
	outside["msg"] = "outside"
	if len(lines) != 2 || !maps.Equal(lines[0], inside) || !maps.Equal(lines[1], outside) {
		t.Errorf("got %v, want %v and %v", lines, inside, outside)
	}
}

func TestTraceContextTravelsInLowerCase(t *testing.T) {
	t.Parallel()
	ctx, sc := startSpan(t)
	member, err := baggage.NewMember("tenant", "blue")
	if err != nil {
		t.Fatal(err)
	}
	bag, err := baggage.New(member)
	if err != nil {
		t.Fatal(err)
	}
	h := nats.Header{}
	Inject(baggage.ContextWithBaggage(ctx, bag), h)
	if keys := slices.Sorted(maps.Keys(h)); !slices.Equal(keys, []string{"baggage", "traceparent"}) {
		t.Errorf("header has %v, want the names of W3C in lower case", keys)
	}
	got := Extract(context.Background(), h)
	if have := trace.SpanContextFromContext(got); have.TraceID() != sc.TraceID() || have.SpanID() != sc.SpanID() || !have.IsRemote() {
		t.Errorf("extracted %v, want %v from afar", have, sc)
	}
	if have := baggage.FromContext(got).Member("tenant").Value(); have != "blue" {
		t.Errorf("extracted baggage %q, want blue", have)
	}
	if bad := Extract(context.Background(), nats.Header{"traceparent": {"00-nonsense"}}); trace.SpanContextFromContext(bad).IsValid() {
		t.Error("nonsense became a span context")
	}
}

func TestExporterFollowsTheEnvironment(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		env     map[string]string
		exports bool
		wrong   string
	}{
		"nothing said":       {env: nil},
		"endpoint":           {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, exports: true},
		"endpoint of traces": {env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, exports: true},
		"otlp at its place":  {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, exports: true},
		"none":               {env: map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}},
		"disabled":           {env: map[string]string{"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}},
		"grpc":               {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, exports: true},
		"traces go first": {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp",
			"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"}, exports: true},
		"unknown exporter": {env: map[string]string{"OTEL_TRACES_EXPORTER": "jaeger"}, wrong: `OTEL_TRACES_EXPORTER="jaeger"`},
		"unknown protocol": {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"},
			wrong: `OTEL_EXPORTER_OTLP_PROTOCOL="smoke"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exp, err := newExporter(t.Context(), func(k string) string { return tt.env[k] })
			if exp != nil {
				defer exp.Shutdown(context.Background())
			}
			switch {
			case tt.wrong == "" && err != nil:
				t.Error(err)
			case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)):
				t.Errorf("got %v, want an error that says %s", err, tt.wrong)
			case (exp != nil) != tt.exports:
				t.Errorf("got exporter %v, want one: %v", exp, tt.exports)
			}
		})
	}
}

func TestShutdownSendsWhatIsLeft(t *testing.T) {
	got := make(chan string, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.URL.Path + " " + string(body)
	}))
	defer collector.Close()
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL) // the SDK reads it itself
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=yard")
	ctx := context.Background()
	tp, err := NewTracerProvider(ctx, "detect", "one", "0.1.0", func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	_, span := tp.Tracer("test").Start(ctx, "last one")
	span.End()
	if err := tp.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 {
		t.Fatalf("the collector got %d requests, want one", len(got))
	}
	request := <-got
	for _, want := range []string{"/v1/traces ", "last one", "sightmesh", "detect", "yard"} {
		if !strings.Contains(request, want) {
			t.Errorf("%q is not in what was sent: %q", want, request)
		}
	}
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "took_seconds", Help: "Time."})
	reg.MustRegister(h)
	ctx, sc := startSpan(t)
	Observe(ctx, h, 0.5)
	Observe(context.Background(), h, 0.5)

	a, err := StartAdmin("127.0.0.1:0", reg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := StartAdmin(a.Addr(), reg); err == nil || !strings.Contains(err.Error(), a.Addr()) {
		t.Errorf("a second server on %s: %v, want an error that names the address", a.Addr(), err)
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(method, path string, status int) string {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+a.Addr()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/openmetrics-text")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != status {
			t.Errorf("%s %s: %s, want %d", method, path, res.Status, status)
		}
		return string(body)
	}
	ask("GET", "/livez", 200)
	ask("GET", "/readyz", 503)
	a.SetReady(true)
	ask("GET", "/readyz", 200)
	a.SetReady(false)
	ask("GET", "/readyz", 503)
	ask("POST", "/livez", 405)
	ask("GET", "/debug/pprof/", 200)
	ask("GET", "/debug/pprof/cmdline", 200)
	metrics := ask("GET", "/metrics", 200)
	for _, want := range []string{"took_seconds_count 2", `trace_id="` + sc.TraceID().String() + `"`, "go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if err := a.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := client.Get("http://" + a.Addr() + "/livez"); err == nil {
		t.Error("a closed server answers")
	}
}
