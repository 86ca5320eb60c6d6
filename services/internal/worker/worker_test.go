package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/outcome"
)

// testTimeout limits waits that only a test that hangs reaches.
const testTimeout = time.Minute

// The test binary is its own lane program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == LaneCommand {
		if err := lane.Run(testLane{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// testLane does what the image says: {"ms": 50} works for 50 ms, {"crash":
// true} aborts, {"score": 93.7} finds a region with that score. The setting
// {"hold": 1024} takes so many bytes of memory at the start.
type testLane struct{}

type order struct {
	MS    int     `json:"ms"`
	Crash bool    `json:"crash"`
	Score float64 `json:"score,omitempty"`
}

func (testLane) Start(s lane.Start) (map[string]lane.Loaded, error) {
	out := map[string]lane.Loaded{}
	for name, setup := range s.Pipelines {
		var settings struct {
			Hold int `json:"hold"`
		}
		if err := lane.DecodeSettings(setup.Settings, &settings); err != nil {
			return nil, err
		}
		if settings.Hold > 0 { // until the process ends
			if _, err := syscall.Mmap(-1, 0, settings.Hold, syscall.PROT_READ|syscall.PROT_WRITE,
				syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_POPULATE); err != nil {
				return nil, fmt.Errorf("hold %d bytes: %w", settings.Hold, err)
			}
		}
		out[name] = lane.Loaded{Models: []v1.Model{{Name: "test"}}}
	}
	return out, nil
}

func (testLane) Detect(_ lane.Detect, image []byte) (lane.Detected, [][]byte, error) {
	var o order
	if err := json.Unmarshal(image, &o); err != nil {
		return lane.Detected{}, nil, v1.NewProblem(v1.Damaged, "%v", err)
	}
	if o.Crash {
		syscall.Kill(os.Getpid(), syscall.SIGABRT)
		select {}
	}
	time.Sleep(time.Duration(o.MS) * time.Millisecond)
	found := lane.Detected{Width: 1, Height: 1}
	if o.Score != 0 {
		found.Regions = []lane.Region{{Box: v1.Box{Width: 1, Height: 1}, Score: o.Score}}
	}
	return found, nil, nil
}

func (testLane) Classify(lane.Classify, []byte) (lane.Classified, error) {
	return lane.Classified{}, nil
}

// testHandler sends a request to the lane and returns the result.
type testHandler struct {
	begun chan string   // receives the ID of each job that begins, when not nil
	gate  chan struct{} // holds each job that has begun, when not nil: one value releases one, close all
	did   atomic.Int64
}

func newGatedHandler() *testHandler {
	return &testHandler{begun: make(chan string, 100), gate: make(chan struct{})}
}

// awaitBegun returns the ID of the next job that begins.
func (h *testHandler) awaitBegun(t *testing.T) string {
	t.Helper()
	select {
	case id := <-h.begun:
		return id
	case <-time.After(testTimeout):
		t.Fatal("no job begins")
		return ""
	}
}

func (h *testHandler) Process(ctx context.Context, l *pool.Lane, d *consume.Delivery) ([]bus.Message, error) {
	if h.begun != nil {
		h.begun <- d.Job.ID
	}
	if h.gate != nil {
		select {
		case <-h.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if _, _, err := l.Detect(ctx, lane.Detect{Pipeline: d.Job.Pipeline}, d.Body); err != nil {
		return nil, err
	}
	h.did.Add(1)
	m, err := outcome.Message(ctx, d.Header,
		outcome.Join(d.Job.ID, pipeline.Pipeline{Name: d.Job.Pipeline}, []v1.Part{{Parts: 1}}))
	return []bus.Message{m}, err
}

func (h *testHandler) Fail(ctx context.Context, d *consume.Delivery, p *v1.Problem) (bus.Message, error) {
	return outcome.Message(ctx, d.Header, outcome.NewFailed(d.Job, p))
}

var testPipelines = []pipeline.Pipeline{
	{Name: "a", Deadline: time.Minute, BulkDeadline: time.Hour},
	{Name: "b", Deadline: time.Minute, BulkDeadline: time.Hour},
}

type running struct {
	worker  *Worker
	handler *testHandler
	cancel  context.CancelFunc // asks it to stop
	stop    func()             // asks it to stop and waits
	halt    context.CancelFunc
}

// startWorker runs a worker until the end of the test, with the handler h or, when it is nil, one
// that holds no job.
func startWorker(t *testing.T, s *bustest.Server, laneCount int, h *testHandler) running {
	t.Helper()
	if h == nil {
		h = &testHandler{}
	}
	nc := s.Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(t.Output(), nil))
	reg := prometheus.NewRegistry()
	prog := pool.Program{Name: "test", Argv: []string{os.Args[0], LaneCommand}, Pipelines: map[string]pool.Pipeline{}}
	for _, p := range testPipelines {
		prog.Pipelines[p.Name] = pool.Pipeline{Timeout: testTimeout}
	}
	lanes, err := pool.New(pool.Config{
		Stage: subject.Detect, Lanes: laneCount, Programs: []pool.Program{prog},
		StartTimeout: testTimeout, Metrics: newLaneMetrics(reg, laneCount), Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	tp := noop.NewTracerProvider()
	w := New(Config{
		Stage: subject.Detect, Pipelines: testPipelines, Handler: h, Pool: lanes, Conn: nc, JetStream: js,
		Clock: clock.New(time.Now), Publisher: bus.NewPublisher(js, clock.New(time.Now), tp), Tracers: tp, Logger: log,
		Metrics: reg,
	})
	ctx, cancel := context.WithCancel(context.Background())
	hard, halt := context.WithCancel(t.Context()) // at its end no job is held
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, hard) }()
	select {
	case <-lanes.Ready():
	case <-time.After(testTimeout):
		t.Fatal("the lanes are not ready")
	}
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("worker ended with %v", err)
		}
		halt()
	})
	t.Cleanup(stop)
	return running{worker: w, handler: h, cancel: cancel, stop: stop, halt: halt}
}

