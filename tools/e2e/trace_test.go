package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	logscollector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricscollector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver takes spans, metrics and logs over OTLP/HTTP, as a collector does. Jaeger
// takes spans alone.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	spans   []span
	metrics map[string][]string // names, by service
	logs    []record
}

type span struct {
	*tracepb.Span
	service string
}

func (s span) String() string {
	return fmt.Sprintf("%s %q %s", s.service, s.Name, strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_"))
}

// record is a record of a log.
type record struct {
	*logspb.LogRecord
	service string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{metrics: map[string][]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		if err := r.receive(req.URL.Path, body); err != nil {
			t.Errorf("%s: %v", req.URL.Path, err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) receive(path string, body []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch path {
	case "/v1/traces":
		var m collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			return err
		}
		for _, of := range m.ResourceSpans {
			for _, scope := range of.ScopeSpans {
				for _, s := range scope.Spans {
					r.spans = append(r.spans, span{s, serviceName(of.Resource)})
				}
			}
		}
	case "/v1/metrics":
		var m metricscollector.ExportMetricsServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			return err
		}
		for _, of := range m.ResourceMetrics {
			for _, scope := range of.ScopeMetrics {
				for _, metric := range scope.Metrics {
					service := serviceName(of.Resource)
					r.metrics[service] = append(r.metrics[service], metric.Name)
				}
			}
		}
	case "/v1/logs":
		var m logscollector.ExportLogsServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			return err
		}
		for _, of := range m.ResourceLogs {
			for _, scope := range of.ScopeLogs {
				for _, l := range scope.LogRecords {
					r.logs = append(r.logs, record{l, serviceName(of.Resource)})
				}
			}
		}
	default:
		return errors.New("no signal has this path")
	}
	return nil
}

func serviceName(r *resourcepb.Resource) string {
	for _, a := range r.Attributes {
		if a.Key == "service.name" {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// trace returns the spans of a trace.
func (r *receiver) trace(id string) []span {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []span
	for _, s := range r.spans {
		if fmt.Sprintf("%x", s.TraceId) == id {
			out = append(out, s)
		}
	}
	return out
}

// hasMetric reports whether a service has sent a metric.
func (r *receiver) hasMetric(service, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.metrics[service], name)
}

// traceLogs returns the log records of a trace.
func (r *receiver) traceLogs(trace string) (found []record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.logs {
		if fmt.Sprintf("%x", l.TraceId) == trace {
			found = append(found, l)
		}
	}
	return found
}

// TestOTLP_MetricsAndLogs sends an image through a mesh that exports all
// three: each service sends its metrics, which are at /metrics as well, and the line of
// log of a failed job has its trace, and is written as well.
func TestOTLP_MetricsAndLogs(t *testing.T) {
	r := newReceiver(t)
	m := start(t, []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL, "OTEL_METRICS_EXPORTER=otlp", "OTEL_LOGS_EXPORTER=otlp",
		"OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_BLRP_SCHEDULE_DELAY=100", "OTEL_METRIC_EXPORT_INTERVAL=100",
	})
	m.postDone(t, "?pipeline=text", samplePage(t))
	trace := m.post(t, "?pipeline=text", samplePage(t)[:5000]).problem.TraceID
	for service, metric := range map[string]string{
		"ingress": "sightmesh_http_request_duration_seconds", "detect": "sightmesh_messages_total",
		"classify": "sightmesh_lane_seconds", "results": "sightmesh_answers_total",
	} {
		eventually(t, timeoutAnswer, func() error {
			if !r.hasMetric("sightmesh-"+service, metric) {
				return fmt.Errorf("%s has not sent %s", service, metric)
			}
			return nil
		})
		if err := scrape(m.admin(t, service), regexp.MustCompile(`(?m)^`+metric)); err != nil {
			t.Errorf("/metrics of %s: %v", service, err)
		}
	}
	eventually(t, timeoutAnswer, func() error {
		if len(r.trace(trace)) == 0 {
			return fmt.Errorf("no span of the trace %s was sent", trace)
		}
		if len(r.traceLogs(trace)) == 0 {
			return fmt.Errorf("no log record of the trace %s was sent", trace)
		}
		return nil
	})
	l := r.traceLogs(trace)[0]
	switch {
	case l.service != "sightmesh-detect":
		t.Errorf(`%s sent %v, want a warning of sightmesh-detect: service %q, want "sightmesh-detect"`,
			l.service, l.LogRecord, l.service)
	case l.SeverityNumber != logspb.SeverityNumber_SEVERITY_NUMBER_WARN:
		t.Errorf("%s sent %v, want a warning of sightmesh-detect: severity number %v, want %v",
			l.service, l.LogRecord, l.SeverityNumber, logspb.SeverityNumber_SEVERITY_NUMBER_WARN)
	}
	if written := m.stderr.matching(regexp.MustCompile(`"level":"WARN".*"trace_id":"` + trace)); len(written) == 0 {
		t.Errorf("the log has no line of the trace %s", trace)
	}
}

// TestTrace_OneForEachJob follows one request through every service: the caller's trace
// goes on, there is one tree, and the waits in the queues are in it.
func TestTrace_OneForEachJob(t *testing.T) {
	r := newReceiver(t)
	m := start(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL, "OTEL_BSP_SCHEDULE_DELAY=100"})
	const callerTrace, callerSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

	a := m.post(t, "?pipeline=text", samplePage(t), "traceparent", "00-"+callerTrace+"-"+callerSpan+"-01")
	if a.result.TraceID != callerTrace {
		t.Errorf("trace id %s, want the caller's", a.result.TraceID)
	}
	// child under parent, as service "name" KIND. Whatever a message leads to is below
	// the request that waits, and linked to what has published the message.
	const root = `sightmesh-ingress "POST /v1/images" SERVER`
	want := []string{
		root + ` < caller`,
		`sightmesh-ingress "read body" INTERNAL < ` + root,
		`sightmesh-ingress "admit" INTERNAL < ` + root,
		`sightmesh-ingress "publish IMAGES" PRODUCER < ` + root,
		`sightmesh-detect "queue IMAGES" INTERNAL < ` + root + ` ~ publish IMAGES`,
		`sightmesh-detect "process IMAGES" CONSUMER < ` + root + ` ~ publish IMAGES`,
		`sightmesh-detect "lane" INTERNAL < sightmesh-detect "process IMAGES" CONSUMER`,
		`sightmesh-detect "decode" INTERNAL < sightmesh-detect "lane" INTERNAL`,
		`sightmesh-detect "infer" INTERNAL < sightmesh-detect "lane" INTERNAL`,
		`sightmesh-detect "publish CROPS" PRODUCER < ` + root,
		`sightmesh-classify "queue CROPS" INTERNAL < ` + root + ` ~ publish CROPS`,
		`sightmesh-classify "process CROPS" CONSUMER < ` + root + ` ~ publish CROPS`,
		`sightmesh-classify "lane" INTERNAL < sightmesh-classify "process CROPS" CONSUMER`,
		`sightmesh-classify "infer" INTERNAL < sightmesh-classify "lane" INTERNAL`,
		`sightmesh-classify "publish RESULTS" PRODUCER < ` + root,
		`sightmesh-results "queue RESULTS" INTERNAL < ` + root + ` ~ publish RESULTS`,
		`sightmesh-results "process RESULTS" CONSUMER < ` + root + ` ~ publish RESULTS`,
		`sightmesh-results "reply" PRODUCER < sightmesh-results "process RESULTS" CONSUMER`,
		`sightmesh-ingress "process reply" CONSUMER < ` + root + ` ~ reply`,
	}
	var spans []span
	eventually(t, timeoutAnswer, func() error {
		if spans = r.trace(callerTrace); len(spans) < len(want) {
			return fmt.Errorf("%d spans: %v", len(spans), spans)
		}
		return nil
	})
	slices.Sort(want)
	if got := tree(t, spans, callerSpan); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	checkWithin(t, spans)
}

// TestTrace_JobInParts is the same for an image that was split, joined,
// and sent without a trace of its own.
func TestTrace_JobInParts(t *testing.T) {
	page := realdata(t, "rendered/page_en.png")
	r := newReceiver(t)
	m := start(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL, "OTEL_BSP_SCHEDULE_DELAY=100"})
	a := m.post(t, "?pipeline=text", page)
	switch {
	case a.result.Timings == nil:
		t.Fatalf("not joined: %v: no timings", a)
	case a.result.Timings.Join <= 0:
		t.Fatalf("not joined: %v: Timings.Join %v, want more than 0", a, a.result.Timings.Join)
	}
	var spans []span
	done := func(name string) int {
		n := 0
		for _, s := range spans {
			if s.Name == name {
				n++
			}
		}
		return n
	}
	eventually(t, timeoutAnswer, func() error {
		spans = r.trace(a.result.TraceID)
		switch {
		case done("reply") != 1:
			return fmt.Errorf(`%d spans: %v: done("reply") %v, want 1`, len(spans), spans, done("reply"))
		case done("POST /v1/images") != 1:
			return fmt.Errorf(`%d spans: %v: done("POST /v1/images") %v, want 1`,
				len(spans), spans, done("POST /v1/images"))
		case done("process PARTS") != done("publish PARTS"):
			return fmt.Errorf(`%d spans: %v: done("process PARTS") %v, want %v`,
				len(spans), spans, done("process PARTS"), done("publish PARTS"))
		case done("publish PARTS") != done("process CROPS"):
			return fmt.Errorf(`%d spans: %v: done("publish PARTS") %v, want %v`,
				len(spans), spans, done("publish PARTS"), done("process CROPS"))
		case done("process CROPS") < 2:
			return fmt.Errorf(`%d spans: %v: done("process CROPS") %v, want at least 2`,
				len(spans), spans, done("process CROPS"))
		}
		return nil
	})
	tree(t, spans, "")
}

