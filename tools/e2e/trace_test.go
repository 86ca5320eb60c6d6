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

	"github.com/sightmesh/sightmesh/contracts/eventually"
)

// receiver receives spans, metrics and logs over OTLP/HTTP, as a collector does.
// Jaeger accepts only spans.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	spans   []span
	metrics map[string][]string // names of metrics, by service
	logs    []record
}

type span struct {
	*tracepb.Span
	service string
}

func (s span) String() string {
	return fmt.Sprintf("%s %q %s", s.service, s.Name, strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_"))
}

// record is a log record.
type record struct {
	*logspb.LogRecord
	service string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{metrics: map[string][]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if req.URL.Path == "/v1/metrics" && errors.Is(err, io.ErrUnexpectedEOF) {
			return // a service that stops cancels the export of metrics in progress, and then sends all of them
		}
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
		for _, group := range m.ResourceSpans {
			for _, scope := range group.ScopeSpans {
				for _, s := range scope.Spans {
					r.spans = append(r.spans, span{s, serviceName(group.Resource)})
				}
			}
		}
	case "/v1/metrics":
		var m metricscollector.ExportMetricsServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			return err
		}
		for _, group := range m.ResourceMetrics {
			for _, scope := range group.ScopeMetrics {
				for _, metric := range scope.Metrics {
					service := serviceName(group.Resource)
					r.metrics[service] = append(r.metrics[service], metric.Name)
				}
			}
		}
	case "/v1/logs":
		var m logscollector.ExportLogsServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			return err
		}
		for _, group := range m.ResourceLogs {
			for _, scope := range group.ScopeLogs {
				for _, l := range scope.LogRecords {
					r.logs = append(r.logs, record{l, serviceName(group.Resource)})
				}
			}
		}
	default:
		return errors.New("unknown path")
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

// TestOTLP_MetricsAndLogs sends images through a mesh that exports spans, metrics and
// logs. Each service sends its metrics and serves them at /metrics as well. The log
// record of a failed job has its trace, and is also written to standard error.
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
		"classify": "sightmesh_lane_seconds", "results": "sightmesh_results_total",
	} {
		eventually.Succeeds(t, responseTimeout, func() error {
			if !r.hasMetric("sightmesh-"+service, metric) {
				return fmt.Errorf("%s has not sent %s", service, metric)
			}
			return nil
		})
		if err := scrape(m.admin(t, service), regexp.MustCompile(`(?m)^`+metric)); err != nil {
			t.Errorf("/metrics of %s: %v", service, err)
		}
	}
	eventually.Succeeds(t, responseTimeout, func() error {
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
		t.Errorf("%v is of %s, want sightmesh-detect", l.LogRecord, l.service)
	case l.SeverityNumber != logspb.SeverityNumber_SEVERITY_NUMBER_WARN:
		t.Errorf("%v has the severity %v, want a warning", l.LogRecord, l.SeverityNumber)
	}
	if written := m.stderr.matchingLines(regexp.MustCompile(`"level":"WARN".*"trace_id":"` + trace)); len(written) == 0 {
		t.Errorf("the log has no line of the trace %s", trace)
	}
}

// TestTrace_OneForEachJob follows one request through every service. The trace of the
// caller continues, the spans are one tree, and the tree has the queue waits.
func TestTrace_OneForEachJob(t *testing.T) {
	r := newReceiver(t)
	m := start(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL, "OTEL_BSP_SCHEDULE_DELAY=100"})
	const callerTrace, callerSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

	a := m.post(t, "?pipeline=text", samplePage(t), "traceparent", "00-"+callerTrace+"-"+callerSpan+"-01")
	if a.result.TraceID != callerTrace {
		t.Errorf("trace ID %s, want %s of the caller", a.result.TraceID, callerTrace)
	}
	// Each line is: child < parent ~ link, and a span is: service "name" KIND. The spans
	// of a message are below the request that waits, and linked to the span that has
	// published the message.
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
	eventually.Succeeds(t, responseTimeout, func() error {
		if spans = r.trace(callerTrace); len(spans) < len(want) {
			return fmt.Errorf("%d spans: %v", len(spans), spans)
		}
		return nil
	})
	slices.Sort(want)
	if got := spanTree(t, spans, callerSpan); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	checkStarts(t, spans)
}

