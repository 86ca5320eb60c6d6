package results

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
)

// shortDeadlines returns flags for pipelines whose jobs expire after a second.
func shortDeadlines(t *testing.T) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pipelines.yaml")
	const pipelines = `pipelines:
  - name: text
    deadline: 1s
    bulk_deadline: 1s
    text: true
    detect: {kind: text-lines}
    classify: {kind: tesseract}
  - name: faces
    deadline: 1s
    bulk_deadline: 1s
    detect: {kind: cascade}
`
	if err := os.WriteFile(file, []byte(pipelines), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--pipelines", file, "--sweep", "100ms"}
}

// TestSweeper_FailsJobsAfterTheirDeadline has jobs in each stream and no workers. Each job has
// an outcome soon after its deadline.
func TestSweeper_FailsJobsAfterTheirDeadline(t *testing.T) {
	b := newBench(t, 2, shortDeadlines(t)...)
	replies, err := b.nc.SubscribeSync("_INBOX.waiting")
	if err != nil {
		t.Fatal(err)
	}
	jobs := map[string]string{
		"image": subject.Images(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "image"}),
		"bulk":  subject.Images(subject.Job{Pipeline: "faces", Priority: subject.Bulk, ID: "bulk"}),
		"crops": subject.Crops(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "crops"}),
		"part":  subject.Parts(subject.Job{Pipeline: "text", ID: "part"}),
		"fetch": subject.Fetches("text", "fetch"),
	}
	for id, subj := range jobs {
		h := nats.Header{
			v1.HeaderMetadata: {`{"of":"` + id + `"}`},
			v1.HeaderDeadline: {time.Now().Add(time.Second).Format(time.RFC3339Nano)},
		}
		if id == "image" {
			h.Set(v1.HeaderReply, "_INBOX.waiting")
		}
		b.publish(t, subj, h, part(0, 2))
	}
	for id := range jobs {
		r := b.awaitStatus(t, id, v1.Failed)
		checkProblem(t, r, v1.DeadlineExceeded)
		if r.Metadata["of"] != id {
			t.Errorf("%s has metadata %v", id, r.Metadata)
		}
	}
	if _, err := replies.NextMsg(testTimeout); err != nil {
		t.Errorf("the request that waits gets no reply: %v", err)
	}
	if n := b.messageCount(t, streams.Images); n != 2 {
		t.Errorf("%d images are left, want that the sweeper deletes none of 2", n)
	}
}

// TestSweeper_KeepsJobsBeforeTheirDeadline checks that a job has no outcome before its deadline, even when its message
// is older than the deadline of its pipeline.
func TestSweeper_KeepsJobsBeforeTheirDeadline(t *testing.T) {
	b := newBench(t, 1, shortDeadlines(t)...)
	h := func(d time.Duration) nats.Header {
		return nats.Header{v1.HeaderDeadline: {time.Now().Add(d).Format(time.RFC3339Nano)}}
	}
	b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "late"}),
		h(time.Hour), []byte("image"))
	b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "soon"}),
		h(time.Second), []byte("image"))
	b.awaitStatus(t, "soon", v1.Failed)
	if r := b.lookup(t, "late"); r.Status != v1.Queued {
		t.Errorf("the job that has time is %+v, want queued", r)
	}
}

// TestSweeper_DeadlineIsBounded: a job whose client chose a deadline later than
// any that a pipeline may have ends before the stream deletes its message for its
// age.
func TestSweeper_DeadlineIsBounded(t *testing.T) {
	w := newSweeper(&Service{}, time.Minute, promauto.With(prometheus.NewRegistry()))
	stored := time.Now()
	for _, q := range w.queue {
		h := nats.Header{v1.HeaderDeadline: {stored.Add(48 * time.Hour).Format(time.RFC3339Nano)}}
		m := &jetstream.RawStreamMsg{Time: stored, Header: h}
		if got, bound := w.deadline(q, m), stored.Add(pipeline.MaxDuration); got.After(bound) {
			t.Errorf("%s: the deadline is %s, want at most %s", q.filter, got, bound)
		}
	}
	if pipeline.MaxDuration >= streams.DefaultWorkAge {
		t.Errorf("the bound is %v, and streams keep work for %v", pipeline.MaxDuration, streams.DefaultWorkAge)
	}
}

