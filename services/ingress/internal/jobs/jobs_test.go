package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second // only ends tests that would hang

var text = pipeline.Pipeline{Name: "text", Deadline: time.Minute, BulkDeadline: time.Hour}

type bench struct {
	*Jobs
	nc *nats.Conn // of everybody else
	js jetstream.JetStream
}

func newBench(t *testing.T) bench {
	t.Helper()
	s := bustest.Start(t, "text")
	j := newJobs(t, s)
	return bench{j, s.Connect(t), j.js}
}

// newJobs returns Jobs on a connection of their own, which end with the test.
func newJobs(t *testing.T, s *bustest.Server) *Jobs {
	t.Helper()
	nc := s.Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	j, err := New(t.Context(), nc, js, bus.NewPublisher(js, noop.NewTracerProvider()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func (b bench) submit(t *testing.T, prio subject.Priority) *Job {
	t.Helper()
	job, err := b.Submit(t.Context(), Request{Pipeline: text, Priority: prio, Picture: []byte("picture")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(job.Forget)
	return job
}

// stored returns the message of a job in IMAGES.
func (b bench) stored(t *testing.T, job *Job, prio subject.Priority) *jetstream.RawStreamMsg {
	t.Helper()
	s, err := b.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(t.Context(), subject.Images(subject.Job{Pipeline: "text", Priority: prio, ID: job.ID}))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func done(t *testing.T, id string) []byte {
	t.Helper()
	body, err := json.Marshal(v1.Result{ID: id, Pipeline: "text", Status: v1.Done, Regions: []v1.Region{}, Timings: &v1.Timings{}})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func (b bench) send(t *testing.T, m *nats.Msg) {
	t.Helper()
	if err := b.nc.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
}

func (b bench) waits() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting)
}

func TestSubmitSaysWhatTheJobNeeds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for prio, want := range map[subject.Priority]time.Duration{subject.Interactive: time.Minute, subject.Bulk: time.Hour} {
		m := b.stored(t, b.submit(t, prio), prio)
		accepted, err := time.Parse(time.RFC3339Nano, m.Header.Get(v1.HeaderAccepted))
		if err != nil {
			t.Fatal(err)
		}
		deadline, err := time.Parse(time.RFC3339Nano, m.Header.Get(v1.HeaderDeadline))
		if err != nil {
			t.Fatal(err)
		}
		if got := deadline.Sub(accepted); got != want || string(m.Data) != "picture" {
			t.Errorf("%s: %v until the deadline of %q, want %v", prio, got, m.Data, want)
		}
	}
}

// TestSubmit_OneJobOnReplicatedStreams submits each of several jobs on all
// servers of a cluster at once, as requests with the same key do. Most meet
// another one in flight.
func TestSubmit_OneJobOnReplicatedStreams(t *testing.T) {
	t.Parallel()
	const jobs, submits = 8, 16
	var ingresses []*Jobs
	for _, s := range bustest.StartCluster(t, 3, "text").Servers {
		ingresses = append(ingresses, newJobs(t, s))
	}
	for n := range jobs {
		id := fmt.Sprint("job-", n)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range submits {
			wg.Go(func() {
				<-start
				job, err := ingresses[i%len(ingresses)].Submit(t.Context(), Request{ID: id, Pipeline: text, Priority: subject.Interactive, Picture: []byte("picture")})
				if err != nil {
					t.Errorf("%s, submit %d: %v", id, i, err)
					return
				}
				job.Forget()
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

func TestReplyReachesItsJobOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	one, two := b.submit(t, subject.Interactive), b.submit(t, subject.Interactive)
	to := func(j *Job) string { return b.stored(t, j, subject.Interactive).Header.Get(v1.HeaderReply) }
	answered := nats.Header{v1.HeaderStored: {time.Now().Add(-time.Hour).Format(time.RFC3339Nano)}}
	b.send(t, &nats.Msg{Subject: to(two), Data: done(t, two.ID), Header: answered})
	b.send(t, &nats.Msg{Subject: to(two), Data: []byte("a second one")})
	b.send(t, &nats.Msg{Subject: b.inbox + ".nobody", Data: []byte("for nobody")})
	b.send(t, &nats.Msg{Subject: to(one), Data: done(t, one.ID)})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, job := range []*Job{one, two} {
		r, err := job.Wait(ctx)
		if err != nil || r.ID != job.ID || r.Status != v1.Done {
			t.Errorf("%s got %+v, %v", job.ID, r, err)
		}
		if late := r.Timings.Reply >= v1.Milliseconds(time.Hour); late != (job == two) {
			t.Errorf("%s: the reply took %v ms", job.ID, r.Timings.Reply)
		}
	}
	if n := b.waits(); n != 0 {
		t.Errorf("%d jobs are still waited for", n)
	}
}

func TestWaitFindsAnAnswerWhoseReplyWasLost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	job := b.submit(t, subject.Interactive)
	if _, err := b.js.Publish(t.Context(), subject.Results("text", job.ID), done(t, job.ID)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if r, err := job.Wait(ctx); err != nil || r.Status != v1.Done {
		t.Errorf("got %+v, %v, want the stored answer", r, err)
	}
}

// respond plays the results service.
func (b bench) respond(t *testing.T, m *nats.Msg) {
	t.Helper()
	sub, err := b.nc.Subscribe(subject.Lookup("*"), func(request *nats.Msg) { request.RespondMsg(m) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestWaitThatEndsSaysWhereTheJobIs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reply  *nats.Msg // of the results service; nil for none
		status v1.Status
		ended  bool
	}{
		"running":                     {&nats.Msg{Data: []byte(`{"status":"running"}`)}, v1.Running, true},
		"answered in the last moment": {&nats.Msg{Data: []byte(`{"status":"done"}`)}, v1.Done, false},
		"failed in the last moment":   {&nats.Msg{Data: []byte(`{"status":"failed"}`)}, v1.Failed, false},
		"nobody can say":              {nil, v1.Queued, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			if tt.reply != nil {
				b.respond(t, tt.reply)
			}
			job := b.submit(t, subject.Interactive)
			ctx, cancel := context.WithTimeout(t.Context(), 0)
			defer cancel()
			r, err := job.Wait(ctx)
			if r.Status != tt.status || errors.Is(err, context.DeadlineExceeded) != tt.ended {
				t.Errorf("got %+v, %v, want %s", r, err, tt.status)
			}
		})
	}
}

func TestNothingWaitsForAJobThatWasNotStored(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s, err := b.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxMsgs = 1
	if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	b.submit(t, subject.Interactive)
	if _, err := b.Submit(t.Context(), Request{Pipeline: text, Priority: subject.Interactive}); !errors.Is(err, bus.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if n := b.waits(); n != 1 {
		t.Errorf("%d jobs are waited for, want the one that was stored", n)
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	problem, err := json.Marshal(v1.NewProblem(v1.UnknownJob, "never heard of it"))
	if err != nil {
		t.Fatal(err)
	}
	failed := nats.Header{"Nats-Service-Error-Code": {"404"}}
	for name, tt := range map[string]struct {
		id    string
		reply *nats.Msg
		code  v1.Code // of the problem
		wrong string  // part of an error that is no problem
	}{
		"an answer":        {"j1", &nats.Msg{Data: []byte(`{"id":"j1","status":"done"}`)}, "", ""},
		"no id":            {"", nil, v1.UnknownJob, ""},
		"wildcard":         {"*", nil, v1.UnknownJob, ""},
		"several tokens":   {"a.b", nil, v1.UnknownJob, ""},
		"nobody answers":   {"j1", nil, v1.Unavailable, ""},
		"no such job":      {"j1", &nats.Msg{Header: failed, Data: problem}, v1.UnknownJob, ""},
		"a broken problem": {"j1", &nats.Msg{Header: failed, Data: []byte("oops")}, "", "decode problem"},
		"a broken answer":  {"j1", &nats.Msg{Data: []byte("oops")}, "", "decode answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			if tt.reply != nil {
				b.respond(t, tt.reply)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r, err := b.Lookup(ctx, tt.id)
			var p *v1.Problem
			switch {
			case tt.code != "":
				if !errors.As(err, &p) || p.Code != tt.code {
					t.Errorf("got %v, want %s", err, tt.code)
				}
			case tt.wrong != "":
				if err == nil || errors.As(err, &p) || !strings.Contains(err.Error(), tt.wrong) {
					t.Errorf("got %v, want an error that says %q", err, tt.wrong)
				}
			case err != nil || r.ID != "j1" || r.Status != v1.Done:
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}
