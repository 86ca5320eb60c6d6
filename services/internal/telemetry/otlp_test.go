package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/sightmesh/sightmesh/services/internal/spantest"
)

// receiver receives what is sent over OTLP, by either protocol.
type receiver struct {
	mu       sync.Mutex
	services map[string][]string // of each signal, the names of the services that sent it
	spans    []*tracepb.Span
	metrics  []*metricspb.Metric
	logs     []*logspb.LogRecord
}

func (r *receiver) recordService(signal string, resource []*commonpb.KeyValue) {
	for _, a := range resource {
		if a.Key == "service.name" {
			r.services[signal] = append(r.services[signal], a.Value.GetStringValue())
		}
	}
}

func (r *receiver) receiveTraces(m *collectortrace.ExportTraceServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range m.ResourceSpans {
		r.recordService("traces", of.Resource.Attributes)
		for _, scope := range of.ScopeSpans {
			r.spans = append(r.spans, scope.Spans...)
		}
	}
}

func (r *receiver) receiveMetrics(m *collectormetrics.ExportMetricsServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range m.ResourceMetrics {
		r.recordService("metrics", of.Resource.Attributes)
		for _, scope := range of.ScopeMetrics {
			r.metrics = append(r.metrics, scope.Metrics...)
		}
	}
}

func (r *receiver) receiveLogs(m *collectorlogs.ExportLogsServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range m.ResourceLogs {
		r.recordService("logs", of.Resource.Attributes)
		for _, scope := range of.ScopeLogs {
			r.logs = append(r.logs, scope.LogRecords...)
		}
	}
}