// TestSweeper_LeavesTheFirstOutcome: a job that is done stays done, although
// its message is still there.
func TestSweeper_LeavesTheFirstOutcome(t *testing.T) {
	b := newBench(t, 2, shortDeadlines(t)...)
	past := nats.Header{v1.HeaderDeadline: {time.Now().Format(time.RFC3339Nano)}}
	b.publish(t, subject.Results("text", "done"), nil, v1.Result{ID: "done", Pipeline: "text", Status: v1.Done})
	b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "done"}),
		past, []byte("image"))
	b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "behind"}),
		past, []byte("image"))
	b.awaitStatus(t, "behind", v1.Failed)
	if r := b.lookup(t, "done"); r.Status != v1.Done {
		t.Errorf("the job that was done is %s", r.Status)
	}
}

// TestSweeper_JoinsPartsThatWereNotJoined has all parts of a job, acknowledged and not joined, as after a count that
// missed the last part.
func TestSweeper_JoinsPartsThatWereNotJoined(t *testing.T) {
	b := newBench(t, 0)
	const n = 3
	for i := range n {
		b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "job", Part: i}), nil, part(i, n))
	}
	b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "half"}), nil, part(0, 2))
	b.ackParts(t, n+1)
	startReplica(t, b.url, "--sweep", "100ms")
	r := b.awaitStatus(t, "job", v1.Done)
	checkText(t, r, "line 0\nline 1\nline 2\n")
	if r := b.lookup(t, "half"); r.Status != v1.Running {
		t.Errorf("the job of which a part is missing is %s, want running", r.Status)
	}
}

// ackParts acknowledges n parts that are not joined then.
func (b bench) ackParts(t *testing.T, n int) {
	t.Helper()
	c, err := b.js.Consumer(t.Context(), streams.Parts, streams.PartsConsumer)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		m, err := c.Next(jetstream.FetchMaxWait(testTimeout))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSweeper_ResultThatIsTooLargeFailsAtOnce has a job with a deadline far in the future.
// The sweep continues after it.
func TestSweeper_ResultThatIsTooLargeFailsAtOnce(t *testing.T) {
	b := newBench(t, 0)
	b.storeLargeParts(t, "large")
	b.ackParts(t, 2)
	startReplica(t, b.url, "--sweep", "100ms")
	b.checkTooLarge(t, "large")
}

// TestSweeper_FinishesReports: every image of a report has an outcome soon
// after its deadline: one that was never fetched, and one whose result is not
// yet counted.
func TestSweeper_FinishesReports(t *testing.T) {
	b := newBench(t, 0)
	now := time.Now().UTC()
	m := v1.Manifest{
		ID: "r1", Pipeline: "text", Accepted: now.Add(-time.Hour), Deadline: now.Add(-time.Minute),
		Images: []v1.ReportSource{{}, {}}, Callback: "https://client.example/done",
	}
	b.publish(t, subject.Report("r1"), nil, m)
	b.publish(t, subject.Results("text", "r1-1"), nil, v1.Result{ID: "r1-1", Pipeline: "text", Status: v1.Done})
	startReplica(t, b.url, "--sweep", "100ms")
	b.waitForMessages(t, streams.Callbacks, 1)
	s, err := b.js.Stream(t.Context(), streams.Reports)
	if err != nil {
		t.Fatal(err)
	}
	var end *jetstream.RawStreamMsg
	eventually.Succeeds(t, testTimeout, func() error {
		end, err = s.GetLastMsgForSubject(t.Context(), subject.ReportFinished("r1"))
		return err
	})
	var r v1.Report
	if err := json.Unmarshal(end.Data, &r); err != nil {
		t.Fatal(err)
	}
	if want := (v1.Counts{Total: 2, Done: 1, Failed: 1}); r.Counts != want {
		t.Errorf("counts %+v, want %+v", r.Counts, want)
	}
}

// TestOutcome_IsWrittenOnce: a later outcome changes nothing, also when the
// stream no longer knows the message id of the first.
func TestOutcome_IsWrittenOnce(t *testing.T) {
	b := newBench(t, 1)
	s, err := b.js.Stream(t.Context(), streams.Results)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.Duplicates = 100 * time.Millisecond
	if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "job", Part: i}), nil, part(i, 2))
	}
	b.awaitStatus(t, "job", v1.Done)
	eventually.Succeeds(t, testTimeout, func() error { // until the stream has forgotten the ID of the outcome
		ack, err := b.js.Publish(t.Context(), subject.Results("text", "job"), nil,
			jetstream.WithMsgID(v1.MsgID("job", v1.MsgResults)), jetstream.WithExpectLastSequence(1_000_000))
		if !streams.IsWrongLastSequence(err) {
			return fmt.Errorf("got %+v, want no duplicate, and the error of the wrong sequence: %w", ack, err)
		}
		return nil
	})
	for i := range 2 { // a worker that was paused stores its parts again
		bad := part(i, 2)
		bad.Problem = v1.NewProblem(v1.DeadlineExceeded, "it woke up late")
		b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "job", Part: i}), nil, bad)
	}
	b.awaitNoParts(t)
	if r := b.lookup(t, "job"); r.Status != v1.Done {
		t.Errorf("the job was done and is %s now", r.Status)
	}
	if n := b.messageCount(t, streams.Results); n != 1 {
		t.Errorf("%d results, want 1", n)
	}
}

