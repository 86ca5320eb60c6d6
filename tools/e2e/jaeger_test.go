//go:build interop_jaeger

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// jaegerMesh is a mesh that has started its own Jaeger.
type jaegerMesh struct {
	*mesh
	jaeger string // address of Jaeger's HTTP API
}

// jaegerTrace is a trace as Jaeger returns it.
type jaegerTrace struct {
	TraceID   string
	Spans     []jaegerSpan
	Processes map[string]struct{ ServiceName string }
}

type jaegerSpan struct {
	SpanID        string
	OperationName string
	References    []struct{ RefType, TraceID, SpanID string }
	StartTime     int64 // in microseconds
	Duration      int64 // in microseconds
	Tags          []jaegerTag
	Logs          []struct{ Fields []jaegerTag }
	ProcessID     string
	Warnings      []string
}

type jaegerTag struct {
	Key   string
	Value any
}

func (s jaegerSpan) end() int64 { return s.StartTime + s.Duration }

// tag returns an attribute as text, or "" when the span does not have it.
func (s jaegerSpan) tag(key string) string { return tagValue(s.Tags, key) }

func tagValue(tags []jaegerTag, key string) string {
	for _, t := range tags {
		if t.Key == key {
			return fmt.Sprint(t.Value)
		}
	}
	return ""
}

// events returns the names of the events of a span.
func (s jaegerSpan) events() (names []string) {
	for _, l := range s.Logs {
		names = append(names, tagValue(l.Fields, "event"))
	}
	return names
}

// parent returns the ID of the parent of a span, or "" for a root.
func (s jaegerSpan) parent() string {
	for _, r := range s.References {
		if r.RefType == "CHILD_OF" {
			return r.SpanID
		}
	}
	return ""
}

// spansNamed returns the spans with a name, ordered by their start.
func (tr jaegerTrace) spansNamed(name string) (found []jaegerSpan) {
	for _, s := range tr.Spans {
		if s.OperationName == name {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b jaegerSpan) int { return int(a.StartTime - b.StartTime) })
	return found
}

func (tr jaegerTrace) root() jaegerSpan {
	for _, s := range tr.Spans {
		if s.parent() == "" {
			return s
		}
	}
	return jaegerSpan{}
}

