package reportintake

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/spantest"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

var text = pipeline.Pipeline{Name: "text", Deadline: time.Minute, BulkDeadline: time.Hour}

// bench is Reports with a real server. A report has at most 3 images, and the backlog 4.
type bench struct {
	*Reports
	nc *nats.Conn // of the other services
	js jetstream.JetStream
}

func newBench(t testing.TB) bench {
	t.Helper()
	s := bustest.Start(t, "text")
	return newBenchOn(t, s, s)
}

// newBenchOn returns a bench that publishes through another server than s, such as a proxy
// in front of s.
func newBenchOn(t testing.TB, s, publishThrough *bustest.Server) bench {
	t.Helper()
	nc := s.Connect(t)
	through, err := jetstream.New(publishThrough.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	log, pipelines := slog.New(slog.DiscardHandler), []pipeline.Pipeline{text}
	publisher := bus.NewPublisher(through, clock.New(time.Now), sdktrace.NewTracerProvider())
	i, err := intake.New(t.Context(), intake.Config{
		Conn: nc, JetStream: js, Clock: clock.New(time.Now), Publisher: publisher,
		Pipelines: pipelines, Limits: imagefile.DefaultLimits(),
		Admission: admission.New(nc, js, pipelines, admission.MaxWait{}, log, prometheus.NewRegistry()),
		Stopping:  context.Background(), Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	r := New(Config{JetStream: js, Clock: clock.New(time.Now), Intake: i, MaxImages: 3, MaxBacklog: 4})
	return bench{r, s.Connect(t), js}
}

// newServedBench returns a bench with a worker for the pipeline text.
func newServedBench(t *testing.T) bench {
	t.Helper()
	b := newBench(t)
	b.startWorker(t)
	return b
}

// startWorker replies to status requests as a worker of the pipeline text.
func (b bench) startWorker(t *testing.T) {
	t.Helper()
	sub, err := b.nc.Subscribe(subject.Status(string(subject.Detect)), func(m *nats.Msg) {
		m.Respond([]byte(`{"service":"detect","lanes":1,"pipelines":{"text":{"ready":true}}}`))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func smallImage(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// lastMessage returns the last message of a subject.
func (b bench) lastMessage(t *testing.T, stream, subj string) *jetstream.RawStreamMsg {
	t.Helper()
	s, err := b.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(t.Context(), subj)
	if err != nil {
		t.Fatalf("%s: %v", subj, err)
	}
	return m
}

// messageCount returns how many messages a stream has.
func (b bench) messageCount(t *testing.T, stream string) uint64 {
	t.Helper()
	s, err := b.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func problemCode(err error) v1.Code {
	var p *v1.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

// newSources returns n images to fetch.
func newSources(n int) []v1.ReportSource {
	out := make([]v1.ReportSource, n)
	for i := range out {
		out[i].URL = "https://client.example/image"
	}
	return out
}

func TestReports_SubmitCreatesAJobForEachUpload(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	report, err := b.Submit(t.Context(), Request{
		Pipeline: text, Metadata: map[string]string{"a": "b"},
		Uploads: []Upload{{Image: smallImage(t)}, {Image: []byte("no image")}, {Err: v1.NewProblem(v1.TooLarge, "")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (v1.Counts{Total: 3}); report.Counts != want {
		t.Errorf("the counts are %+v, want %+v", report.Counts, want)
	}
	if report.Status != v1.Running {
		t.Errorf("the report is %s, want %s", report.Status, v1.Running)
	}
	if got := report.Metadata["a"]; got != "b" {
		t.Errorf("the metadata a is %q, want b", got)
	}
	item := func(n int) v1.ReportItem { return v1.ReportItem{Report: report.ID, N: n, Total: 3} }
	job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: item(0).Job()}
	m := b.lastMessage(t, streams.Images, subject.Images(job))
	if !bytes.Equal(m.Data, smallImage(t)) {
		t.Errorf("%d other bytes are stored", len(m.Data))
	}
	if got := m.Header.Get(v1.HeaderReport); got != item(0).String() {
		t.Errorf("%s is %q, want %q", v1.HeaderReport, got, item(0))
	}
	for n, code := range map[int]v1.Code{1: v1.UnsupportedType, 2: v1.TooLarge} {
		var r v1.Result
		subj := subject.Results("text", item(n).Job())
		if _, err := bus.ReadLast(t.Context(), b.js, streams.Results, subj, &r); err != nil {
			t.Fatal(err)
		}
		if r.Problem == nil {
			t.Errorf("image %d: the result %+v has no problem", n, r)
		} else if r.Problem.Code != code {
			t.Errorf("image %d: the code is %s, want %s", n, r.Problem.Code, code)
		}
	}
	if n := b.messageCount(t, streams.Images); n != 1 {
		t.Errorf("%d images are stored, want 1", n)
	}
	stored, err := b.Summary(t.Context(), report.ID)
	if err != nil {
		t.Fatal(err)
	}
	if stored.Counts.Total != 3 {
		t.Errorf("the stored report has %d images, want 3", stored.Counts.Total)
	}
}

// TestReports_SubmitStartsATraceForEachImage also checks the link to the trace of the report.
func TestReports_SubmitStartsATraceForEachImage(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	spans := tracetest.NewSpanRecorder()
	ctx, request := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("t").Start(t.Context(), "request")
	uploads := []Upload{{Image: smallImage(t)}, {Image: []byte("no image")}}
	report, err := b.Submit(ctx, Request{Pipeline: text, Uploads: uploads})
	if err != nil {
		t.Fatal(err)
	}
	problems := []string{"", string(v1.UnsupportedType)}
	ended := spans.Ended()
	if len(ended) != 2 {
		t.Fatalf("%d images have a span, want 2", len(ended))
	}
	for n, span := range ended {
		if span.SpanContext().TraceID() == request.SpanContext().TraceID() {
			t.Errorf("image %d is in the trace of the report", n)
		}
		links := span.Links()
		if len(links) != 1 {
			t.Fatalf("image %d has the links %+v, want one", n, links)
		}
		if got, want := links[0].SpanContext.SpanID(), request.SpanContext().SpanID(); got != want {
			t.Errorf("image %d is linked to span %s, want %s of the report", n, got, want)
		}
		attrs := spantest.Attributes(span.Attributes())
		if got := attrs["sightmesh.report"]; got != report.ID {
			t.Errorf("image %d is of report %q, want %s", n, got, report.ID)
		}
		if got := attrs["sightmesh.problem"]; got != problems[n] {
			t.Errorf("image %d has the problem %q, want %q", n, got, problems[n])
		}
	}
	item := v1.ReportItem{Report: report.ID, N: 0, Total: 2}
	job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: item.Job()}
	header := b.lastMessage(t, streams.Images, subject.Images(job)).Header
	sent := trace.SpanContextFromContext(telemetry.Extract(t.Context(), header))
	if got, want := sent.TraceID(), ended[0].SpanContext().TraceID(); got != want {
		t.Errorf("the stored image is in trace %s, want %s", got, want)
	}
}

func TestReports_SubmitFindsTheReportOfAKey(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	first, err := b.Submit(t.Context(), Request{Pipeline: text, Key: "k1", Sources: newSources(2)})
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.Submit(t.Context(), Request{Pipeline: text, Key: "k1", Sources: newSources(2)})
	if err != nil {
		t.Fatal(err)
	}
	if again.ID != first.ID {
		t.Errorf("the same request became %s, want %s", again.ID, first.ID)
	}
	if n := b.messageCount(t, streams.Reports); n != 1 {
		t.Errorf("%d reports are stored, want 1", n)
	}
	_, err = b.Submit(t.Context(), Request{Pipeline: text, Key: "k1", Sources: newSources(3)})
	if problemCode(err) != v1.KeyConflict {
		t.Errorf("other images: %v, want %s", err, v1.KeyConflict)
	}
}

// TestReports_SubmitStoresTheReportOfAClaimedKey submits a report whose key was claimed by a
// request that was rejected later.
func TestReports_SubmitStoresTheReportOfAClaimedKey(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	req := Request{Pipeline: text, Key: "k1", Sources: newSources(2)}
	key := intake.NewKey("k1", v1.HeaderKey, "text", subject.Bulk, req.fingerprint())
	if _, err := b.cfg.Intake.Claim(t.Context(), key, "first"); err != nil {
		t.Fatal(err)
	}
	report, err := b.Submit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if report.ID != "first" {
		t.Errorf("the report is %s, want first, the ID of the key", report.ID)
	}
	b.lastMessage(t, streams.Reports, subject.Report("first"))
}

// TestReports_SubmitLimitsTheBacklogOfConcurrentReports checks that stored reports count for
// the backlog before they are expanded.
func TestReports_SubmitLimitsTheBacklogOfConcurrentReports(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	const reports, images = 20, 2
	var accepted atomic.Int64
	var all sync.WaitGroup
	for range reports {
		all.Go(func() {
			_, err := b.Submit(t.Context(), Request{Pipeline: text, Sources: newSources(images)})
			if err == nil {
				accepted.Add(1)
			} else if problemCode(err) != v1.Overloaded {
				t.Errorf("got %v, want %s", err, v1.Overloaded)
			}
		})
	}
	all.Wait()
	if got, want := int(accepted.Load()), b.cfg.MaxBacklog/images; got != want {
		t.Errorf("%d reports were accepted, want %d", got, want)
	}
}

func TestReports_SubmitRejects(t *testing.T) {
	t.Parallel()
	served, unserved := newServedBench(t), newBench(t)
	for range 3 {
		if _, err := served.js.Publish(t.Context(), subject.Fetches("text", intake.NewID()), nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		bench   bench
		request Request
		code    v1.Code
		after   time.Duration
	}{
		"no images":          {served, Request{}, v1.InvalidBody, 0},
		"too many images":    {served, Request{Sources: newSources(4)}, v1.TooManyImages, 0},
		"too long a backlog": {served, Request{Sources: newSources(2)}, v1.Overloaded, 30 * time.Second},
		"no worker":          {unserved, Request{Sources: newSources(2)}, v1.NoWorker, 5 * time.Second},
		"uploads, no worker": {unserved, Request{Uploads: []Upload{{Image: smallImage(t)}}}, v1.NoWorker, 5 * time.Second},
	} {
		c.request.Pipeline = text
		_, err := c.bench.Submit(t.Context(), c.request)
		if problemCode(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
		if after, _ := retry.Delay(err); after != c.after {
			t.Errorf("%s: the retry delay is %v, want %v", name, after, c.after)
		}
	}
	for _, b := range []bench{served, unserved} {
		if n := b.messageCount(t, streams.Reports) + b.messageCount(t, streams.Images); n != 0 {
			t.Errorf("%d messages of rejected reports are stored", n)
		}
	}
}

func TestReports_SummaryOfAMissingReport(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if _, err := b.Summary(t.Context(), "none"); problemCode(err) != v1.UnknownReport {
		t.Errorf("got %v, want %s", err, v1.UnknownReport)
	}
	if err := b.js.DeleteStream(t.Context(), streams.Reports); err != nil {
		t.Fatal(err)
	}
	_, err := b.Summary(t.Context(), "none")
	if problemCode(err) != v1.Unavailable {
		t.Errorf("without the stream: %v, want %s", err, v1.Unavailable)
	}
	if after, _ := retry.Delay(err); after != intake.RetryDelay {
		t.Errorf("without the stream: the retry delay is %v, want %v", after, intake.RetryDelay)
	}
}

func TestReports_SubmitStoresOnceWhenTheAcknowledgementIsLate(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "text")
	p := bustest.StartProxy(t, s)
	b := newBenchOn(t, s, &bustest.Server{URL: p.URL})
	b.startWorker(t)
	p.PauseReplies(true)
	time.AfterFunc(2*time.Second, func() { p.PauseReplies(false) })
	uploads := []Upload{{Image: smallImage(t)}, {Image: smallImage(t)}}
	if _, err := b.Submit(t.Context(), Request{Pipeline: text, Uploads: uploads}); err != nil {
		t.Error(err)
	}
	if n := b.messageCount(t, streams.Images); n != 2 {
		t.Errorf("%d images are stored, want 2", n)
	}
	if n := b.messageCount(t, streams.Reports); n != 1 {
		t.Errorf("%d reports are stored, want 1", n)
	}
}

func TestReports_SubmitReturnsTheIDOfAReportThatMayBeStored(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "text")
	p := bustest.StartProxy(t, s)
	b := newBenchOn(t, s, &bustest.Server{URL: p.URL})
	b.startWorker(t)
	p.PauseReplies(true)
	_, err := b.Submit(t.Context(), Request{Pipeline: text, Sources: newSources(2)})
	p.PauseReplies(false)
	var problem *v1.Problem
	if !errors.As(err, &problem) {
		t.Fatalf("got %v, want a problem", err)
	}
	if problem.Code != v1.Unavailable {
		t.Errorf("got the code %s, want %s", problem.Code, v1.Unavailable)
	}
	if problem.Job == "" {
		t.Fatal("the problem has no id")
	}
	if _, err := b.Summary(t.Context(), problem.Job); err != nil {
		t.Errorf("the report of the problem: %v", err)
	}
}

// changeStream changes the configuration of a stream.
func (b bench) changeStream(t *testing.T, stream string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	s, err := b.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	change(&cfg)
	if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// TestReports_SubmitListsTheImagesOfARejectedReport covers reports that are not stored although
// images of them are, or may be.
func TestReports_SubmitListsTheImagesOfARejectedReport(t *testing.T) {
	t.Parallel()
	good, bad := Upload{Image: smallImage(t)}, Upload{Image: []byte("no image")}
	full := func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 }
	unacknowledged := func(c *jetstream.StreamConfig) { c.NoAck = true }
	for name, c := range map[string]struct {
		stream  string
		change  func(*jetstream.StreamConfig)
		uploads []Upload
		code    v1.Code
		want    []v1.Status // of the images, in order; "" for one that may be accepted
	}{
		"an acknowledgement is lost": {streams.Images, unacknowledged, []Upload{bad, good, good},
			v1.Unavailable, []v1.Status{v1.Failed, ""}},
		"the queue is full": {streams.Images, full, []Upload{good, good, good},
			v1.Overloaded, []v1.Status{v1.Queued}},
		"the stream of reports is full": {streams.Reports, full, []Upload{good, bad},
			v1.Overloaded, []v1.Status{v1.Queued, v1.Failed}},
		"nothing was stored": {streams.Images, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1 }, []Upload{good},
			v1.Internal, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newServedBench(t)
			if c.stream == streams.Reports {
				if err := b.store(t.Context(), v1.Manifest{ID: "other"}); err != nil {
					t.Fatal(err)
				}
			}
			b.changeStream(t, c.stream, c.change)
			_, err := b.Submit(t.Context(), Request{Pipeline: text, Uploads: c.uploads})
			var p *v1.Problem
			if !errors.As(err, &p) {
				t.Fatalf("got %v, want a problem", err)
			}
			if p.Code != c.code {
				t.Errorf("the code is %s, want %s", p.Code, c.code)
			}
			if len(p.Images) != len(c.want) {
				t.Fatalf("the problem names %+v, want images that are %q", p.Images, c.want)
			}
			for i, image := range p.Images {
				if image.Status != c.want[i] {
					t.Errorf("image %d is %q, want %q", i, image.Status, c.want[i])
				}
				if c.uploads[i].Image[0] == good.Image[0] {
					job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: image.ID}
					b.lastMessage(t, streams.Images, subject.Images(job))
				} else {
					b.lastMessage(t, streams.Results, subject.Results("text", image.ID))
				}
			}
		})
	}
}
