package results

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
)

// cancel asks the endpoint; exactly one of the two is set.
func (b bench) cancel(t *testing.T, job string) (*v1.Cancellation, *v1.Problem) {
	t.Helper()
	m, err := b.nc.Request(subject.Cancel(job), nil, testTimeout)
	if err != nil {
		t.Fatalf("cancel %s: %v", job, err)
	}
	c, p := new(v1.Cancellation), new(v1.Problem)
	if m.Header.Get("Nats-Service-Error-Code") != "" {
		c = nil
		err = json.Unmarshal(m.Data, p)
	} else {
		p = nil
		err = json.Unmarshal(m.Data, c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, p
}

func (b bench) messageCount(t *testing.T, stream string) uint64 {
	t.Helper()
	s, err := b.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func TestCancel_QueuedJob(t *testing.T) {
	b := newBench(t, 2)
	inbox := b.nc.NewInbox()
	waits, err := b.nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	heard, err := b.nc.SubscribeSync(subject.AllCancelled()) // as a worker does
	if err != nil {
		t.Fatal(err)
	}
	h := nats.Header{v1.HeaderReply: {inbox}, v1.HeaderMetadata: {`{"camera":"3"}`}}
	b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "q"}), h, []byte("image"))
	b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "other"}), nil, []byte("image"))
	c, p := b.cancel(t, "q")
	if p != nil {
		t.Fatal(p)
	}
	if want := (v1.Cancellation{ID: "q", Was: v1.Queued, Status: v1.Failed}); *c != want {
		t.Errorf("got %+v, want %+v", *c, want)
	}
	if n := b.messageCount(t, streams.Images); n != 1 {
		t.Errorf("%d images are left, want the other one", n)
	}
	m, err := waits.NextMsg(testTimeout)
	if err != nil {
		t.Fatalf("the client that waits gets no reply: %v", err)
	}
	var r v1.Result
	if err := json.Unmarshal(m.Data, &r); err != nil {
		t.Fatal(err)
	}
	checkProblem(t, r, v1.Cancelled)
	if got := r.Metadata["camera"]; got != "3" {
		t.Errorf("the metadata has camera %q, want 3", got)
	}
	if m, err = heard.NextMsg(testTimeout); err != nil {
		t.Fatalf("the workers get no message: %v", err)
	}
	if want := subject.Cancelled("q"); m.Subject != want {
		t.Errorf("the workers get a message on %s, want %s", m.Subject, want)
	}
	// The worker that had it finishes a moment later: the first outcome counts.
	late := nats.Header{nats.MsgIdHdr: {v1.MsgID("q", "results")}}
	b.publish(t, subject.Results("text", "q"), late, v1.Result{ID: "q", Pipeline: "text", Status: v1.Done})
	if r := b.lookup(t, "q"); r.Status != v1.Failed {
		t.Errorf("the job is %s after a late outcome", r.Status)
	}
	if c, p = b.cancel(t, "q"); p != nil {
		t.Fatalf("cancelled again: %v", p)
	}
	if c.Was != v1.Failed {
		t.Errorf("cancelled again: the job was %s, want %s", c.Was, v1.Failed)
	}
}

func TestCancel_RejectsFinishedAndUnknownJobs(t *testing.T) {
	b := newBench(t, 1)
	b.publish(t, subject.Results("text", "d"), nil, v1.Result{ID: "d", Pipeline: "text", Status: v1.Done})
	for job, want := range map[string]v1.Code{"d": v1.JobFinished, "nobody": v1.UnknownJob} {
		c, p := b.cancel(t, job)
		if p == nil {
			t.Fatalf("%s is cancelled: %+v, want %s", job, *c, want)
		}
		if p.Code != want {
			t.Errorf("%s: %v, want %s", job, p, want)
		}
	}
}

