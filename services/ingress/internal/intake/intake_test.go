package intake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/ingress/internal/fetch"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testTimeout = time.Minute // only for tests that would hang

var (
	text  = pipeline.Pipeline{Name: "text", Deadline: time.Minute, BulkDeadline: time.Hour}
	faces = pipeline.Pipeline{Name: "faces", Deadline: time.Minute, BulkDeadline: time.Hour}
)

// bench is an Intake with a real server. The test replies as the workers and the results
// service.
type bench struct {
	*Intake
	client *client.Client
	nc     *nats.Conn // of the other services
	js     jetstream.JetStream
	stop   context.CancelFunc // ends Stopping
}

func newBench(t *testing.T) bench {
	t.Helper()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	b := newIntake(t, s)
	b.nc = s.Connect(t)
	return b
}

// newIntake returns a bench with its own connection, until the end of the test.
func newIntake(t *testing.T, s *bustest.Server) bench {
	t.Helper()
	nc := s.Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stopping, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	log, pipelines := slog.New(slog.DiscardHandler), []pipeline.Pipeline{text, faces}
	fetcher := fetch.New(fetch.Config{
		MaxBytes: 1 << 20, Timeout: testTimeout, PerHost: 4, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	t.Cleanup(fetcher.Close)
	i, err := New(t.Context(), Config{
		Conn: nc, JetStream: js, Clock: clock.New(time.Now),
		Publisher: bus.NewPublisher(js, clock.New(time.Now), noop.NewTracerProvider()), Client: c, Fetcher: fetcher,
		Admission: admission.New(nc, js, pipelines, admission.MaxWait{}, log, prometheus.NewRegistry()),
		Pipelines: pipelines, Limits: imagefile.DefaultLimits(), Webhooks: true, Stopping: stopping, Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return bench{i, c, nc, js, stop}
}

// TestIntake_StoreOnceOnReplicatedStreams stores each of several jobs on all servers of a
// cluster concurrently, as requests with the same key do. Most writes conflict with another
// write in flight.
func TestIntake_StoreOnceOnReplicatedStreams(t *testing.T) {
	t.Parallel()
	const jobs, stores = 8, 16
	var ingresses []bench
	for _, s := range bustest.StartCluster(t, 3, "text").Servers {
		ingresses = append(ingresses, newIntake(t, s))
	}
	for n := range jobs {
		r := Request{ID: fmt.Sprint("job-", n), Pipeline: text, Image: newImage(t, n+1)}
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range stores {
			wg.Go(func() {
				<-start
				if err := ingresses[i%len(ingresses)].Store(t.Context(), r); err != nil {
					t.Errorf("%s, store %d: %v", r.ID, i, err)
				}
			})
		}
		close(start)
		wg.Wait()
	}
	images, err := ingresses[0].js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	if got := images.CachedInfo().State.Msgs; got != jobs {
		t.Errorf("%d messages are stored, want one for each of %d jobs", got, jobs)
	}
}

// newServedBench returns a bench with a worker for the pipeline text, and none for faces.
func newServedBench(t *testing.T) bench {
	t.Helper()
	b := newBench(t)
	status := []byte(`{"service":"detect","lanes":1,"pipelines":{"text":{"ready":true}}}`)
	b.respond(t, subject.Status(string(subject.Detect)), &nats.Msg{Data: status})
	return b
}

// respond replies to every request on subj with m, and counts the requests.
func (b bench) respond(t *testing.T, subj string, m *nats.Msg) (requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	sub, err := b.nc.Subscribe(subj, func(request *nats.Msg) {
		requests.Add(1)
		request.RespondMsg(&nats.Msg{Header: m.Header, Data: m.Data})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return requests
}

// newImage returns an image. Images of different widths have different bytes.
func newImage(t *testing.T, width int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, width, 8))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (b bench) submit(t *testing.T, r Request) *Job {
	t.Helper()
	job, err := b.Submit(t.Context(), &r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(job.Close)
	return job
}

// storedMessage returns the message of a job in the stream IMAGES.
func (b bench) storedMessage(t *testing.T, id string, prio subject.Priority) *jetstream.RawStreamMsg {
	t.Helper()
	s, err := b.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(t.Context(), subject.Images(subject.Job{Pipeline: "text", Priority: prio, ID: id}))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// imageCount returns how many images are stored.
func (b bench) imageCount(t *testing.T) uint64 {
	t.Helper()
	s, err := b.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// changeImages changes the configuration of the stream IMAGES.
func (b bench) changeImages(t *testing.T, change func(*jetstream.StreamConfig)) {
	t.Helper()
	s, err := b.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	change(&cfg)
	if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// problemCode returns the code of the problem in an error, or "" when it has none.
func problemCode(err error) v1.Code {
	var p *v1.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

func TestNew_RequiresAPipeline(t *testing.T) {
	t.Parallel()
	if _, err := New(t.Context(), Config{}); err == nil {
		t.Error("New without pipelines: no error")
	}
}

func TestIntake_SubmitStoresEveryField(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	deadline := time.Now().Add(5 * time.Minute).UTC().Truncate(time.Second)
	content := newImage(t, 8)
	job := b.submit(t, Request{
		Pipeline: text, Priority: subject.Bulk, Image: content, Key: "k1", Metadata: map[string]string{"camera": "3 ü"},
		WebhookURL: "https://client.example/", Report: &v1.ReportItem{Report: "r", N: 1, Total: 2}, Deadline: deadline,
	})
	if job.Status != v1.Queued {
		t.Errorf("the job is %s, want queued", job.Status)
	}
	if job.Pipeline != "text" {
		t.Errorf("the pipeline is %q, want text", job.Pipeline)
	}
	m := b.storedMessage(t, job.ID, subject.Bulk)
	if !bytes.Equal(m.Data, content) {
		t.Errorf("%d other bytes are stored", len(m.Data))
	}
	for header, want := range map[string]string{
		v1.HeaderMetadata: `{"camera":"3 ü"}`,
		v1.HeaderCallback: "https://client.example/",
		v1.HeaderReport:   "r/1/2",
		v1.HeaderDeadline: deadline.Format(time.RFC3339),
		v1.HeaderReply:    b.inbox.subject(job.ID),
		"Nats-Msg-Id":     v1.MsgID(job.ID, "images"),
	} {
		if got := m.Header.Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	accepted, err := time.Parse(time.RFC3339Nano, m.Header.Get(v1.HeaderAccepted))
	if err != nil {
		t.Error(err)
	}
	if time.Since(accepted) > testTimeout {
		t.Errorf("%s is %v, want now", v1.HeaderAccepted, accepted)
	}
	claimed := b.readClaim(t, "k1")
	if claimed.ID != job.ID {
		t.Errorf("the key stands for %q, want %q", claimed.ID, job.ID)
	}
}

// readClaim returns the stored claim of a key.
func (b bench) readClaim(t *testing.T, key string) (c v1.KeyClaim) {
	t.Helper()
	sum := sha256.Sum256([]byte(key))
	subj := subject.JobOfKey(hex.EncodeToString(sum[:]))
	if _, err := bus.ReadLast(t.Context(), b.js, streams.Jobs, subj, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestIntake_SubmitUsesThePriorityOfThePipeline also checks that a request can set another.
func TestIntake_SubmitUsesThePriorityOfThePipeline(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	patient := text
	patient.Priority = subject.Bulk
	for requested, want := range map[subject.Priority]subject.Priority{
		"": subject.Bulk, subject.Bulk: subject.Bulk, subject.Interactive: subject.Interactive,
	} {
		job := b.submit(t, Request{Pipeline: patient, Priority: requested, Image: newImage(t, 8)})
		deadline, err := time.Parse(time.RFC3339Nano, b.storedMessage(t, job.ID, want).Header.Get(v1.HeaderDeadline))
		if err != nil {
			t.Fatal(err)
		}
		if bulk := time.Until(deadline) > text.Deadline+time.Minute; bulk != (want == subject.Bulk) {
			t.Errorf("priority %q: the deadline is %v, want that of %s jobs", requested, deadline, want)
		}
	}
}

func TestIntake_SubmitUsesTheDeadlineOfThePipeline(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	for requested, want := range map[subject.Priority]struct {
		prio     subject.Priority
		deadline time.Duration
	}{
		"":                  {subject.Interactive, time.Minute},
		subject.Interactive: {subject.Interactive, time.Minute},
		subject.Bulk:        {subject.Bulk, time.Hour},
	} {
		job := b.submit(t, Request{Pipeline: text, Priority: requested, Image: newImage(t, 8)})
		m := b.storedMessage(t, job.ID, want.prio)
		accepted, err := time.Parse(time.RFC3339Nano, m.Header.Get(v1.HeaderAccepted))
		if err != nil {
			t.Fatal(err)
		}
		deadline, err := time.Parse(time.RFC3339Nano, m.Header.Get(v1.HeaderDeadline))
		if err != nil {
			t.Fatal(err)
		}
		if got := deadline.Sub(accepted); got != want.deadline {
			t.Errorf("priority %q: %v until the deadline, want %v", requested, got, want.deadline)
		}
	}
}

// startResultsWith replies to look-ups as the results service, with one state for every job.
func (b bench) startResultsWith(t *testing.T, s v1.Status) (requests *atomic.Int64) {
	t.Helper()
	body, err := json.Marshal(v1.Result{Status: s})
	if err != nil {
		t.Fatal(err)
	}
	return b.respond(t, subject.AllLookup(), &nats.Msg{Data: body})
}

func TestIntake_SubmitFindsTheJobOfAKey(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	b.startResultsWith(t, v1.Running)
	first := b.submit(t, Request{Pipeline: text, Image: newImage(t, 8), Key: "k1"})
	again := b.submit(t, Request{Pipeline: text, Image: newImage(t, 8), Key: "k1"})
	if again.ID != first.ID {
		t.Errorf("the same request became %s, want %s", again.ID, first.ID)
	}
	if again.Status != v1.Running {
		t.Errorf("the job is %s, want running", again.Status)
	}
	if n := b.imageCount(t); n != 1 {
		t.Errorf("%d images are stored, want 1", n)
	}
	for name, r := range map[string]Request{
		"another image":    {Pipeline: text, Image: newImage(t, 9), Key: "k1"},
		"another priority": {Pipeline: text, Priority: subject.Bulk, Image: newImage(t, 8), Key: "k1"},
		"another pipeline": {Pipeline: faces, Image: newImage(t, 8), Key: "k1"},
	} {
		if _, err := b.Submit(t.Context(), &r); problemCode(err) != v1.KeyConflict {
			t.Errorf("%s: %v, want %s", name, err, v1.KeyConflict)
		}
	}
}

// TestIntake_SubmitStoresTheImageOfAClaimedKey submits an image whose key was claimed by a
// request that was rejected later, or whose process died.
func TestIntake_SubmitStoresTheImageOfAClaimedKey(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	problem, err := json.Marshal(v1.NewProblem(v1.UnknownJob, "no such job"))
	if err != nil {
		t.Fatal(err)
	}
	b.respond(t, subject.AllLookup(), &nats.Msg{Header: nats.Header{"Nats-Service-Error-Code": {"404"}}, Data: problem})
	sum := sha256.Sum256(newImage(t, 8))
	key := NewKey("k1", v1.HeaderKey, "text", subject.Interactive, sum[:])
	if _, err := b.Claim(t.Context(), key, "first"); err != nil {
		t.Fatal(err)
	}
	job := b.submit(t, Request{Pipeline: text, Image: newImage(t, 8), Key: "k1"})
	if job.ID != "first" {
		t.Errorf("the job is %s, want first, the ID of the key", job.ID)
	}
	b.storedMessage(t, "first", subject.Interactive)
}

// startHost starts a host that has an image at every path, and counts the requests.
func startHost(t *testing.T, image []byte) (url string, fetched *atomic.Int64) {
	t.Helper()
	fetched = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		w.Write(image)
	}))
	t.Cleanup(s.Close)
	return s.URL, fetched
}

func TestIntake_SubmitFetchesOncePerKey(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	b.startResultsWith(t, v1.Done)
	content := newImage(t, 8)
	url, fetched := startHost(t, content)
	r := Request{Pipeline: text, URL: url, Key: "k1"}
	first, err := b.Submit(t.Context(), &r)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if !bytes.Equal(r.Image, content) {
		t.Errorf("the request has another image of %d bytes, want the fetched one", len(r.Image))
	}
	if m := b.storedMessage(t, first.ID, subject.Interactive); !bytes.Equal(m.Data, content) {
		t.Errorf("%d other bytes are stored", len(m.Data))
	}
	r = Request{Pipeline: text, URL: url, Key: "k1"}
	again, err := b.Submit(t.Context(), &r)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.ID != first.ID {
		t.Errorf("the same request became %s, want %s", again.ID, first.ID)
	}
	if r.Image != nil {
		t.Errorf("the request has an image of %d bytes, want none", len(r.Image))
	}
	if n := fetched.Load(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
	_, err = b.Submit(t.Context(), &Request{Pipeline: text, URL: url + "/2", Key: "k1"})
	if problemCode(err) != v1.KeyConflict {
		t.Errorf("another URL: %v, want %s", err, v1.KeyConflict)
	}
}

// TestIntake_SubmitInspectsTheImageFirst checks that an invalid image claims no key and needs no
// worker.
func TestIntake_SubmitInspectsTheImageFirst(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	url, _ := startHost(t, []byte("no image"))
	for name, c := range map[string]struct {
		request Request
		code    v1.Code
	}{
		"no bytes":    {Request{}, v1.EmptyBody},
		"no image":    {Request{Image: []byte("no image")}, v1.UnsupportedType},
		"half of one": {Request{Image: newImage(t, 8)[:20]}, v1.Damaged},
		"at a URL":    {Request{URL: url}, v1.UnsupportedType},
		"no URL":      {Request{URL: "ftp://client.example/"}, v1.URLRefused},
	} {
		c.request.Pipeline = text
		if c.request.URL == "" {
			c.request.Key = "k1"
		}
		_, err := b.Submit(t.Context(), &c.request)
		if problemCode(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
		if _, ok := retry.Delay(err); ok {
			t.Errorf("%s: the error is transient", name)
		}
	}
	if c := b.readClaim(t, "k1"); c.ID != "" {
		t.Errorf("the key has the job %s, want none", c.ID)
	}
}

func TestIntake_SubmitRejectsWithoutAWorker(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, err := b.Submit(t.Context(), &Request{Pipeline: text, Image: newImage(t, 8)})
	if problemCode(err) != v1.NoWorker {
		t.Errorf("got %v, want %s", err, v1.NoWorker)
	}
	if d, _ := retry.Delay(err); d <= 0 {
		t.Errorf("the retry delay is %v, want one", d)
	}
	if n := b.imageCount(t); n != 0 {
		t.Errorf("%d images are stored, want 0", n)
	}
}

func TestIntake_SubmitRejectsWhenTheQueueIsFull(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	b.changeImages(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	b.submit(t, Request{Pipeline: text, Image: newImage(t, 8)})
	_, err := b.Submit(t.Context(), &Request{Pipeline: text, Image: newImage(t, 8)})
	if problemCode(err) != v1.Overloaded {
		t.Errorf("got %v, want %s", err, v1.Overloaded)
	}
	if d, _ := retry.Delay(err); d != RetryDelay {
		t.Errorf("the retry delay is %v, want %v", d, RetryDelay)
	}
	var s *ServerError
	if !errors.As(err, &s) {
		t.Errorf("got %v, want a ServerError", err)
	} else if !errors.Is(s.Err, bus.ErrFull) {
		t.Errorf("the reason is %v, want %v", s.Err, bus.ErrFull)
	}
	if n := b.pendingReplies(); n != 1 {
		t.Errorf("%d jobs wait for a reply, want 1, the stored one", n)
	}
}

func (b bench) pendingReplies() int {
	b.inbox.mu.Lock()
	defer b.inbox.mu.Unlock()
	return len(b.inbox.waiting)
}

func TestIntake_Pipeline(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for name, want := range map[string]string{"": "text", "text": "text", "faces": "faces", "cats": ""} {
		p, ok := b.Pipeline(name)
		if p.Name != want {
			t.Errorf("%q: got %q, want %q", name, p.Name, want)
		}
		if ok != (want != "") {
			t.Errorf("%q: ok is %v", name, ok)
		}
	}
}