func (tr jaegerTrace) services() (names []string) {
	for _, s := range tr.Spans {
		if name := tr.Processes[s.ProcessID].ServiceName; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// String returns the spans as an indented tree, ordered by their start.
func (tr jaegerTrace) String() string {
	spans := slices.SortedFunc(slices.Values(tr.Spans),
		func(a, b jaegerSpan) int { return int(a.StartTime - b.StartTime) })
	var b strings.Builder
	var draw func(parent, indent string)
	draw = func(parent, indent string) {
		for _, s := range spans {
			if s.parent() == parent {
				fmt.Fprintf(&b, "%s%s: %s +%d µs %d µs %v\n", indent, tr.Processes[s.ProcessID].ServiceName, s.OperationName,
					s.StartTime-spans[0].StartTime, s.Duration, s.events())
				draw(s.SpanID, indent+"  ")
			}
		}
	}
	draw("", "")
	return b.String()
}

// query sends a GET request to Jaeger's HTTP API.
func (m *jaegerMesh) query(path string) (traces []jaegerTrace, err error) {
	res, err := http.Get("http://" + m.jaeger + path)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var body struct{ Data []jaegerTrace }
	err = json.NewDecoder(res.Body).Decode(&body)
	return body.Data, err
}

// trace waits until a trace is complete and has the named spans, and returns it.
func (m *jaegerMesh) trace(t *testing.T, id string, names ...string) (tr jaegerTrace) {
	t.Helper()
	eventually.Succeeds(t, responseTimeout, func() error {
		traces, err := m.query("/api/traces/" + id)
		if err != nil {
			return err
		}
		if len(traces) != 1 {
			return fmt.Errorf("Jaeger returns %d traces for %s, want 1", len(traces), id)
		}
		tr = traces[0]
		for _, name := range names {
			if tr.spansNamed(name) == nil {
				return fmt.Errorf("trace %s has no span %s:\n%v", id, name, tr)
			}
		}
		if err := tr.check(); err != nil {
			return fmt.Errorf("%w in\n%v", err, tr)
		}
		return nil
	})
	return tr
}

// search waits for traces that begin in ingress and have an attribute.
func (m *jaegerMesh) search(t *testing.T, key, value string) []jaegerTrace {
	t.Helper()
	tags, err := json.Marshal(map[string]string{key: value})
	if err != nil {
		t.Fatal(err)
	}
	var found []jaegerTrace
	eventually.Succeeds(t, responseTimeout, func() error {
		var err error
		found, err = m.query("/api/traces?service=sightmesh-ingress&lookback=1h&limit=100&tags=" +
			url.QueryEscape(string(tags)))
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("no trace has %s=%s", key, value)
		}
		return err
	})
	return found
}

// check returns nil when a trace is complete: it has one root and no orphan, every
// published message of followed is processed after a queue wait and with a link to
// the span that published it, and no span has a warning of Jaeger.
func (tr jaegerTrace) check() error {
	var errs []error
	byID, roots := map[string]jaegerSpan{}, 0
	for _, s := range tr.Spans {
		byID[s.SpanID] = s
	}
	for _, s := range tr.Spans {
		switch _, ok := byID[s.parent()]; {
		case s.parent() == "":
			roots++
		case !ok:
			errs = append(errs, fmt.Errorf("%s is an orphan", s.OperationName))
		}
		if len(s.Warnings) > 0 {
			errs = append(errs, fmt.Errorf("%s has the warnings %v", s.OperationName, s.Warnings))
		}
		switch operation, stream, _ := strings.Cut(s.OperationName, " "); {
		case operation == "process" && !isLinkedToPublish(byID, s):
			errs = append(errs, fmt.Errorf("%s is not linked to the span that published its message", s.OperationName))
		case operation == "process" && stream != "reply" && !tr.followsQueueWait(s, stream):
			errs = append(errs, fmt.Errorf("%s has no queue wait before it", s.OperationName))
		case operation == "publish" && slices.Contains(followedStreams, stream) && !tr.isProcessed(s, stream):
			errs = append(errs, fmt.Errorf("the message of %s is not processed", s.OperationName))
		case operation == "lane" && s.tag("sightmesh.lane") == "":
			errs = append(errs, fmt.Errorf("a lane has no attribute sightmesh.lane: %v", s.Tags))
		}
	}
	if roots != 1 {
		errs = append(errs, fmt.Errorf("%d roots, want 1", roots))
	}
	return errors.Join(errs...)
}

// followedStreams are the streams for which every published message has a span of its
// processing.
var followedStreams = []string{"IMAGES", "CROPS", "PARTS", "FETCHES"}

// isLinkedToPublish reports whether a span is a child of, or linked to, the span that
// published its message.
func isLinkedToPublish(byID map[string]jaegerSpan, s jaegerSpan) bool {
	for _, r := range s.References {
		if from := byID[r.SpanID].OperationName; strings.HasPrefix(from, "publish ") || from == "reply" {
			return true
		}
	}
	return false
}

// followsQueueWait reports whether a queue wait ends when s begins.
func (tr jaegerTrace) followsQueueWait(s jaegerSpan, stream string) bool {
	return slices.ContainsFunc(tr.spansNamed("queue "+stream), func(q jaegerSpan) bool {
		return q.parent() == s.parent() && -2 <= q.end()-s.StartTime && q.end() <= s.StartTime
	})
}

// isProcessed reports whether the message that s has published is processed.
func (tr jaegerTrace) isProcessed(s jaegerSpan, stream string) bool {
	return slices.ContainsFunc(tr.spansNamed("process "+stream), func(p jaegerSpan) bool {
		for _, r := range p.References {
			if r.SpanID == s.SpanID {
				return true
			}
		}
		return false
	})
}

// checkChildStarts fails the test when a span begins after the end of its parent.
// Jaeger omits such spans from the critical path.
func checkChildStarts(t *testing.T, tr jaegerTrace) {
	t.Helper()
	for _, parent := range tr.Spans {
		for _, s := range tr.Spans {
			if s.parent() == parent.SpanID && s.StartTime > parent.end() {
				t.Errorf("%s begins %d µs after the end of %s", s.OperationName, s.StartTime-parent.end(), parent.OperationName)
			}
		}
	}
}

// criticalPath returns the names of the spans on the critical path, from the end of
// the root back to its begin, with the algorithm of Jaeger's pages: from the end of a
// span it goes to the child that ended last, and from the begin of that child to the
// child that ended last before it.
func (tr jaegerTrace) criticalPath() (names []string) {
	var follow func(s jaegerSpan)
	follow = func(s jaegerSpan) {
		for before := s.end() + 1; ; {
			var last jaegerSpan
			for _, c := range tr.Spans {
				if c.parent() == s.SpanID && c.StartTime < s.end() && c.end() < before && c.end() > last.end() {
					last = c
				}
			}
			if last.SpanID == "" {
				break
			}
			follow(last)
			before = last.StartTime
		}
		names = append(names, s.OperationName)
	}
	follow(tr.root())
	return names
}

// checkTags checks attributes of a span.
func checkTags(t *testing.T, s jaegerSpan, want map[string]string) {
	t.Helper()
	for key, value := range want {
		if got := s.tag(key); got != value {
			t.Errorf("%s has %s %q, want %q", s.OperationName, key, got, value)
		}
	}
}

var (
	allServices = []string{"sightmesh-classify", "sightmesh-detect", "sightmesh-ingress", "sightmesh-results"}
	// imageSpans are the names of the spans of every image whose client waits for its
	// result.
	imageSpans = []string{"publish IMAGES", "process IMAGES", "process RESULTS", "reply", "process reply"}
)

// TestJaeger sends images in every way that the mesh has, and reads their traces from
// Jaeger as an operator does.
func TestJaeger(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	r := newReceiver(t)
	env := append(webClients(), "OTEL_EXPORTER_OTLP_ENDPOINT="+r.URL, "OTEL_METRICS_EXPORTER=otlp",
		"OTEL_LOGS_EXPORTER=otlp",
		"OTEL_METRIC_EXPORT_INTERVAL=100", "OTEL_BLRP_SCHEDULE_DELAY=100")
	m := &jaegerMesh{start(t, env, "--jaeger", "--jaeger-http", addr), addr}
	t.Run("one part", m.testOnePart)
	t.Run("many parts", m.testManyParts)
	t.Run("failed", m.testFailed)
	t.Run("over NATS", m.testNATS)
	t.Run("report of uploads", m.testReport)
	t.Run("report of addresses", m.testReportOfURLs)
	t.Run("lane killed", m.testKilledLane)
	t.Run("redelivered", m.testRedelivered)
	t.Run("metrics and logs elsewhere", func(t *testing.T) { m.testMetricsAndLogs(t, r) })
}

// TestJaeger_AcceptsChartConfig validates the file that the chart puts unchanged into
// a ConfigMap.
func TestJaeger_AcceptsChartConfig(t *testing.T) {
	jaeger := filepath.Join(root(t), "bin/jaeger")
	if _, err := os.Stat(jaeger); err != nil {
		jaeger = "jaeger" // on the PATH, see make interop-jaeger
	}
	config, err := os.ReadFile(filepath.Join(root(t), "deploy/helm/sightmesh/files/jaeger.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	validate := func(config string) error {
		cmd := exec.Command(jaeger, "validate", "--config", "yaml:"+config)
		cmd.Env = append(os.Environ(), "JAEGER_LISTEN_HOST=0.0.0.0", "JAEGER_MAX_TRACES=5000")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	if err := validate(string(config)); err != nil {
		t.Error(err)
	}
	if validate(strings.ReplaceAll(string(config), "max_traces:", "most_traces:")) == nil {
		t.Error("Jaeger accepts an unknown field")
	}
}

// testMetricsAndLogs checks that Jaeger gets only the traces, and that the receiver of
// the environment gets metrics and logs.
func (m *jaegerMesh) testMetricsAndLogs(t *testing.T, r *receiver) {
	trace := m.post(t, "?pipeline=text", samplePage(t)[:5000]).problem.TraceID
	m.trace(t, trace, "process IMAGES")
	eventually.Succeeds(t, responseTimeout, func() error {
		if !r.hasMetric("sightmesh-detect", "sightmesh_lane_count") {
			return errors.New("detect has sent no metrics")
		}
		if len(r.traceLogs(trace)) == 0 {
			return fmt.Errorf("no log record of the trace %s was sent", trace)
		}
		return nil
	})
	if spans := r.trace(trace); len(spans) > 0 {
		t.Errorf("the receiver got spans: %v", spans)
	}
	if lines := m.stderr.matchingLines(regexp.MustCompile("OpenTelemetry reported an error")); len(lines) > 0 {
		t.Errorf("the exporter reports errors: %q", lines)
	}
}

func (m *jaegerMesh) testOnePart(t *testing.T) {
	page := samplePage(t)
	r := m.postDone(t, "?pipeline=text", page)
	tr := m.trace(t, r.TraceID, append(imageSpans, "POST /v1/images")...)
	checkChildStarts(t, tr)
	if got := tr.services(); !slices.Equal(got, allServices) {
		t.Errorf("the services are %v, want %v", got, allServices)
	}
	checkTags(t, tr.root(), map[string]string{
		"span.kind": "server", "http.request.method": "POST", "http.route": "/v1/images", "http.response.status_code": "200",
		"sightmesh.job": r.ID, "sightmesh.pipeline": "text", "sightmesh.priority": "interactive", "sightmesh.outcome": "done",
		"sightmesh.image.bytes": fmt.Sprint(len(page)), "sightmesh.regions": fmt.Sprint(len(r.Regions)),
	})
	for _, name := range []string{"lane", "infer"} {
		if n := len(tr.spansNamed(name)); n != 2 {
			t.Errorf("%d spans %s, want 2: one of detect and one of classify", n, name)
		}
	}
	// These spans are on the critical path only sometimes. The result and the
	// acknowledgement of its publish travel at the same time, and either may take longer.
	// infer begins when decode ends, and admit may begin when the body was read.
	path := slices.DeleteFunc(tr.criticalPath(), func(name string) bool {
		return slices.Contains([]string{"publish RESULTS", "queue RESULTS", "process RESULTS", "reply", "process reply",
			"decode", "read body"}, name)
	})
	want := []string{
		"infer", "lane", "process CROPS", "queue CROPS", "infer", "lane", "process IMAGES", "queue IMAGES",
		"admit", "POST /v1/images",
	}
	if !slices.Equal(path, want) {
		t.Errorf("the critical path is %v, want %v in\n%v", path, want, tr)
	}
}

func (m *jaegerMesh) testManyParts(t *testing.T) {
	r := m.postDone(t, "?pipeline=text", readRealdata(t, "rendered/page_en.png"))
	tr := m.trace(t, r.TraceID, append(imageSpans, "POST /v1/images", "process PARTS")...)
	parts := len(tr.spansNamed("publish CROPS"))
	if parts < 2 {
		t.Fatalf("the image has %d parts, want several", parts)
	}
	if n := len(tr.spansNamed("process CROPS")); n != parts {
		t.Errorf("%d of %d parts were processed", n, parts)
	}
	t.Logf("the trace is\n%v", tr)
}

func (m *jaegerMesh) testFailed(t *testing.T) {
	a := m.post(t, "?pipeline=text", samplePage(t)[:5000])
	if a.problem.Code != v1.Damaged {
		t.Fatalf("got %v, want %s", a, v1.Damaged)
	}
	tr := m.trace(t, a.problem.TraceID, append(imageSpans, "POST /v1/images")...)
	checkChildStarts(t, tr)
	checkTags(t, tr.root(), map[string]string{
		"error": "", "error.type": "", "sightmesh.problem": "damaged", "sightmesh.outcome": "failed",
		"http.response.status_code": "422",
	})
	for _, name := range []string{"process IMAGES", "lane"} {
		spans := tr.spansNamed(name)
		if len(spans) != 1 {
			t.Fatalf("%d spans %s, want 1", len(spans), name)
		}
		checkTags(t, spans[0], map[string]string{"error": "true", "error.type": "damaged"})
		if !slices.Contains(spans[0].events(), "exception") {
			t.Errorf("%s has the events %v, want an exception", name, spans[0].events())
		}
	}
}

func (m *jaegerMesh) testNATS(t *testing.T) {
	nc := m.connect(t)
	msg, err := nc.Request(subject.Analyze("text"), samplePage(t), responseTimeout)
	if err != nil {
		t.Fatal(err)
	}
	var r v1.Result
	if err := json.Unmarshal(msg.Data, &r); err != nil {
		t.Fatal(err)
	}
	tr := m.trace(t, r.TraceID, append(imageSpans, "analyze")...)
	checkChildStarts(t, tr)
	checkTags(t, tr.root(), map[string]string{
		"span.kind": "server", "messaging.system": "nats", "messaging.operation.name": "analyze",
		"messaging.destination.name": subject.Analyze("text"),
		"sightmesh.job":              r.ID, "sightmesh.pipeline": "text", "sightmesh.priority": "interactive",
		"sightmesh.outcome": "done",
	})
	switch found := m.search(t, "sightmesh.job", r.ID); {
	case len(found) != 1:
		t.Errorf("a search for the job finds %d traces, want 1", len(found))
	case found[0].TraceID != r.TraceID:
		t.Errorf("a search for the job finds the trace %s, want %s", found[0].TraceID, r.TraceID)
	}
	if msg, err = nc.Request(subject.Analyze("text"), samplePage(t)[:5000], responseTimeout); err != nil {
		t.Fatal(err)
	}
	var p v1.Problem
	if err := json.Unmarshal(msg.Data, &p); err != nil {
		t.Fatal(err)
	}
	tr = m.trace(t, p.TraceID, append(imageSpans, "analyze")...)
	checkTags(t, tr.root(), map[string]string{"error": "", "error.type": "", "sightmesh.problem": "damaged",
		"sightmesh.outcome": "failed"})
}

func (m *jaegerMesh) testReport(t *testing.T) {
	form, contentType := newForm(t, "image", samplePage(t), samplePage(t), []byte("no image"))
	a := m.send(t, http.MethodPost, "/v1/images?pipeline=text", contentType, string(form))
	m.checkReport(t, a, "image", "", v1.Counts{Total: 3, Done: 2, Failed: 1})
}

func (m *jaegerMesh) testReportOfURLs(t *testing.T) {
	page := samplePage(t)
	web, _ := serveOn(t, webHost, func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })
	body := fmt.Sprintf(`{"images":[{"url":"%s/1.png"},{"url":"%s/2.png"}]}`, web, web)
	a := m.send(t, http.MethodPost, "/v1/reports?pipeline=text", "application/json", body)
	m.checkReport(t, a, "publish FETCHES", "fetch", v1.Counts{Total: 2, Done: 2})
}

// checkReport reads the trace of a report and the traces of its images. root is the
// name of the root span of an image, and has the name of another span, or "".
func (m *jaegerMesh) checkReport(t *testing.T, a response, root, has string, want v1.Counts) {
	t.Helper()
	report := m.awaitReport(t, a.header.Get("Location"))
	if report.Counts != want {
		t.Errorf("the report has the counts %+v, want %+v", report.Counts, want)
	}
	id := strings.Split(a.header.Get("Traceparent"), "-")[1]
	tr := m.trace(t, id, "report", "process REPORTS")
	if n := len(tr.spansNamed("report")); n != 1 {
		t.Errorf("%d spans report, want 1", n)
	}
	span := tr.spansNamed("report")[0]
	checkTags(t, span, map[string]string{
		"sightmesh.report": report.ID, "sightmesh.report.images": fmt.Sprint(want.Total),
		"sightmesh.report.failed": fmt.Sprint(want.Failed),
	})
	if n := len(tr.Spans); n > 20 {
		t.Errorf("the trace of the report has %d spans, want at most 20, without those of images:\n%v", n, tr)
	}
	for n, image := range report.Images {
		tr := m.trace(t, image.Result.TraceID, "process RESULTS")
		if tr.root().OperationName != root {
			t.Errorf("the root of image %d is %q, want %q", n, tr.root().OperationName, root)
		}
		if has != "" && tr.spansNamed(has) == nil {
			t.Errorf("image %d has no span %s:\n%v", n, has, tr)
		}
		linked := false
		for _, r := range tr.root().References {
			linked = linked || r.TraceID == id
		}
		if !linked {
			t.Errorf("image %d is not linked to the report: %v", n, tr.root().References)
		}
		for _, s := range tr.spansNamed("process RESULTS") {
			if s.tag("sightmesh.report") != report.ID {
				t.Errorf("image %d: %s has the report %q, want %q", n, s.OperationName, s.tag("sightmesh.report"), report.ID)
			}
			if s.StartTime > span.end() {
				t.Errorf("the result of image %d was processed after the end of the report", n)
			}
		}
	}
}

// occupyLanes suspends the lanes of detect, and sends an image, which one of them gets.
func (m *jaegerMesh) occupyLanes(t *testing.T) (detect int, lanes []int, a response) {
	t.Helper()
	detect = m.pids(t, "detect")[0]
	lanes = children(t, detect)["detect"]
	for _, lane := range lanes {
		if err := syscall.Kill(lane, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	a = m.post(t, "?pipeline=text", samplePage(t), "Prefer", "respond-async")
	eventually.Succeeds(t, responseTimeout, func() error {
		if now := m.get(t, a.header.Get("Location")).mustDecode(t); now.result.Status != v1.Running {
			return pendingError{now}
		}
		return nil
	})
	return detect, lanes, a
}

// outcome waits for the outcome of an image that was accepted.
func (m *jaegerMesh) outcome(t *testing.T, a response) (r v1.Result) {
	t.Helper()
	eventually.Succeeds(t, responseTimeout, func() error {
		now := m.get(t, a.header.Get("Location")).mustDecode(t)
		if r = now.result; !r.Final() {
			return pendingError{now}
		}
		return nil
	})
	return r
}

func (m *jaegerMesh) testKilledLane(t *testing.T) {
	_, lanes, a := m.occupyLanes(t)
	for _, lane := range lanes {
		kill(t, lane)
	}
	r := m.outcome(t, a)
	if r.Problem == nil {
		t.Fatalf("the outcome has no problem, want %s: %+v", v1.LaneDied, r)
	}
	if r.Problem.Code != v1.LaneDied {
		t.Fatalf("the outcome has the problem %v, want %s", r.Problem, v1.LaneDied)
	}
	tr := m.trace(t, r.TraceID, "publish RESULTS")
	lane := tr.spansNamed("lane")
	if len(lane) != 1 {
		t.Fatalf("%d spans lane, want 1:\n%v", len(lane), tr)
	}
	checkTags(t, lane[0], map[string]string{"error": "true", "error.type": "lane-died"})
	if !slices.Contains(lane[0].events(), "restart") {
		t.Errorf("the lane has the events %v, want a restart", lane[0].events())
	}
}

func (m *jaegerMesh) testRedelivered(t *testing.T) {
	detect, _, a := m.occupyLanes(t)
	kill(t, detect) // its lanes end as well
	r := m.outcome(t, a)
	if r.Status != v1.Done {
		t.Fatalf("the outcome is %+v, want that the restarted worker processes the image", r)
	}
	tr := m.trace(t, r.TraceID, "process RESULTS")
	work := tr.spansNamed("process IMAGES")
	if len(work) == 0 {
		t.Fatalf("no span process IMAGES:\n%v", tr)
	}
	if got := work[len(work)-1].tag("sightmesh.deliveries"); got == "1" || got == "" {
		t.Errorf("the image was processed at delivery %q, want 2 or more", got)
	}
	t.Logf("the trace is\n%v", tr)
}