func TestLaneTracer_NamesAttributesAndEvents(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	tracer := NewLaneTracer(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	now := time.Now()
	ctx, end := tracer.StartSpan(t.Context(), "lane", now, slog.String("pipeline", "a"), slog.Int("lane", 1))
	tracer.AddEvent(ctx, "restart", slog.String("reason", "died"))
	end(now, v1.NewProblem(v1.LaneDied, "lane 1 died"))
	span := spans.Ended()[0]
	want := []attribute.KeyValue{
		attribute.String("sightmesh.pipeline", "a"), attribute.Int("sightmesh.lane", 1),
		attribute.String("error.type", "lane-died"),
	}
	if got := span.Attributes(); !slices.Equal(got, want) {
		t.Errorf("the span has the attributes %v, want %v", got, want)
	}
	names := []string{}
	for _, e := range span.Events() {
		names = append(names, e.Name)
	}
	if !slices.Equal(names, []string{"restart", "exception"}) {
		t.Fatalf("the span has the events %v, want restart and exception", names)
	}
	want = []attribute.KeyValue{attribute.String("sightmesh.reason", "died")}
	if got := span.Events()[0].Attributes; !slices.Equal(got, want) {
		t.Errorf("the restart has the attributes %v, want its reason", got)
	}
}

type mesh struct {
	*bustest.Server
	js jetstream.JetStream
}

func newMesh(t *testing.T) mesh {
	t.Helper()
	s := bustest.Start(t, "a", "b")
	js, err := jetstream.New(s.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	return mesh{s, js}
}

func (m mesh) send(t *testing.T, j subject.Job, o any, header ...string) {
	t.Helper()
	body, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	msg := &nats.Msg{Subject: subject.Images(j), Data: body, Header: nats.Header{}}
	for i := 0; i+1 < len(header); i += 2 {
		msg.Header.Set(header[i], header[i+1])
	}
	if _, err := m.js.PublishMsg(context.Background(), msg); err != nil {
		t.Fatal(err)
	}
}

// result waits for the result of a job.
func (m mesh) result(t *testing.T, pipeline, job string) v1.Result {
	t.Helper()
	var r v1.Result
	if err := json.Unmarshal(m.lastMessage(t, streams.Results, subject.Results(pipeline, job)).Data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (m mesh) lastMessage(t *testing.T, stream, subj string) (msg *jetstream.RawStreamMsg) {
	t.Helper()
	s, err := m.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	eventually.Succeeds(t, testTimeout, func() error {
		if msg, err = s.GetLastMsgForSubject(t.Context(), subj); err != nil {
			return fmt.Errorf("read %s: %w", subj, err)
		}
		return nil
	})
	return msg
}

// awaitEmpty waits until a stream has no messages: a message ends after the
// outcome of its job is stored.
func (m mesh) awaitEmpty(t *testing.T, stream string) {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		s, err := m.js.Stream(t.Context(), stream)
		if err != nil {
			return err
		}
		if n := s.CachedInfo().State.Msgs; n != 0 {
			return fmt.Errorf("%d messages are left", n)
		}
		return nil
	})
}

// checkFailed checks that a job has failed with a problem.
func checkFailed(t *testing.T, r v1.Result, want v1.Code) {
	t.Helper()
	if r.Status != v1.Failed {
		t.Errorf("%s is %s, want %s", r.ID, r.Status, v1.Failed)
	}
	if r.Problem == nil {
		t.Fatalf("%s has no problem, want %s", r.ID, want)
	}
	if r.Problem.Code != want {
		t.Errorf("%s has the problem %v, want %s", r.ID, r.Problem, want)
	}
}

func interactive(id string) subject.Job {
	return subject.Job{Pipeline: "a", Priority: subject.Interactive, ID: id}
}

// TestWorker_SharesWorkWithOtherWorkers: a worker whose lane is busy leaves all other jobs to the other worker.
func TestWorker_SharesWorkWithOtherWorkers(t *testing.T) {
	m := newMesh(t)
	busy, free := newGatedHandler(), newGatedHandler()
	startWorker(t, m.Server, 1, busy)
	startWorker(t, m.Server, 1, free)
	const n = 20
	pipelines := map[string]string{} // by job
	for i := range n {
		j := interactive(fmt.Sprint("job", i))
		if i%2 == 1 {
			j.Pipeline = "b"
		}
		pipelines[j.ID] = j.Pipeline
		m.send(t, j, order{})
	}
	held := busy.awaitBegun(t)
	free.awaitBegun(t)
	checkDone := func(job string) {
		t.Helper()
		if r := m.result(t, pipelines[job], job); r.Status != v1.Done {
			t.Errorf("%s: %+v", job, r)
		}
	}
	close(free.gate)
	for job := range pipelines {
		if job != held {
			checkDone(job)
		}
	}
	close(busy.gate)
	checkDone(held)
	if got := free.did.Load(); got != n-1 {
		t.Errorf("the free worker has processed %d jobs, want %d", got, n-1)
	}
	if got := busy.did.Load(); got != 1 {
		t.Errorf("the busy worker has processed %d jobs, want 1", got)
	}
}

func TestWorker_QuarantinesAnImageThatEndsItsLane(t *testing.T) {
	m := newMesh(t)
	startWorker(t, m.Server, 1, nil)
	m.send(t, interactive("bad"), order{Crash: true})
	m.send(t, interactive("good"), order{})
	if r := m.result(t, "a", "good"); r.Status != v1.Done {
		t.Errorf("the next image: %+v, want done", r)
	}
	r := m.result(t, "a", "bad")
	checkFailed(t, r, v1.LaneDied)
	if got := r.Problem.Job; got != "bad" {
		t.Errorf("the problem is of job %q, want bad", got)
	}
	q := m.lastMessage(t, streams.Quarantine, subject.Quarantine(subject.Detect, "a", "bad"))
	if got, want := string(q.Data), `{"ms":0,"crash":true}`; got != want {
		t.Errorf("the image in quarantine is %s, want %s", got, want)
	}
	for header, want := range map[string]string{
		v1.HeaderReason: string(v1.LaneDied), v1.HeaderSubject: subject.Images(interactive("bad")),
	} {
		if got := q.Header.Get(header); got != want {
			t.Errorf("in quarantine %s is %q, want %q", header, got, want)
		}
	}
}

// TestWorker_FailsAJobWithAnInvalidReplyImmediately: a lane that replies with a score
// of 93.7 is not retried.
func TestWorker_FailsAJobWithAnInvalidReplyImmediately(t *testing.T) {
	m := newMesh(t)
	h := &testHandler{begun: make(chan string, 10)}
	startWorker(t, m.Server, 1, h)
	m.send(t, interactive("wrong"), order{Score: 93.7})
	r := m.result(t, "a", "wrong")
	checkFailed(t, r, v1.Internal)
	if want := "regions.0.score: 93.7"; !strings.Contains(r.Problem.Detail, want) {
		t.Errorf("the detail is %q, want %q in it", r.Problem.Detail, want)
	}
	m.awaitEmpty(t, streams.Images)
	if n := len(h.begun); n != 1 {
		t.Errorf("it was tried %d times, want once", n)
	}
}

func TestWorker_FailsInvalidMessagesWithoutALane(t *testing.T) {
	m := newMesh(t)
	w := startWorker(t, m.Server, 1, nil)
	m.send(t, interactive("damaged"), "not an order")
	m.send(t, interactive("late"), order{}, v1.HeaderDeadline, time.Now().Add(-time.Second).Format(time.RFC3339))
	m.send(t, interactive("when"), order{}, v1.HeaderDeadline, "tomorrow")
	for id, code := range map[string]v1.Code{
		"damaged": v1.Damaged, "late": v1.DeadlineExceeded, "when": v1.InvalidMessage,
	} {
		checkFailed(t, m.result(t, "a", id), code)
	}
	if n := w.handler.did.Load(); n != 0 {
		t.Errorf("the lane did %d of them", n)
	}
	m.awaitEmpty(t, streams.Images)
}

// deliverUnprocessed lets the server deliver an image n times to a consumer that does not process
// it.
func (m mesh) deliverUnprocessed(t *testing.T, n int) {
	t.Helper()
	c, err := m.js.Consumer(t.Context(), streams.Images, streams.WorkConsumer(subject.Detect, "a", subject.Interactive))
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		msg, err := c.Next()
		if err != nil {
			t.Fatalf("delivery %d: %v", i+1, err)
		}
		if err := msg.Nak(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWorker_ProcessesMessagesThatNoWorkerReceived checks that deliveries that no worker received do not count.
func TestWorker_ProcessesMessagesThatNoWorkerReceived(t *testing.T) {
	m := newMesh(t)
	m.send(t, interactive("untried"), order{})
	m.deliverUnprocessed(t, 2*streams.MaxAttempts)
	startWorker(t, m.Server, 1, nil)
	if r := m.result(t, "a", "untried"); r.Status != v1.Done {
		t.Errorf("got %+v, want it done", r)
	}
}

// workerURL is the variable of the environment that makes the test binary a
// worker of the mesh at this address, see TestWorkerProcess.
const workerURL = "SIGHTMESH_TEST_WORKER_URL"

// TestWorkerProcess is no test: it is a worker in a process of its own, which
// is killed as soon as it begins to process an image.
func TestWorkerProcess(t *testing.T) {
	url := os.Getenv(workerURL)
	if url == "" {
		t.Skip("not a process of another test")
	}
	h := &testHandler{begun: make(chan string)}
	startWorker(t, &bustest.Server{URL: url}, 1, h)
	<-h.begun
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {}
}

// dieAtWork runs a worker process until it is killed while it processes an
// image.
func (m mesh) dieAtWork(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // only ends a test that would hang
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestWorkerProcess$")
	cmd.Env = append(os.Environ(), workerURL+"="+m.URL)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("the worker process got no image:\n%s", out)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("the worker process ended with %v, want it killed:\n%s", err, out)
	}
	if s := exit.Sys().(syscall.WaitStatus).Signal(); s != syscall.SIGKILL {
		t.Fatalf("the worker process ended by %v, want %v:\n%s", s, syscall.SIGKILL, out)
	}
}

// TestWorker_FailsAMessageThatKillsItsWorkers: the count of attempts survives kill -9
// of each worker process that makes an attempt.
func TestWorker_FailsAMessageThatKillsItsWorkers(t *testing.T) {
	m := newMesh(t)
	name := streams.WorkConsumer(subject.Detect, "a", subject.Interactive)
	c, err := m.js.Consumer(t.Context(), streams.Images, name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := c.CachedInfo().Config
	cfg.AckWait = time.Second // the image of a dead worker moves on sooner
	if _, err := m.js.UpdateConsumer(t.Context(), streams.Images, cfg); err != nil {
		t.Fatal(err)
	}
	m.send(t, interactive("poison"), order{MS: 5000}) // so that its workers die first
	for range streams.MaxAttempts {
		m.dieAtWork(t)
	}
	w := startWorker(t, m.Server, 1, nil)
	r := m.result(t, "a", "poison")
	checkFailed(t, r, v1.TooManyDeliveries)
	if want := fmt.Sprintf("%d attempts ended without an outcome", streams.MaxAttempts); r.Problem.Detail != want {
		t.Errorf("the detail is %q, want %q", r.Problem.Detail, want)
	}
	if n := w.handler.did.Load(); n != 0 {
		t.Errorf("the last worker tried it %d times, want 0", n)
	}
	q := m.lastMessage(t, streams.Quarantine, subject.Quarantine(subject.Detect, "a", "poison"))
	if got := q.Header.Get(v1.HeaderReason); got != string(v1.TooManyDeliveries) {
		t.Errorf("it is in quarantine because of %q, want %q", got, v1.TooManyDeliveries)
	}
}

func TestWorker_PullsInteractiveBeforeBulk(t *testing.T) {
	m := newMesh(t)
	const n = 5
	for i := range n + 1 { // one is left whenever an interactive job is pulled
		m.send(t, subject.Job{Pipeline: "a", Priority: subject.Bulk, ID: fmt.Sprint("bulk", i)}, order{})
	}
	h := newGatedHandler()
	startWorker(t, m.Server, 1, h)
	for i := range n {
		h.awaitBegun(t)
		j := interactive(fmt.Sprint("urgent", i))
		j.Pipeline = "b"
		m.send(t, j, order{})
		m.awaitPending(t, j)
		h.gate <- struct{}{}
		if id := h.awaitBegun(t); id != j.ID {
			t.Fatalf("%s begins, want %s", id, j.ID)
		}
		h.gate <- struct{}{}
	}
}

// awaitPending waits until the server has a job for the next pull request.
func (m mesh) awaitPending(t *testing.T, j subject.Job) {
	t.Helper()
	name := streams.WorkConsumer(subject.Detect, j.Pipeline, j.Priority)
	eventually.Succeeds(t, testTimeout, func() error {
		c, err := m.js.Consumer(t.Context(), streams.Images, name)
		if err != nil {
			return err
		}
		if c.CachedInfo().NumPending == 0 {
			return fmt.Errorf("%s has no message", name)
		}
		return nil
	})
}

// TestWorker_AlternatesBetweenPipelines: one whose queue never empties leaves room for the
// others of its priority.
func TestWorker_AlternatesBetweenPipelines(t *testing.T) {
	for _, prio := range subject.Priorities() {
		t.Run(string(prio), func(t *testing.T) {
			m := newMesh(t)
			const n = 20
			for i := range n {
				for _, p := range []string{"a", "b"} {
					m.send(t, subject.Job{Pipeline: p, Priority: prio, ID: fmt.Sprint(p, i)}, order{})
				}
			}
			h := &testHandler{begun: make(chan string, 2*n)}
			startWorker(t, m.Server, 1, h)
			taken := map[byte]int{}
			for range n {
				id := h.awaitBegun(t)
				taken[id[0]]++
			}
			if min(taken['a'], taken['b']) < n/2-2 {
				t.Errorf("of the first %d, %d were of a and %d of b", n, taken['a'], taken['b'])
			}
		})
	}
}

func TestWorker_StopFinishesWorkInProgress(t *testing.T) {
	m := newMesh(t)
	h := newGatedHandler()
	w := startWorker(t, m.Server, 1, h)
	m.send(t, interactive("in-progress"), order{})
	m.send(t, interactive("next"), order{})
	h.awaitBegun(t)
	w.cancel()
	close(h.gate)
	w.stop()
	if r := m.result(t, "a", "in-progress"); r.Status != v1.Done {
		t.Errorf("the job in progress: %+v", r)
	}
	if n := h.did.Load(); n != 1 {
		t.Errorf("did %d, want only the one in progress", n)
	}
	startWorker(t, m.Server, 1, nil)
	if r := m.result(t, "a", "next"); r.Status != v1.Done {
		t.Errorf("left behind: %+v", r)
	}
}

func TestWorker_HardStopReturnsMessages(t *testing.T) {
	m := newMesh(t)
	h := &testHandler{begun: make(chan string, 10)}
	w := startWorker(t, m.Server, 1, h)
	m.send(t, interactive("slow"), order{MS: 2000})
	h.awaitBegun(t)
	w.halt()
	w.stop()
	if n := h.did.Load(); n != 0 {
		t.Fatalf("did %d after a hard stop", n)
	}
	startWorker(t, m.Server, 1, nil)
	if r := m.result(t, "a", "slow"); r.Status != v1.Done {
		t.Errorf("handed back: %+v", r)
	}
}

func TestWorker_EndsCancelledJobs(t *testing.T) {
	m := newMesh(t)
	nc := m.Connect(t)
	events, err := nc.SubscribeSync(subject.AllEvents())
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	h := newGatedHandler()
	w := startWorker(t, m.Server, 1, h)
	m.send(t, interactive("in-progress"), order{})
	m.send(t, interactive("queued"), order{})
	h.awaitBegun(t)
	detecting, err := events.NextMsg(testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	var e v1.Event
	if err := json.Unmarshal(detecting.Data, &e); err != nil {
		t.Fatal(err)
	}
	jobs := []string{"in-progress", "queued"}
	for _, job := range jobs {
		if err := nc.Publish(subject.Cancelled(job), nil); err != nil {
			t.Fatal(err)
		}
		eventually.Succeeds(t, testTimeout, func() error {
			if !w.worker.cancelled.has(job) {
				return fmt.Errorf("the worker does not know that %s is cancelled", job)
			}
			return nil
		})
	}
	close(h.gate)
	for _, job := range jobs {
		checkFailed(t, m.result(t, "a", job), v1.Cancelled)
	}
	if n := h.did.Load(); n != 1 {
		t.Errorf("the lane did %d, want only the one in progress", n)
	}
	if e.At.IsZero() {
		t.Error("the event has no time")
	}
	e.At = time.Time{}
	if want := (v1.Event{ID: "in-progress", Event: v1.EventDetecting}); !reflect.DeepEqual(e, want) {
		t.Errorf("the event is %+v, want %+v", e, want)
	}
	if err := nc.Flush(); err != nil { // events that were published before the result of queued have arrived
		t.Fatal(err)
	}
	n, _, err := events.Pending()
	if err != nil {
		t.Fatal(err)
	}
	if n != 0 {
		t.Errorf("%d events of a job that never began", n)
	}
}

func TestCancelledJobs_KeepsTheLastOnes(t *testing.T) {
	t.Parallel()
	var c cancelledJobs
	for i := range 2 * maxCancelledJobs {
		c.add(fmt.Sprint(i))
		c.add(fmt.Sprint(i)) // again: it takes no second place
	}
	if n := len(c.jobs); n != maxCancelledJobs {
		t.Errorf("remembers %d, want %d", n, maxCancelledJobs)
	}
	for job, want := range map[int]bool{
		0: false, maxCancelledJobs - 1: false, maxCancelledJobs: true, 2*maxCancelledJobs - 1: true,
	} {
		if got := c.has(fmt.Sprint(job)); got != want {
			t.Errorf("has(%d) is %t, want %t", job, got, want)
		}
	}
}