// TestTrace_Report has a span that lasts until the last outcome, and none of the
// spans of images, which have traces of their own.
func TestTrace_Report(t *testing.T) {
	r := newReceiver(t)
	m := start(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL, "OTEL_BSP_SCHEDULE_DELAY=100"})
	form, contentType := newForm(t, "image", samplePage(t), []byte("no image"))
	a := m.send(t, http.MethodPost, "/v1/images?pipeline=text", contentType, string(form))
	report := m.finished(t, a.header.Get("Location"))
	id := strings.Split(a.header.Get("Traceparent"), "-")[1]
	count := func(name string) (n int) {
		for _, s := range r.trace(id) {
			if s.Name == name {
				n++
			}
		}
		return n
	}
	eventually(t, timeoutAnswer, func() error {
		switch {
		case count("report") == 0:
			return fmt.Errorf(`%v: count("report") %v, want not 0`, r.trace(id), count("report"))
		case count("process REPORTS") == 0:
			return fmt.Errorf(`%v: count("process REPORTS") %v, want not 0`, r.trace(id), count("process REPORTS"))
		}
		return nil
	})
	if n := count("report"); n != 1 {
		t.Errorf("the report has %d spans, want 1", n)
	}
	if n := count("process IMAGES"); n != 0 {
		t.Errorf("%d spans of images are in the trace of the report", n)
	}
	traces := map[string]bool{id: true}
	for _, image := range report.Images {
		if traces[image.Result.TraceID] {
			t.Errorf("image %s has no trace of its own", image.ID)
		}
		traces[image.Result.TraceID] = true
	}
}