func TestCancel_RejectsUnknownHeaders(t *testing.T) {
	b := newBench(t, 1)
	request := &nats.Msg{Subject: subject.Cancel("q"), Header: nats.Header{"Sight-Note": {"1"}}}
	m, err := b.nc.RequestMsg(request, testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	var p v1.Problem
	if err := json.Unmarshal(m.Data, &p); err != nil {
		t.Fatal(err)
	}
	if p.Code != v1.UnknownField {
		t.Errorf("the code is %q, want %s", p.Code, v1.UnknownField)
	}
	if p.Field != "Sight-Note" {
		t.Errorf("the field is %q, want Sight-Note", p.Field)
	}
}

func TestLookup_ExpiredResultIsUnknownLater(t *testing.T) {
	b := newBench(t, 1)
	s, err := b.js.Stream(t.Context(), streams.Results)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxAge, cfg.Duplicates, cfg.SubjectDeleteMarkerTTL = time.Second, time.Second, 3*time.Second
	if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	b.publish(t, subject.Results("text", "old"), nil, v1.Result{ID: "old", Pipeline: "text", Status: v1.Done})
	for _, want := range []v1.Code{v1.JobExpired, v1.UnknownJob} {
		eventually.Succeeds(t, testTimeout, func() error {
			r := b.lookup(t, "old")
			if r.Problem == nil {
				return fmt.Errorf("the job is %s, want the problem %s", r.Status, want)
			}
			if r.Problem.Code != want {
				return fmt.Errorf("the problem is %s, want %s", r.Problem.Code, want)
			}
			return nil
		})
	}
}

// staleReads returns a JetStream that answers reads of a stream with "not found"
// where isStale reports true of the request, as a new leader does that has not
// caught up. The test passes all other requests on to the server.
func (b bench) staleReads(t *testing.T, stream string, isStale func(request []byte) bool) jetstream.JetStream {
	t.Helper()
	const prefix = "behind"
	sub, err := b.nc.Subscribe(prefix+".>", func(m *nats.Msg) {
		if m.Subject == prefix+".STREAM.MSG.GET."+stream && isStale(m.Data) {
			m.Respond([]byte(`{"error":{"code":404,"err_code":10037,"description":"no message found"}}`))
			return
		}
		to := jetstream.DefaultAPIPrefix + strings.TrimPrefix(m.Subject, prefix+".")
		if err := b.nc.PublishRequest(to, m.Reply, m.Data); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	behind, err := jetstream.NewWithAPIPrefix(b.nc, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return behind
}

func (b bench) newPublisher() *bus.Publisher {
	return bus.NewPublisher(b.js, clock.New(time.Now), noop.NewTracerProvider())
}

// newStaleCancel returns a cancel whose first reads of a stream find nothing.
func (b bench) newStaleCancel(t *testing.T, stream string, reads int64) *canceller {
	t.Helper()
	var left atomic.Int64
	left.Store(reads)
	behind := b.staleReads(t, stream, func([]byte) bool { return left.Add(-1) >= 0 })
	l := newLookup(behind, slog.New(slog.DiscardHandler))
	return newCanceller(b.nc, l, b.newPublisher(), promauto.With(prometheus.NewRegistry()))
}

// TestCancel_ReturnsTheFirstOutcome reads from a leader whose state is older than the write of the outcome.
func TestCancel_ReturnsTheFirstOutcome(t *testing.T) {
	t.Parallel()
	cancelled := v1.Result{Status: v1.Failed, Problem: v1.NewProblem(v1.Cancelled, "by another replica")}
	for name, c := range map[string]struct {
		first   *v1.Result // stored by another process; nil for none
		stale   int64
		timeout time.Duration
		want    v1.Code // of the problem; empty for none
		err     error   // instead of a problem
	}{
		"this one is first":           {nil, 1000, testTimeout, "", nil},
		"another cancel was first":    {&cancelled, 3, testTimeout, "", nil},
		"another outcome was first":   {&v1.Result{Status: v1.Done}, 3, testTimeout, v1.JobFinished, nil},
		"the first can never be read": {&cancelled, 1 << 40, lookupTimeout, "", context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 0)
			b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "j"}), nil, []byte("image"))
			if c.first != nil {
				b.publish(t, subject.Results("text", "j"), nil, c.first)
			}
			ctx, end := context.WithTimeout(t.Context(), c.timeout)
			defer end()
			body, err := b.newStaleCancel(t, streams.Results, c.stale).cancelJob(ctx, "j")
			code := v1.Code("")
			var p *v1.Problem
			if errors.As(err, &p) {
				code, err = p.Code, nil
			}
			if code != c.want {
				t.Fatalf("got %s, %v, want %q", body, p, c.want)
			}
			if !errors.Is(err, c.err) {
				t.Fatalf("got %s and the error %v, want %v", body, err, c.err)
			}
			left := uint64(1)
			if c.want == "" && c.err == nil {
				left = 0 // the job is cancelled
			}
			if n := b.messageCount(t, streams.Images); n != left {
				t.Errorf("%d images of the job are left, want %d", n, left)
			}
		})
	}
}