// serveHTTP receives over OTLP/HTTP, and returns the address.
func (r *receiver) serveHTTP(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		switch req.URL.Path {
		case "/v1/traces":
			var m collectortrace.ExportTraceServiceRequest
			err = proto.Unmarshal(body, &m)
			r.receiveTraces(&m)
		case "/v1/metrics":
			var m collectormetrics.ExportMetricsServiceRequest
			err = proto.Unmarshal(body, &m)
			r.receiveMetrics(&m)
		case "/v1/logs":
			var m collectorlogs.ExportLogsServiceRequest
			err = proto.Unmarshal(body, &m)
			r.receiveLogs(&m)
		default:
			t.Errorf("a request to %s", req.URL.Path)
		}
		if err != nil {
			t.Errorf("%s: %v", req.URL.Path, err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

type traceService struct {
	collectortrace.UnimplementedTraceServiceServer
	*receiver
}

func (s traceService) Export(
	_ context.Context, m *collectortrace.ExportTraceServiceRequest,
) (*collectortrace.ExportTraceServiceResponse, error) {
	s.receiveTraces(m)
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

type metricsService struct {
	collectormetrics.UnimplementedMetricsServiceServer
	*receiver
}

func (s metricsService) Export(
	_ context.Context, m *collectormetrics.ExportMetricsServiceRequest,
) (*collectormetrics.ExportMetricsServiceResponse, error) {
	s.receiveMetrics(m)
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

type logsService struct {
	collectorlogs.UnimplementedLogsServiceServer
	*receiver
}

func (s logsService) Export(
	_ context.Context, m *collectorlogs.ExportLogsServiceRequest,
) (*collectorlogs.ExportLogsServiceResponse, error) {
	s.receiveLogs(m)
	return &collectorlogs.ExportLogsServiceResponse{}, nil
}

// serveGRPC receives over OTLP/gRPC, and returns the address.
func (r *receiver) serveGRPC(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(s, traceService{receiver: r})
	collectormetrics.RegisterMetricsServiceServer(s, metricsService{receiver: r})
	collectorlogs.RegisterLogsServiceServer(s, logsService{receiver: r})
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-ended; err != nil {
			t.Errorf("serve OTLP over gRPC: %v", err)
		}
	})
	return "http://" + l.Addr().String()
}

// setenv sets variables, and clears those that a machine may have set.
func setenv(t *testing.T, vars map[string]string) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
	for name, value := range vars {
		t.Setenv(name, value)
	}
}

// TestProviders_ExportSpansMetricsAndLogs to a receiver. Shutdown sends what is left:
// nothing is sent before, within the test.
func TestProviders_ExportSpansMetricsAndLogs(t *testing.T) {
	all := map[string]string{"OTEL_METRICS_EXPORTER": "otlp,prometheus", "OTEL_LOGS_EXPORTER": "otlp"}
	for name, vars := range map[string]func(*testing.T, *receiver) map[string]string{
		"over HTTP": func(t *testing.T, r *receiver) map[string]string {
			vars := maps.Clone(all)
			vars["OTEL_EXPORTER_OTLP_ENDPOINT"] = r.serveHTTP(t)
			return vars
		},
		"over gRPC": func(t *testing.T, r *receiver) map[string]string {
			vars := maps.Clone(all)
			vars["OTEL_EXPORTER_OTLP_ENDPOINT"] = r.serveGRPC(t)
			vars["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
			return vars
		},
		"to addresses of their own": func(t *testing.T, r *receiver) map[string]string {
			return map[string]string{
				"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":  r.serveHTTP(t) + "/v1/traces",
				"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": r.serveGRPC(t),
				"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",
				"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT":    r.serveHTTP(t) + "/v1/logs",
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &receiver{services: map[string][]string{}}
			setenv(t, vars(t, r))
			metrics := prometheus.NewRegistry()
			counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "sightmesh_test_total", Help: "Of this test."})
			metrics.MustRegister(counter)
			p, err := NewProviders(t.Context(), "detect", "i1", "1.0.0", metrics, os.Getenv)
			if err != nil {
				t.Fatal(err)
			}
			var written bytes.Buffer
			log := p.Logger(NewLogger(&written, slog.LevelInfo, "detect", "i1")).With("lane", 2)
			ctx, span := p.Tracers().Tracer("t").Start(WithJob(t.Context(), "j1"), "work")
			log.WarnContext(ctx, "the job failed", "problem", "damaged")
			log.DebugContext(ctx, "below the level")
			counter.Add(3)
			span.End()
			p.Shutdown(t.Context())

			for _, signal := range []string{"traces", "metrics", "logs"} {
				if !slices.Contains(r.services[signal], "sightmesh-detect") {
					t.Errorf("the services that sent %s are %q, want sightmesh-detect", signal, r.services[signal])
				}
			}
			id := span.SpanContext().TraceID()
			if len(r.spans) != 1 {
				t.Fatalf("received the spans %v, want 1", r.spans)
			}
			if got := trace.TraceID(r.spans[0].TraceId); got != id {
				t.Errorf("the span is of the trace %s, want %s", got, id)
			}
			checkCounter(t, r.metrics, "sightmesh_test_total", 3)
			if len(r.logs) != 1 {
				t.Fatalf("received the log records %v, want 1", r.logs)
			}
			checkRecord(t, r.logs[0], id[:])
			if n := strings.Count(written.String(), "\n"); n != 1 {
				t.Errorf("the log has %d lines, want that of the warning:\n%s", n, &written)
			}
		})
	}
}

func checkCounter(t *testing.T, metrics []*metricspb.Metric, name string, want float64) {
	t.Helper()
	i := slices.IndexFunc(metrics, func(m *metricspb.Metric) bool { return m.Name == name })
	if i < 0 {
		t.Fatalf("%s was not received", name)
	}
	if got := metrics[i].GetSum().GetDataPoints()[0].GetAsDouble(); got != want {
		t.Errorf("%s is %v, want %v", name, got, want)
	}
}

func checkRecord(t *testing.T, l *logspb.LogRecord, trace []byte) {
	t.Helper()
	if l.Body.GetStringValue() != "the job failed" {
		t.Errorf("the log record says %q", l.Body.GetStringValue())
	}
	if l.SeverityNumber != logspb.SeverityNumber_SEVERITY_NUMBER_WARN {
		t.Errorf("the log record has the severity %s, want WARN", l.SeverityNumber)
	}
	if !bytes.Equal(l.TraceId, trace) {
		t.Errorf("the log record is of the trace %x, want %x", l.TraceId, trace)
	}
	attrs := map[string]string{}
	for _, a := range l.Attributes {
		attrs[a.Key] = a.Value.String()
	}
	for name, want := range map[string]string{
		"job": `string_value:"j1"`, "problem": `string_value:"damaged"`, "lane": "int_value:2",
	} {
		if attrs[name] != want {
			t.Errorf("the log record has the attribute %s %s, want %s", name, attrs[name], want)
		}
	}
}

func TestExportProtocol_IsConfiguredByEnvironment(t *testing.T) {
	t.Parallel()
	const endpoint = "http://127.0.0.1:1"
	for _, tt := range []struct {
		env                   map[string]string
		traces, metrics, logs string
	}{
		{nil, "", "", ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, protocolHTTP, "", ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint}, protocolHTTP, "", ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint}, "", protocolHTTP, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": endpoint}, "", "", protocolHTTP},
		{map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp"},
			protocolHTTP, protocolHTTP, protocolHTTP},
		{map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp",
			"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf"},
			protocolGRPC, "", protocolHTTP},
		{map[string]string{"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint},
			"", "", ""},
		{map[string]string{"OTEL_METRICS_EXPORTER": "otlp, prometheus"}, "", protocolHTTP, ""},
		{map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, "", "", ""},
		{map[string]string{"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, "", "", ""},
	} {
		for signal, want := range map[string]string{"TRACES": tt.traces, "METRICS": tt.metrics, "LOGS": tt.logs} {
			got, err := exportProtocol(signal, func(k string) string { return tt.env[k] })
			if err != nil {
				t.Errorf("%v: %s: %v", tt.env, signal, err)
			}
			if got != want {
				t.Errorf("%v: %s are exported by %q, want %q", tt.env, signal, got, want)
			}
		}
	}
}

func TestNewProviders_NamesTheWrongVariable(t *testing.T) {
	for name, vars := range map[string]map[string]string{
		"OTEL_TRACES_EXPORTER":             {"OTEL_TRACES_EXPORTER": "zipkin"},
		"OTEL_METRICS_EXPORTER":            {"OTEL_METRICS_EXPORTER": "otlp,statsd"},
		"OTEL_LOGS_EXPORTER":               {"OTEL_LOGS_EXPORTER": "prometheus"},
		"OTEL_EXPORTER_OTLP_PROTOCOL":      {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
		"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "udp"},
	} {
		t.Run(name, func(t *testing.T) {
			setenv(t, vars)
			_, err := NewProviders(t.Context(), "detect", "i1", "1.0.0", NewRegistry(), os.Getenv)
			if err == nil || !strings.Contains(err.Error(), name+"=") {
				t.Errorf("got %v, want an error that names %s", err, name)
			}
		})
	}
}

func TestNewProviders_NamesTheService(t *testing.T) {
	for name, tt := range map[string]struct{ variable, value, want string }{
		"by default":    {"OTEL_SERVICE_NAME", "", "sightmesh-detect"},
		"as the system": {"OTEL_SERVICE_NAME", "mine", "mine"},
		"an attribute":  {"OTEL_RESOURCE_ATTRIBUTES", "service.name=other", "other"},
	} {
		t.Run(name, func(t *testing.T) {
			setenv(t, map[string]string{tt.variable: tt.value})
			p, err := NewProviders(t.Context(), "detect", "i1", "1.0.0", NewRegistry(), os.Getenv)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Shutdown(context.Background())
			_, span := p.Tracers().Tracer("t").Start(t.Context(), "s")
			attrs := spantest.Attributes(span.(sdktrace.ReadOnlySpan).Resource().Attributes())
			if attrs["service.name"] != tt.want {
				t.Errorf("the service is %q, want %q", attrs["service.name"], tt.want)
			}
			if attrs["service.namespace"] != "sightmesh" {
				t.Errorf("the namespace is %q, want sightmesh", attrs["service.namespace"])
			}
		})
	}
}

// logLines passes each line of a log on.
type logLines chan []byte

func (l logLines) Write(b []byte) (int, error) {
	l <- bytes.Clone(b)
	return len(b), nil
}

// TestLogErrors_CollectorIsUnavailable exports to a port that nothing listens on. The
// error handler is one for the process, so that no other test runs beside it.
func TestLogErrors_CollectorIsUnavailable(t *testing.T) {
	for _, signal := range []string{"traces", "metrics", "logs"} {
		t.Run(signal, func(t *testing.T) {
			setenv(t, map[string]string{
				"OTEL_EXPORTER_OTLP_" + strings.ToUpper(signal) + "_ENDPOINT": "http://127.0.0.1:1/v1/" + signal,
				"OTEL_BSP_SCHEDULE_DELAY":                                     "1", "OTEL_BLRP_SCHEDULE_DELAY": "1",
				"OTEL_METRIC_EXPORT_INTERVAL": "10",
			})
			lines := make(logLines, 100)
			log := NewLogger(lines, slog.LevelWarn, "detect", "i1")
			LogErrors(log)
			p, err := NewProviders(t.Context(), "detect", "i1", "0", NewRegistry(), os.Getenv)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Shutdown(context.Background())
			_, span := p.Tracers().Tracer("t").Start(t.Context(), "s")
			span.End()
			p.Logger(NewLogger(io.Discard, slog.LevelInfo, "detect", "i1")).Info("a line")
			select {
			case line := <-lines:
				var l struct{ Level, Msg, Error, Service string }
				if err := json.Unmarshal(line, &l); err != nil {
					t.Fatalf("%q is no JSON: %v", line, err)
				}
				if l.Level != "WARN" {
					t.Errorf("the level of %s is %s, want a warning", line, l.Level)
				}
				if l.Service != "detect" {
					t.Errorf("the service of %s is %s, want detect", line, l.Service)
				}
				if !strings.Contains(l.Error, "connection refused") {
					t.Errorf("the log says %s, want the reason", line)
				}
			case <-time.After(time.Minute): // only ends a test that would hang
				t.Fatal("nothing is logged")
			}
		})
	}
}

func TestLogErrors_SameReasonOnceAMinute(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	now := time.Now()
	h := &errorLog{
		log: slog.New(slog.NewJSONHandler(&out, nil)), now: func() time.Time { return now },
		logged: map[string]time.Time{},
	}
	for _, step := range []struct {
		name   string
		after  time.Duration
		reason string
		want   int // lines so far
	}{
		{"the first", 0, "refused", 1},
		{"the same", time.Second, "refused", 1},
		{"another one", time.Second, "reset", 2},
		{"the same after a minute", errorPeriod, "refused", 3},
	} {
		now = now.Add(step.after)
		h.handle(errors.New(step.reason))
		if got := strings.Count(out.String(), "\n"); got != step.want {
			t.Errorf("%s: %d lines, want %d", step.name, got, step.want)
		}
	}
}
