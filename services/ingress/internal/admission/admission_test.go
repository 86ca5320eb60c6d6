package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The pipeline text has both stages, marks only the first.
var (
	text  = pipeline.Pipeline{Name: "text", Classify: &pipeline.Stage{}}
	marks = pipeline.Pipeline{Name: "marks"}
)

func newAdmission(conn *nats.Conn, js jetstream.JetStream) *Admission {
	return New(conn, js, []pipeline.Pipeline{text, marks}, MaxWait{
		subject.Interactive: 15 * time.Second, subject.Bulk: 30 * time.Minute,
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func newStatus(lanes int, serviceMS map[string]float64) v1.WorkerStatus {
	w := v1.WorkerStatus{Lanes: lanes, Pipelines: map[string]v1.PipelineStatus{}}
	for name, ms := range serviceMS {
		w.Pipelines[name] = v1.PipelineStatus{Ready: true, ServiceMS: ms}
	}
	return w
}

func TestAdmission_EstimateWait(t *testing.T) {
	t.Parallel()
	type workers = map[subject.Stage][]v1.WorkerStatus
	type backlog = map[queue]int
	const ms = time.Millisecond
	textQueue := queue{"detect", "text", "interactive"}
	bulkQueue := queue{"detect", "text", "bulk"}
	marksQueue := queue{"detect", "marks", "interactive"}
	classifyQueue := queue{"classify", "text", "interactive"}
	measured := newStatus(1, map[string]float64{"text": 100})
	unmeasured := newStatus(1, map[string]float64{"text": 0})
	withoutLane := newStatus(0, map[string]float64{"text": 100})
	otherPipeline := newStatus(9, map[string]float64{"marks": 100})
	one := workers{subject.Detect: {newStatus(1, map[string]float64{"text": 100, "marks": 10})}}
	both := workers{
		subject.Detect:   {newStatus(2, map[string]float64{"text": 100}), newStatus(2, map[string]float64{"text": 300})},
		subject.Classify: {newStatus(1, map[string]float64{"text": 1000})},
	}
	for name, tt := range map[string]struct {
		workers           workers
		backlog           backlog
		interactive, bulk time.Duration
	}{
		"no state":                  {nil, nil, 0, 0},
		"empty queue":               {one, backlog{textQueue: 0}, 0, 0},
		"one queue":                 {one, backlog{textQueue: 3}, 300 * ms, 300 * ms},
		"every pipeline is ahead":   {one, backlog{textQueue: 3, marksQueue: 3}, 330 * ms, 330 * ms},
		"bulk delays only bulk":     {one, backlog{bulkQueue: 100, textQueue: 1}, 100 * ms, 10100 * ms},
		"mean time over four lanes": {both, backlog{textQueue: 4}, 200 * ms, 200 * ms},
		"stages add up":             {both, backlog{textQueue: 4, classifyQueue: 2}, 2200 * ms, 2200 * ms},
		"never measured":            {workers{subject.Detect: {unmeasured}}, backlog{textQueue: 100}, 0, 0},
		"one has measured": {workers{subject.Detect: {unmeasured, measured}},
			backlog{textQueue: 2}, 100 * ms, 100 * ms},
		"no lane": {workers{subject.Detect: {withoutLane}}, backlog{textQueue: 100}, 0, 0},
		"workers of other pipelines": {workers{subject.Detect: {measured, otherPipeline}},
			backlog{textQueue: 3, marksQueue: 100}, 300 * ms, 300 * ms},
		"a stage without workers": {one, backlog{classifyQueue: 100}, 0, 0},
	} {
		a := newAdmission(nil, nil)
		a.workers, a.backlog = tt.workers, tt.backlog
		if got := a.estimateWait("text", subject.Interactive); got != tt.interactive {
			t.Errorf("%s: an interactive job waits %v, want %v", name, got, tt.interactive)
		}
		if got := a.estimateWait("text", subject.Bulk); got != tt.bulk {
			t.Errorf("%s: a bulk job waits %v, want %v", name, got, tt.bulk)
		}
	}
}

// parseRejection returns the code and the detail of the problem that Admit has returned, and
// the retry delay in seconds. It returns zero values when the job was admitted.
func parseRejection(t *testing.T, err error) (code v1.Code, detail string, seconds int) {
	t.Helper()
	if err == nil {
		return "", "", 0
	}
	var p *v1.Problem
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want a problem", err)
	}
	after, ok := retry.Delay(err)
	if !ok {
		t.Fatalf("%v has no retry delay", err)
	}
	if after%time.Second != 0 {
		t.Fatalf("%v has the retry delay %v, want whole seconds", err, after)
	}
	return p.Code, p.Detail, int(after / time.Second)
}

func TestAdmission_AdmitByBacklog(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{0: 0, 150: 0, 151: 1, 160: 1, 161: 2, 1150: 100} { // backlog: retry delay in seconds
		a := newAdmission(nil, nil)
		a.workers = map[subject.Stage][]v1.WorkerStatus{subject.Detect: {newStatus(1, map[string]float64{"marks": 100})}}
		a.backlog = map[queue]int{{"detect", "marks", "interactive"}: n}
		wantCode := v1.Overloaded
		if want == 0 {
			wantCode = ""
		}
		code, _, seconds := parseRejection(t, a.Admit(t.Context(), marks, subject.Interactive))
		if code != wantCode {
			t.Errorf("%d ahead: %q, want %q", n, code, wantCode)
		}
		if seconds != want {
			t.Errorf("%d ahead: the retry delay is %d s, want %d s", n, seconds, want)
		}
		if err := a.Admit(t.Context(), marks, subject.Bulk); err != nil {
			t.Errorf("%d ahead: bulk is rejected: %v", n, err)
		}
	}
}

// startWorker replies to status requests as a worker of stage, until stop is called.
func startWorker(t *testing.T, nc *nats.Conn, stage subject.Stage, s v1.WorkerStatus) (stop func()) {
	t.Helper()
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := nc.Subscribe(subject.Status(string(stage)), func(m *nats.Msg) { m.Respond(body) })
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAdmission_AdmitReadsTheStatusBeforeRejecting(t *testing.T) {
	t.Parallel()
	nc := bustest.StartEmpty(t).Connect(t)
	a := newAdmission(nc, nil)
	rejected := func(p pipeline.Pipeline, want string) {
		t.Helper()
		code, detail, seconds := parseRejection(t, a.Admit(t.Context(), p, subject.Interactive))
		if code != v1.NoWorker {
			t.Errorf("%s: %q, want %q", p.Name, code, v1.NoWorker)
		}
		if !strings.Contains(detail, want) {
			t.Errorf("%s: %q, want %q", p.Name, detail, want)
		}
		if seconds != 5 {
			t.Errorf("%s: the retry delay is %d s, want 5 s", p.Name, seconds)
		}
	}
	admitted := func(p pipeline.Pipeline) {
		t.Helper()
		if err := a.Admit(t.Context(), p, subject.Interactive); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
	rejected(marks, "no detect worker is ready for pipeline marks: none is running")
	stop := startWorker(t, nc, subject.Detect,
		v1.WorkerStatus{Pipelines: map[string]v1.PipelineStatus{"marks": {Reason: "no such cascade"}}})
	rejected(marks, "no such cascade")
	stop()
	startWorker(t, nc, subject.Detect, newStatus(1, map[string]float64{"text": 1, "marks": 1}))
	admitted(marks)
	rejected(text, "no classify worker is ready for pipeline text: none is running")
	startWorker(t, nc, subject.Classify, newStatus(1, map[string]float64{"text": 1}))
	admitted(text)
}

// TestAdmission_AdmitReadsTheStatusForADisconnectedClient checks that the read of the status,
// which concurrent requests share, does not end when the first client disconnects.
func TestAdmission_AdmitReadsTheStatusForADisconnectedClient(t *testing.T) {
	t.Parallel()
	nc := bustest.StartEmpty(t).Connect(t)
	startWorker(t, nc, subject.Detect, newStatus(1, map[string]float64{"marks": 1}))
	a := newAdmission(nc, nil)
	disconnected, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.Admit(disconnected, marks, subject.Interactive); err != nil {
		t.Errorf("got %v, want the job to be admitted", err)
	}
}

// TestAdmission_KeepsTheStatusOfASlowWorker covers replies that are slow because the machine is
// busy.
func TestAdmission_KeepsTheStatusOfASlowWorker(t *testing.T) {
	t.Parallel()
	nc := bustest.StartEmpty(t).Connect(t)
	body, err := json.Marshal(newStatus(1, map[string]float64{"marks": 1}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Subscribe(subject.Status("detect"), func(m *nats.Msg) {
		time.Sleep(2 * replyGap)
		m.Respond(body)
	}); err != nil {
		t.Fatal(err)
	}
	if err := newAdmission(nc, nil).Admit(t.Context(), marks, subject.Interactive); err != nil {
		t.Error(err)
	}
}

func TestAdmission_Pipelines(t *testing.T) {
	t.Parallel()
	a := newAdmission(nil, nil)
	detector, reader := v1.Model{Name: "detector"}, v1.Model{Name: "reader"}
	a.workers = map[subject.Stage][]v1.WorkerStatus{
		subject.Detect: {
			{Pipelines: map[string]v1.PipelineStatus{"text": {Reason: "still loading"}}},
			{Pipelines: map[string]v1.PipelineStatus{"text": {Ready: true, Models: []v1.Model{detector}}}},
		},
		subject.Classify: {{Pipelines: map[string]v1.PipelineStatus{
			"text": {Reason: "no language", Models: []v1.Model{reader}},
		}}},
	}
	a.statusAt = map[subject.Stage]time.Time{subject.Detect: time.Now(), subject.Classify: time.Now()}
	got := a.Pipelines()
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	for i, want := range []struct {
		state  v1.PipelineState
		reason string
		models []v1.Model
	}{
		{v1.PipelineFailed, "classify: no language", []v1.Model{detector, reader}},
		{v1.PipelineUnserved, "detect: none is running", nil},
	} {
		p := got[i]
		if p.State != want.state {
			t.Errorf("%s is %s, want %s", p.Name, p.State, want.state)
		}
		if p.Ready {
			t.Errorf("%s is ready", p.Name)
		}
		if p.Reason != want.reason {
			t.Errorf("%s: the reason is %q, want %q", p.Name, p.Reason, want.reason)
		}
		if !slices.Equal(p.Models, want.models) {
			t.Errorf("%s: the models are %v, want %v", p.Name, p.Models, want.models)
		}
	}
}

// TestAdmission_ScaleFromZero checks that with scale_from_zero, images are accepted without
// workers and while workers start, but not when workers have failed.
func TestAdmission_ScaleFromZero(t *testing.T) {
	t.Parallel()
	instance := func(s v1.PipelineStatus) []v1.WorkerStatus {
		return []v1.WorkerStatus{{Pipelines: map[string]v1.PipelineStatus{"text": s}}}
	}
	none := []v1.WorkerStatus{}
	ready := instance(v1.PipelineStatus{Ready: true})
	loads := instance(v1.PipelineStatus{Starting: true, Reason: "starting"})
	fails := instance(v1.PipelineStatus{Reason: "no such model"})
	other := []v1.WorkerStatus{{Pipelines: map[string]v1.PipelineStatus{"marks": {Ready: true}}}}
	for name, tt := range map[string]struct {
		detect, classify []v1.WorkerStatus
		warm, cold       v1.PipelineState
		coldIsReady      bool
	}{
		"all ready":        {ready, ready, v1.PipelineReady, v1.PipelineReady, true},
		"no worker":        {none, none, v1.PipelineUnserved, v1.PipelineCold, true},
		"no classify":      {ready, none, v1.PipelineUnserved, v1.PipelineCold, true},
		"workers of other": {other, ready, v1.PipelineUnserved, v1.PipelineCold, true},
		"starting":         {loads, ready, v1.PipelineStarting, v1.PipelineStarting, true},
		"one of two fails": {slices.Concat(fails, loads), ready, v1.PipelineStarting, v1.PipelineStarting, true},
		"one of two ready": {slices.Concat(fails, loads, ready), ready, v1.PipelineReady, v1.PipelineReady, true},
		"failed":           {fails, ready, v1.PipelineFailed, v1.PipelineFailed, false},
		"cold and failed":  {none, fails, v1.PipelineFailed, v1.PipelineFailed, false},
		"failed and cold":  {fails, none, v1.PipelineUnserved, v1.PipelineFailed, false},
	} {
		for _, cold := range []bool{false, true} {
			p := text
			p.ScaleFromZero = cold
			nc := bustest.StartEmpty(t).Connect(t)
			a := newAdmission(nc, nil)
			a.pipelines = []pipeline.Pipeline{p}
			for stage, workers := range map[subject.Stage][]v1.WorkerStatus{
				subject.Detect: tt.detect, subject.Classify: tt.classify,
			} {
				for _, w := range workers {
					startWorker(t, nc, stage, w)
				}
				if err := a.readWorkers(t.Context(), stage); err != nil {
					t.Fatal(err)
				}
			}
			want, accepted := tt.warm, tt.warm == v1.PipelineReady
			if cold {
				want, accepted = tt.cold, tt.coldIsReady
			}
			got := a.Pipelines()[0]
			if got.State != want {
				t.Errorf("%s, scale from zero %v: the state is %s, want %s", name, cold, got.State, want)
			}
			if got.Ready != accepted {
				t.Errorf("%s, scale from zero %v: ready is %v, want %v", name, cold, got.Ready, accepted)
			}
			if err := a.Admit(t.Context(), p, subject.Interactive); (err == nil) != accepted {
				t.Errorf("%s, scale from zero %v: %v, want it accepted: %v", name, cold, err, accepted)
			}
		}
	}
}

// startRun runs a until the test ends.
func startRun(t *testing.T, a *Admission) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func TestAdmission_RunReadsTheBacklog(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t, "text", "marks").Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c"} {
		job := subject.Job{Pipeline: "marks", Priority: subject.Interactive, ID: id}
		if _, err := js.Publish(t.Context(), subject.Images(job), nil); err != nil {
			t.Fatal(err)
		}
	}
	startWorker(t, nc, subject.Detect, newStatus(1, map[string]float64{"marks": 10_000}))
	a := newAdmission(nc, js)
	startRun(t, a)
	eventually.Succeeds(t, time.Minute, func() error {
		if d := a.estimateWait("marks", subject.Interactive); d != 30*time.Second {
			return fmt.Errorf("three jobs of 10 s for one lane take %v", d)
		}
		return nil
	})
	code, _, seconds := parseRejection(t, a.Admit(t.Context(), marks, subject.Interactive))
	if code != v1.Overloaded {
		t.Errorf("got %q, want %s", code, v1.Overloaded)
	}
	if seconds != 15 {
		t.Errorf("the retry delay is %d s, want 15", seconds)
	}
}

// TestAdmission_AdmitRequiresTheConsumers deletes a consumer, without which a ready worker gets
// no messages.
func TestAdmission_AdmitRequiresTheConsumers(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t, "text", "marks").Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	startWorker(t, nc, subject.Detect, newStatus(1, map[string]float64{"marks": 1}))
	startWorker(t, nc, "results", v1.WorkerStatus{}) // its status is not read
	a := newAdmission(nc, js)
	startRun(t, a)
	await := func(want string) {
		t.Helper()
		eventually.Succeeds(t, time.Minute, func() error {
			if got := a.Pipelines()[1].Reason; got != want {
				return fmt.Errorf("the reason of the pipeline is %q, want %q", got, want)
			}
			return nil
		})
	}
	await("")
	const consumer = "detect-marks-bulk"
	c, err := js.Consumer(t.Context(), streams.Images, consumer)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteConsumer(t.Context(), streams.Images, consumer); err != nil {
		t.Fatal(err)
	}
	await("detect: the consumer detect-marks-bulk is missing")
	code, detail, _ := parseRejection(t, a.Admit(t.Context(), marks, subject.Interactive))
	if code != v1.NoWorker {
		t.Errorf("got the code %q, want no-worker", code)
	}
	if !strings.Contains(detail, consumer) {
		t.Errorf("the detail is %q, want the consumer %s", detail, consumer)
	}
	if _, err := js.CreateConsumer(t.Context(), streams.Images, c.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	await("")
	if err := a.Admit(t.Context(), marks, subject.Interactive); err != nil {
		t.Errorf("after the consumer was created again: %v", err)
	}
}

func TestAdmission_AdmitRequiresAResultsService(t *testing.T) {
	t.Parallel()
	a := newAdmission(nil, nil)
	a.workers = map[subject.Stage][]v1.WorkerStatus{subject.Detect: {newStatus(1, map[string]float64{"marks": 1})}}
	for away, want := range map[time.Duration]v1.Code{0: "", 9 * time.Second: "", 10 * time.Second: v1.Unavailable} {
		a.results.absentSince = time.Time{}
		if away > 0 {
			a.results.absentSince = time.Now().Add(-away)
		}
		for name, admit := range map[string]func() error{
			"Admit":      func() error { return a.Admit(t.Context(), marks, subject.Interactive) },
			"AdmitLater": func() error { return a.AdmitLater(t.Context(), marks) },
		} {
			code, detail, _ := parseRejection(t, admit())
			if code != want {
				t.Errorf("%s, results absent for %v: %q, want %q", name, away, code, want)
			}
			if code != "" && !strings.Contains(detail, "no results service replies") {
				t.Errorf("%s: the detail is %q", name, detail)
			}
		}
	}
}

func TestAdmission_AdmitReservesRoomForResults(t *testing.T) {
	t.Parallel()
	a := newAdmission(nil, nil)
	a.workers = map[subject.Stage][]v1.WorkerStatus{subject.Detect: {newStatus(1, map[string]float64{"marks": 1})}}
	for _, c := range []struct {
		bytes    uint64
		maxBytes int64
		want     v1.Code
	}{{0, 0, ""}, {1 << 40, -1, ""}, {900, 1000, ""}, {901, 1000, v1.Overloaded}} {
		a.results.bytes, a.results.maxBytes = c.bytes, c.maxBytes
		code, detail, _ := parseRejection(t, a.Admit(t.Context(), marks, subject.Interactive))
		if code != c.want {
			t.Errorf("%d of %d bytes: %q, want %q", c.bytes, c.maxBytes, code, c.want)
		}
		if code != "" && !strings.Contains(detail, "RESULTS") {
			t.Errorf("the detail is %q, want the name of the stream", detail)
		}
	}
}

func TestAdmission_RunReadsTheStateOfResults(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t, "text", "marks").Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), subject.Results("marks", "j1"), make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	a := newAdmission(nc, js)
	startRun(t, a)
	state := func(want string, ok func(resultsState) bool) {
		t.Helper()
		eventually.Succeeds(t, time.Minute, func() error {
			a.mu.Lock()
			s := a.results
			a.mu.Unlock()
			if !ok(s) {
				return fmt.Errorf("results are %+v, want that %s", s, want)
			}
			return nil
		})
	}
	state("the service is absent", func(s resultsState) bool { return !s.absentSince.IsZero() })
	state("the size is known", func(s resultsState) bool { return s.bytes >= 1000 && s.maxBytes > 0 })
	sub, err := nc.Subscribe(subject.Status("results"), func(m *nats.Msg) { m.Respond([]byte("{}")) })
	if err != nil {
		t.Fatal(err)
	}
	state("the service is present", func(s resultsState) bool { return s.absentSince.IsZero() })
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	state("the service is absent again", func(s resultsState) bool { return !s.absentSince.IsZero() })
}