// tree gives each span with its parent and its links, and checks that there is one
// root and no orphan, and that no span begins before its parent.
func tree(t *testing.T, spans []span, caller string) []string {
	t.Helper()
	byID := map[string]span{}
	for _, s := range spans {
		byID[fmt.Sprintf("%x", s.SpanId)] = s
	}
	roots := 0
	var out []string
	for _, s := range spans {
		id := fmt.Sprintf("%x", s.ParentSpanId)
		if id == caller {
			roots++
			out = append(out, s.String()+" < caller")
			continue
		}
		parent, ok := byID[id]
		if !ok {
			t.Errorf("%v is an orphan", s)
			continue
		}
		if s.StartTimeUnixNano < parent.StartTimeUnixNano {
			t.Errorf("%v begins before its parent %v", s, parent)
		}
		line := s.String() + " < " + parent.String()
		for _, l := range s.Links {
			line += " ~ " + byID[fmt.Sprintf("%x", l.SpanId)].Name
		}
		out = append(out, line)
	}
	if roots != 1 {
		t.Errorf("%d roots, want 1", roots)
	}
	slices.Sort(out)
	return out
}

// checkWithin fails the test when a span begins after the end of its parent. Jaeger
// leaves such a span out of the critical path, which would say that the time was
// spent elsewhere.
func checkWithin(t *testing.T, spans []span) {
	t.Helper()
	ends := map[string]uint64{}
	for _, s := range spans {
		ends[string(s.SpanId)] = s.EndTimeUnixNano
	}
	for _, s := range spans {
		if end, ok := ends[string(s.ParentSpanId)]; ok && s.StartTimeUnixNano > end {
			t.Errorf("%v begins %v after the end of its parent", s, time.Duration(s.StartTimeUnixNano-end))
		}
	}
}
