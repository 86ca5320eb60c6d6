package natsapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/ingress/internal/body"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/spantest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testTimeout = time.Minute // only for tests that would hang

// bench is the endpoint with a real server. The pipeline text has a worker, and faces has
// none.
type bench struct {
	*Analyze
	nc    *nats.Conn // of the client and of the other services
	js    jetstream.JetStream
	spans *tracetest.SpanRecorder
}

func newBench(t *testing.T, wait time.Duration, concurrency int) bench {
	t.Helper()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	return newBenchOn(t, s, s, wait, concurrency)
}

// newBenchOn returns a bench that stores images through another server than s, such as a proxy
// in front of s.
func newBenchOn(t *testing.T, s, publishThrough *bustest.Server, wait time.Duration, concurrency int) bench {
	t.Helper()
	through, err := jetstream.New(publishThrough.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	nc, others := s.Connect(t), s.Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	spans := tracetest.NewSpanRecorder()
	log, tracers := slog.New(slog.DiscardHandler), sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	pipelines := []pipeline.Pipeline{{Name: "text", Deadline: time.Minute}, {Name: "faces", Deadline: time.Minute}}
	i, err := intake.New(t.Context(), intake.Config{
		Conn: nc, JetStream: js, Clock: clock.New(time.Now),
		Publisher: bus.NewPublisher(through, clock.New(time.Now), tracers), Client: c,
		Pipelines: pipelines, Limits: imagefile.DefaultLimits(), Webhooks: true,
		Admission: admission.New(nc, js, pipelines, admission.MaxWait{}, log, prometheus.NewRegistry()),
		Stopping:  context.Background(), Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	svc := bus.NewService(nc, bus.ServiceConfig{Name: "ingress", Version: "1.0.0"})
	if err := svc.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { svc.Stop() })
	a, err := New(Config{
		Conn: nc, Intake: i, Limits: imagefile.DefaultLimits(), Wait: wait, MaxWait: testTimeout,
		Concurrency: concurrency, Memory: body.NewMemory(1<<10, 1<<10), Tracers: tracers, Logger: log,
	}, svc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	status := []byte(`{"service":"detect","lanes":1,"pipelines":{"text":{"ready":true}}}`)
	_, err = others.Subscribe(subject.Status(string(subject.Detect)), func(m *nats.Msg) { m.Respond(status) })
	if err != nil {
		t.Fatal(err)
	}
	for _, conn := range []*nats.Conn{nc, others} {
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	return bench{a, others, js, spans}
}

func (b bench) request(t *testing.T, pipeline string, body []byte) *nats.Msg {
	t.Helper()
	return b.requestWith(t, pipeline, nil, body)
}

func (b bench) requestWith(t *testing.T, pipeline string, h nats.Header, body []byte) *nats.Msg {
	t.Helper()
	m, err := b.nc.RequestMsg(&nats.Msg{Subject: subject.Analyze(pipeline), Header: h, Data: body}, testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newImage(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// checkRejection fails the test unless m is a problem with this code and retry delay.
func checkRejection(t *testing.T, m *nats.Msg, code v1.Code, retryAfter string) (p v1.Problem) {
	t.Helper()
	if err := json.Unmarshal(m.Data, &p); err != nil {
		t.Fatal(err)
	}
	if p.Code != code {
		t.Errorf("the problem is %+v, want %s", p, code)
	}
	if m.Header.Get(micro.ErrorCodeHeader) == "" {
		t.Errorf("the reply has no header %s: %v", micro.ErrorCodeHeader, m.Header)
	}
	if got := m.Header.Get("Retry-After"); got != retryAfter {
		t.Errorf("%s: Retry-After is %q, want %q", code, got, retryAfter)
	}
	return p
}

func TestAnalyze_RejectsWithAProblem(t *testing.T) {
	t.Parallel()
	b := newBench(t, testTimeout, 8)
	for _, c := range []struct {
		pipeline   string
		body       []byte
		code       v1.Code
		retryAfter string
	}{
		{"cats", newImage(t), v1.UnknownPipeline, ""},
		{"text", []byte("no image"), v1.UnsupportedType, ""},
		{"text", nil, v1.EmptyBody, ""},
		{"faces", newImage(t), v1.NoWorker, "5"},
	} {
		t.Run(string(c.code), func(t *testing.T) {
			if p := checkRejection(t, b.request(t, c.pipeline, c.body), c.code, c.retryAfter); p.TraceID == "" {
				t.Error("the problem has no trace ID")
			}
		})
	}
}

// awaitSpan waits until the span of request n has ended, and returns it with its attributes.
func (b bench) awaitSpan(t *testing.T, n int) (sdktrace.ReadOnlySpan, map[attribute.Key]string) {
	t.Helper()
	var roots []sdktrace.ReadOnlySpan
	eventually.Succeeds(t, testTimeout, func() error {
		roots = nil
		for _, s := range b.spans.Ended() {
			if s.SpanKind() == trace.SpanKindServer {
				roots = append(roots, s)
			}
		}
		if len(roots) <= n {
			return fmt.Errorf("%d spans of requests have ended, want at least %d", len(roots), n+1)
		}
		return nil
	})
	return roots[n], spantest.Attributes(roots[n].Attributes())
}

// TestAnalyze_SpanAttributes checks that the span has the attributes of an HTTP request.
func TestAnalyze_SpanAttributes(t *testing.T) {
	t.Parallel()
	b := newBench(t, time.Millisecond, 8)
	var r v1.Result
	image := newImage(t)
	if err := json.Unmarshal(b.request(t, "text", image).Data, &r); err != nil {
		t.Fatal(err)
	}
	_, attrs := b.awaitSpan(t, 0)
	size := strconv.Itoa(len(image))
	for key, want := range map[attribute.Key]string{
		"sightmesh.job": r.ID, "sightmesh.pipeline": "text", "sightmesh.priority": "interactive",
		"sightmesh.outcome": "queued", "sightmesh.image.bytes": size, "sightmesh.image.width": "8",
		"sightmesh.image.height": "8", "sightmesh.image.pixels": "64",
		"messaging.system": "nats", "messaging.operation.name": "analyze", "messaging.operation.type": "process",
		"messaging.destination.name": subject.Analyze("text"), "messaging.destination.template": subject.AllAnalyze(),
		"messaging.message.body.size": size, "server.address": "127.0.0.1",
	} {
		if got := attrs[key]; got != want {
			t.Errorf("the span has %s %q, want %q", key, got, want)
		}
	}
}

func TestAnalyze_SpanStatus(t *testing.T) {
	t.Parallel()
	b := newBench(t, testTimeout, 8)
	for n, tt := range []struct {
		pipeline string
		body     []byte
		code     v1.Code
		failed   bool
	}{
		{"text", []byte("no image"), v1.UnsupportedType, false},
		{"faces", newImage(t), v1.NoWorker, true},
	} {
		checkRejection(t, b.request(t, tt.pipeline, tt.body), tt.code, map[bool]string{true: "5"}[tt.failed])
		span, attrs := b.awaitSpan(t, n)
		if got := attrs["sightmesh.problem"]; got != string(tt.code) {
			t.Errorf("the problem is %q, want %s", got, tt.code)
		}
		if got := span.Status().Code == codes.Error; got != tt.failed {
			t.Errorf("%s: the status of the span is %v", tt.code, span.Status().Code)
		}
		if got := attrs["error.type"] == string(tt.code); got != tt.failed {
			t.Errorf("%s: error.type is %q", tt.code, attrs["error.type"])
		}
	}
}

func TestAnalyze_RejectsWhenTheQueueIsFull(t *testing.T) {
	t.Parallel()
	b := newBench(t, time.Millisecond, 8)
	s, err := b.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxMsgs = 1
	if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	b.request(t, "text", newImage(t))
	checkRejection(t, b.request(t, "text", newImage(t)), v1.Overloaded, "5")
}

func TestAnalyze_RepliesWithTheState(t *testing.T) {
	t.Parallel()
	b := newBench(t, time.Millisecond, 8)
	var r v1.Result
	if err := json.Unmarshal(b.request(t, "text", newImage(t)).Data, &r); err != nil {
		t.Fatal(err)
	}
	checkQueued(t, r)
}

// checkQueued fails the test unless r is the state of a queued job.
func checkQueued(t *testing.T, r v1.Result) {
	t.Helper()
	if r.Status != v1.Queued {
		t.Errorf("the job is %s, want %s", r.Status, v1.Queued)
	}
	if !subject.ValidJob(r.ID) {
		t.Errorf("%q is no valid ID", r.ID)
	}
}

func TestAnalyze_RejectsWhileBusyOrStopping(t *testing.T) {
	t.Parallel()
	b := newBench(t, testTimeout, 1)
	detect := streams.WorkConsumer(subject.Detect, "text", subject.Interactive)
	consumer, err := b.js.Consumer(t.Context(), streams.Images, detect)
	if err != nil {
		t.Fatal(err)
	}
	first := make(chan *nats.Msg, 1)
	if _, err := b.nc.Subscribe("first", func(m *nats.Msg) { first <- m }); err != nil {
		t.Fatal(err)
	}
	if err := b.nc.PublishRequest(subject.Analyze("text"), "first", newImage(t)); err != nil {
		t.Fatal(err)
	}
	image, err := consumer.Next(jetstream.FetchMaxWait(testTimeout)) // the first request waits for its result
	if err != nil {
		t.Fatal(err)
	}
	if p := checkRejection(t, b.request(t, "text", newImage(t)), v1.Overloaded, "1"); p.TraceID == "" {
		t.Error("the problem of the second request has no trace ID")
	}
	if err := b.nc.Publish(image.Headers().Get(v1.HeaderReply), []byte(`{"id":"j1","status":"done"}`)); err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-first:
		if !bytes.Contains(m.Data, []byte(`"done"`)) {
			t.Errorf("the first request got %s", m.Data)
		}
	case <-time.After(testTimeout):
		t.Fatal("the first request has no reply")
	}
	b.Stop()
	checkRejection(t, b.request(t, "text", newImage(t)), v1.Unavailable, "1")
}

func TestAnalyze_AcceptsWhenTheAcknowledgementIsLate(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	p := bustest.StartProxy(t, s)
	b := newBenchOn(t, s, &bustest.Server{URL: p.URL}, time.Millisecond, 8)
	// The second publish comes when the first attempt has ended.
	bustest.OnPublish(t, b.nc, subject.AllImages(), 2, func() { p.PauseReplies(false) })
	p.PauseReplies(true)
	var r v1.Result
	if err := json.Unmarshal(b.request(t, "text", newImage(t)).Data, &r); err != nil {
		t.Fatal(err)
	}
	checkQueued(t, r)
}

func TestAnalyze_ReturnsTheIDOfAJobThatMayBeStored(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	p := bustest.StartProxy(t, s)
	b := newBenchOn(t, s, &bustest.Server{URL: p.URL}, time.Millisecond, 8)
	p.PauseReplies(true)
	m := b.request(t, "text", newImage(t))
	p.PauseReplies(false)
	problem := checkRejection(t, m, v1.Unavailable, "5")
	images, err := b.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	job := subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: problem.Job}
	if _, err := images.GetLastMsgForSubject(t.Context(), subject.Images(job)); err != nil {
		t.Errorf("the job %q of the problem: %v", problem.Job, err)
	}
	if n := images.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d images are stored, want 1", n)
	}
}

// TestAnalyze_SameKeyIsOneJob repeats a request, as a client does when a reply is lost.
func TestAnalyze_SameKeyIsOneJob(t *testing.T) {
	t.Parallel()
	b := newBench(t, time.Millisecond, 8)
	if _, err := b.nc.Subscribe(subject.AllLookup(), func(m *nats.Msg) {
		m.Respond([]byte(`{"id":"` + strings.TrimPrefix(m.Subject, subject.Lookup("")) + `","status":"queued"}`))
	}); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for range 2 {
		reply := b.requestWith(t, "text", nats.Header{v1.HeaderKey: {"k1"}}, newImage(t))
		var r v1.Result
		if err := json.Unmarshal(reply.Data, &r); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID)
	}
	if ids[0] == "" {
		t.Error("the first reply has no ID")
	}
	if ids[1] != ids[0] {
		t.Errorf("the second job is %q, want %q", ids[1], ids[0])
	}
	images, err := b.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	if n := images.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d images are stored, want 1", n)
	}
}

// TestAnalyze_FreesItsPlaceBeforeTheReply checks that a client that waits for each reply needs
// only one place.
func TestAnalyze_FreesItsPlaceBeforeTheReply(t *testing.T) {
	t.Parallel()
	b := newBench(t, testTimeout, 1)
	for range 500 {
		checkRejection(t, b.request(t, "cats", newImage(t)), v1.UnknownPipeline, "")
		if t.Failed() {
			return
		}
	}
}