// TestJoin_RedeliversPartsOfAKilledProcess checks that parts that were delivered to a process that died are delivered
// again, although another job was joined meanwhile. A purge by subject under a wider consumer loses them.
func TestJoin_RedeliversPartsOfAKilledProcess(t *testing.T) {
	b := newBench(t, 0)
	c, err := b.js.Consumer(t.Context(), streams.Parts, streams.PartsConsumer)
	if err != nil {
		t.Fatal(err)
	}
	parts := func(id string) {
		for i := range 3 {
			b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: id, Part: i}), nil, part(i, 3))
		}
	}
	parts("inhand")
	batch, err := c.Fetch(3, jetstream.FetchMaxWait(testTimeout)) // by a process that dies
	if err != nil {
		t.Fatal(err)
	}
	for range batch.Messages() {
	}
	// A sweep takes longer than the test: the consumer alone has to do it.
	startReplica(t, b.url, "--sweep", "1h")
	for i := range 5 {
		id := fmt.Sprint("other", i)
		parts(id)
		b.awaitStatus(t, id, v1.Done)
	}
	b.awaitStatus(t, "inhand", v1.Done)
}

// TestSweeper_RetriesAMessageThatALeaderHasNotReceived checks that a message that is not found in one sweep is read
// again in the next, and is forgotten when the second does not find it either.
func TestSweeper_RetriesAMessageThatALeaderHasNotReceived(t *testing.T) {
	for name, c := range map[string]struct {
		stale   int64 // sweeps
		outcome bool
	}{
		"one sweep":  {1, true},
		"two sweeps": {2, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 0)
			var left atomic.Int64
			left.Store(c.stale)
			w := newSweeper(&Service{
				js: b.staleReads(t, streams.Images, func(request []byte) bool {
					return !bytes.Contains(request, []byte("next_by_subj")) && left.Add(-1) >= 0
				}),
				publisher: b.newPublisher(), log: slog.New(slog.DiscardHandler),
				pipelines: map[string]pipeline.Pipeline{
					"text": {Name: "text", Deadline: time.Nanosecond, BulkDeadline: time.Nanosecond},
				},
			}, time.Minute, promauto.With(prometheus.NewRegistry()))
			later := w.queue[0].later
			b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "j"}),
				nats.Header{v1.HeaderDeadline: {time.Now().Add(time.Hour).Format(time.RFC3339Nano)}}, []byte("image"))
			sweep := func() {
				if err := w.expireIn(t.Context(), streams.Images); err != nil {
					t.Fatal(err)
				}
			}
			sweep()
			if len(later) != 1 {
				t.Fatalf("%d messages have a later deadline, want 1", len(later))
			}
			for seq := range later {
				later[seq] = laterMessage{deadline: time.Now().Add(-time.Second)}
			}
			for range c.stale + 1 {
				sweep()
			}
			if n := b.messageCount(t, streams.Results); (n == 1) != c.outcome {
				t.Errorf("%d outcomes, want one: %v", n, c.outcome)
			}
			if len(later) != 0 {
				t.Errorf("%d messages have a later deadline still", len(later))
			}
		})
	}
}