// TestTrace_JobInParts follows an image with several parts. Its request has no trace.
func TestTrace_JobInParts(t *testing.T) {
	page := readRealdata(t, "rendered/page_en.png")
	r := newReceiver(t)
	m := start(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL, "OTEL_BSP_SCHEDULE_DELAY=100"})
	a := m.post(t, "?pipeline=text", page)
	switch {
	case a.result.Timings == nil:
		t.Fatalf("got %v: no timings", a)
	case a.result.Timings.Join <= 0:
		t.Fatalf("got %v: no time of the join", a)
	}
	var spans []span
	eventually.Succeeds(t, responseTimeout, func() error {
		spans = r.trace(a.result.TraceID)
		count := map[string]int{} // by name
		for _, s := range spans {
			count[s.Name]++
		}
		crops := count["process CROPS"]
		if crops < 2 {
			return fmt.Errorf("%d spans process CROPS, want at least 2: %v", crops, spans)
		}
		for name, want := range map[string]int{
			"reply": 1, "POST /v1/images": 1, "publish PARTS": crops, "process PARTS": crops,
		} {
			if count[name] != want {
				return fmt.Errorf("%d spans %s, want %d: %v", count[name], name, want, spans)
			}
		}
		return checkComplete(spans)
	})
	spanTree(t, spans, "")
}

// checkComplete returns an error when the parent of a span, or a span that it links to,
// has not been received. Services export their spans independently.
func checkComplete(spans []span) error {
	received := map[string]bool{}
	for _, s := range spans {
		received[string(s.SpanId)] = true
	}
	for _, s := range spans {
		if len(s.ParentSpanId) > 0 && !received[string(s.ParentSpanId)] {
			return fmt.Errorf("the parent of %v has not been received", s)
		}
		for _, l := range s.Links {
			if !received[string(l.SpanId)] {
				return fmt.Errorf("a span that %v links to has not been received", s)
			}
		}
	}
	return nil
}

// TestTrace_Report checks the trace of a report. It has one span that lasts until the
// last outcome, and no spans of images, which have their own traces.
func TestTrace_Report(t *testing.T) {
	r := newReceiver(t)
	m := start(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL, "OTEL_BSP_SCHEDULE_DELAY=100"})
	form, contentType := newForm(t, "image", samplePage(t), []byte("no image"))
	a := m.send(t, http.MethodPost, "/v1/images?pipeline=text", contentType, string(form))
	report := m.awaitReport(t, a.header.Get("Location"))
	id := strings.Split(a.header.Get("Traceparent"), "-")[1]
	count := func(name string) (n int) {
		for _, s := range r.trace(id) {
			if s.Name == name {
				n++
			}
		}
		return n
	}
	eventually.Succeeds(t, responseTimeout, func() error {
		for _, name := range []string{"report", "process REPORTS"} {
			if count(name) == 0 {
				return fmt.Errorf("no span %s in %v", name, r.trace(id))
			}
		}
		return nil
	})
	if n := count("report"); n != 1 {
		t.Errorf("the report has %d spans, want 1", n)
	}
	if n := count("process IMAGES"); n != 0 {
		t.Errorf("the trace of the report has %d spans process IMAGES, want 0", n)
	}
	traces := map[string]bool{id: true}
	for _, image := range report.Images {
		if traces[image.Result.TraceID] {
			t.Errorf("image %s shares the trace %s with another image or the report", image.ID, image.Result.TraceID)
		}
		traces[image.Result.TraceID] = true
	}
}

// spanTree returns a line for each span with its parent and its links. It checks that
// there is one root and no orphan, and that no span begins before its parent.
func spanTree(t *testing.T, spans []span, caller string) []string {
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
			linked, ok := byID[fmt.Sprintf("%x", l.SpanId)]
			if !ok {
				t.Errorf("%v links to an unknown span", s)
				continue
			}
			line += " ~ " + linked.Name
		}
		out = append(out, line)
	}
	if roots != 1 {
		t.Errorf("%d roots, want 1", roots)
	}
	slices.Sort(out)
	return out
}

// checkStarts fails the test when a span begins after the end of its parent. Jaeger
// omits such a span from the critical path and attributes its time to other spans.
func checkStarts(t *testing.T, spans []span) {
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