// TestCancel_OutcomeHasTheHeadersOfTheJob: also when a new leader of the stream
// of the job does not have its message yet.
func TestCancel_OutcomeHasTheHeadersOfTheJob(t *testing.T) {
	t.Parallel()
	h := nats.Header{v1.HeaderCallback: {"https://client.example/done"}, v1.HeaderReport: {"r/0/1"}}
	for stream, subj := range map[string]string{
		streams.Images:  subject.Images(subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "j"}),
		streams.Crops:   subject.Crops(subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "j"}),
		streams.Parts:   subject.Parts(subject.Job{Pipeline: "text", ID: "j"}),
		streams.Fetches: subject.Fetches("text", "j"),
	} {
		t.Run(stream, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 0)
			b.publish(t, subj, h, []byte("{}"))
			ctx, end := context.WithTimeout(t.Context(), testTimeout)
			defer end()
			if _, err := b.newStaleCancel(t, stream, 3).cancelJob(ctx, "j"); err != nil {
				t.Fatal(err)
			}
			s, err := b.js.Stream(t.Context(), streams.Results)
			if err != nil {
				t.Fatal(err)
			}
			m, err := s.GetLastMsgForSubject(t.Context(), subject.Results("text", "j"))
			if err != nil {
				t.Fatal(err)
			}
			for name := range h {
				if got := m.Header.Get(name); got != h.Get(name) {
					t.Errorf("the outcome has %s %q, want %q", name, got, h.Get(name))
				}
			}
		})
	}
}

// TestCancel_ReturnsTheOutcomeOfAJobThatFinishes cancels a job that no longer waits in a stream. The leader of RESULTS
// does not have its outcome yet.
func TestCancel_ReturnsTheOutcomeOfAJobThatFinishes(t *testing.T) {
	t.Parallel()
	b := newBench(t, 0)
	b.publish(t, subject.Results("text", "j"), nil, v1.Result{ID: "j", Pipeline: "text", Status: v1.Done})
	ctx, end := context.WithTimeout(t.Context(), testTimeout)
	defer end()
	was := v1.Result{ID: "j", Pipeline: "text", Status: v1.Running}
	outcome, err := b.newStaleCancel(t, streams.Results, 3).end(ctx, was)
	if err != nil {
		t.Fatal(err)
	}
	if outcome.Status != v1.Done {
		t.Errorf("the job is %s, want done", outcome.Status)
	}
}

// TestCancel_StoresNoOutcomeWithoutTheJob: the headers of a job that cannot be read
// in the time of the request are not left out of its outcome.
func TestCancel_StoresNoOutcomeWithoutTheJob(t *testing.T) {
	t.Parallel()
	b := newBench(t, 0)
	b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "j"}), nil, []byte("image"))
	ctx, end := context.WithTimeout(t.Context(), lookupTimeout)
	defer end()
	_, err := b.newStaleCancel(t, streams.Images, 1<<40).cancelJob(ctx, "j")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got the error %v, want %v", err, context.DeadlineExceeded)
	}
	if n := b.messageCount(t, streams.Results); n != 0 {
		t.Errorf("%d outcomes, want none", n)
	}
}