// TestSweeper_WritesNothingAfterTheMargin: the outcome of such a job may be there
// no more, nor what says that there was one, and a second one would differ.
func TestSweeper_WritesNothingAfterTheMargin(t *testing.T) {
	b := newBench(t, 0)
	ago := func(d time.Duration) nats.Header {
		return nats.Header{v1.HeaderDeadline: {time.Now().Add(-d).Format(time.RFC3339Nano)}}
	}
	const long = streams.DeadlineMargin + time.Minute
	crops := func(id string) string {
		return subject.Crops(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: id})
	}
	b.publish(t, crops("crops"), ago(long), []byte("crops"))
	b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "half"}), ago(long), part(0, 2))
	for i := range 2 {
		b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "complete", Part: i}), ago(long), part(i, 2))
	}
	// Those behind them have an outcome, and so the sweeper has read all.
	b.publish(t, crops("crops-behind"), ago(time.Minute), []byte("crops"))
	b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "half-behind"}), ago(time.Minute), part(0, 2))
	for i := range 2 {
		b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "complete-behind", Part: i}), nil, part(i, 2))
	}
	b.ackParts(t, 6)
	startReplica(t, b.url, shortDeadlines(t)...)
	for _, job := range []string{"crops-behind", "half-behind"} {
		b.checkExpired(t, job)
	}
	b.awaitStatus(t, "complete-behind", v1.Done)
	for _, job := range []string{"crops", "half", "complete"} {
		if r := b.lookup(t, job); r.Final() {
			t.Errorf("%s has the outcome %s, %v after its deadline", job, r.Status, long)
		}
	}
}

// TestSweeper_FailsAnImageThatArrivesAfterItsDeadline publishes an image whose deadline has passed long before. Its job
// has the outcome deadline-exceeded.
func TestSweeper_FailsAnImageThatArrivesAfterItsDeadline(t *testing.T) {
	b := newBench(t, 1, shortDeadlines(t)...)
	b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "late"}),
		nats.Header{v1.HeaderDeadline: {time.Now().Add(-2 * streams.DeadlineMargin).Format(time.RFC3339Nano)}},
		[]byte("image"))
	b.checkExpired(t, "late")
}

// TestSweeper_ContinuesAfterAMessageThatFails has an image whose headers leave no space for those of its outcome, and
// an invalid message among the parts.
func TestSweeper_ContinuesAfterAMessageThatFails(t *testing.T) {
	b := newBench(t, 0)
	past := time.Now().UTC().Add(-time.Minute).Format(time.RFC3339Nano)
	for _, id := range []string{"first", "edge", "last"} {
		h := nats.Header{v1.HeaderDeadline: {past}}
		if id == "edge" {
			h.Set(v1.HeaderMetadata, `{"k":"`+strings.Repeat("m", 65_350)+`"}`)
		}
		b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: id}), h, []byte("image"))
	}
	b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "garbage"}), nil, []byte("no part"))
	for i := range 2 {
		b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "whole", Part: i}), nil, part(i, 2))
	}
	b.ackParts(t, 3)
	startReplica(t, b.url, shortDeadlines(t)...)
	for _, id := range []string{"first", "edge", "last"} {
		b.checkExpired(t, id)
	}
	b.awaitStatus(t, "whole", v1.Done)
}
