package results

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/internal/run/runtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout limits waits that only a test that hangs reaches.
const testTimeout = time.Minute

// startReplica runs the whole service against the server until the test ends.
func startReplica(t *testing.T, url string, args ...string) *runtest.Service {
	t.Helper()
	var o Options
	replica := runtest.Start(t, run.Spec{
		Name: "results", Flags: o.Register,
		New: func(p *run.Process) (run.Service, error) { return New(p, o) },
	}, append([]string{"--nats", url}, args...)...)
	t.Cleanup(func() {
		replica.Stop()
		if err := replica.Wait(t); err != nil {
			t.Errorf("results ended with %v", err)
		}
	})
	replica.AwaitReady(t)
	return replica
}

type bench struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	url string
}

func newBench(t *testing.T, replicas int, args ...string) bench {
	t.Helper()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	for range replicas {
		startReplica(t, s.URL, args...)
	}
	nc := s.Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return bench{nc, js, s.URL}
}

func (b bench) publish(t *testing.T, subj string, h nats.Header, body any) {
	t.Helper()
	data, ok := body.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.js.PublishMsg(context.Background(), &nats.Msg{Subject: subj, Header: h, Data: data}); err != nil {
		t.Fatalf("publish %s: %v", subj, err)
	}
}

func part(i, n int) v1.Part {
	return v1.Part{
		Part: i, Parts: n, Image: v1.Image{Type: "image/png", Width: 100, Height: 100},
		Models:  []v1.Model{{Name: "reader"}},
		Timings: v1.Timings{Queue: float64(i), Classify: float64(10 - i)},
		Regions: []v1.PartRegion{{Number: i, Region: v1.Region{Text: fmt.Sprintf("line %d", i)}}},
	}
}

func TestJoin_ByReplicas(t *testing.T) {
	const jobs, parts = 40, 5
	b := newBench(t, 2)
	inbox := b.nc.NewInbox()
	replies := make(chan *nats.Msg, 10*jobs)
	sub, err := b.nc.ChanSubscribe(inbox+".*", replies)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	for j := range jobs {
		h := nats.Header{v1.HeaderReply: {fmt.Sprintf("%s.job%d", inbox, j)}}
		for i := parts - 1; i >= 0; i-- { // the order in which they come must not matter
			b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: fmt.Sprint("job", j), Part: i}), h, part(i, parts))
		}
	}
	received := map[string]v1.Result{}
	for len(received) < jobs {
		select {
		case m := <-replies:
			var r v1.Result
			if err := json.Unmarshal(m.Data, &r); err != nil {
				t.Fatal(err)
			}
			if want := inbox + "." + r.ID; m.Subject != want {
				t.Errorf("the result of %s arrived on %s, want %s", r.ID, m.Subject, want)
			}
			received[r.ID] = r
		case <-time.After(testTimeout):
			t.Fatalf("%d of %d jobs have a reply", len(received), jobs)
		}
	}
	for id, r := range received {
		if r.Status != v1.Done {
			t.Errorf("%s is %s, want %s", id, r.Status, v1.Done)
		}
		checkText(t, r, "line 0\nline 1\nline 2\nline 3\nline 4\n")
		if got, want := r.Timings.Queue, 4.0; got != want {
			t.Errorf("%s: the queue wait is %v ms, want that of the slowest part, %v", id, got, want)
		}
		if got, want := r.Timings.Classify, 10.0; got != want {
			t.Errorf("%s: the time of classify is %v ms, want that of the slowest part, %v", id, got, want)
		}
		if got := r.Timings.Join; got <= 0 {
			t.Errorf("%s: the time of the join is %v ms, want more than 0", id, got)
		}
		if len(r.Models) != 1 {
			t.Errorf("%s: models %v, want each once", id, r.Models)
		}
	}
	results, err := b.js.Stream(context.Background(), streams.Results)
	if err != nil {
		t.Fatal(err)
	}
	if n := results.CachedInfo().State.Msgs; n != jobs {
		t.Errorf("%d results are stored, want one for each of %d jobs", n, jobs)
	}
	b.awaitNoParts(t)
}

// storeLargeParts stores two parts of a job whose result is larger than RESULTS accepts
// from then on.
func (b bench) storeLargeParts(t *testing.T, job string) {
	t.Helper()
	const limit = 4000
	s, err := b.js.Stream(t.Context(), streams.Results)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxMsgSize = limit
	if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		p := part(i, 2)
		p.Regions[0].Text = strings.Repeat("x", limit/2)
		b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: job, Part: i}), nil, p)
	}
}

// checkTooLarge waits for the outcome of a job whose result is too large.
func (b bench) checkTooLarge(t *testing.T, job string) {
	t.Helper()
	r := b.awaitOutcome(t, job)
	checkProblem(t, r, v1.Internal)
	if !strings.Contains(r.Problem.Detail, "bytes") {
		t.Errorf("the detail is %q, want how many bytes there are", r.Problem.Detail)
	}
}

// TestJoin_ResultThatIsTooLargeFailsAtOnce: its deadline is far away, and the
// next job is joined.
func TestJoin_ResultThatIsTooLargeFailsAtOnce(t *testing.T) {
	b := newBench(t, 1, "--sweep", "1h")
	b.storeLargeParts(t, "large")
	for i := range 2 {
		b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "small", Part: i}), nil, part(i, 2))
	}
	b.checkTooLarge(t, "large")
	b.awaitStatus(t, "small", v1.Done)
}

// awaitStatus waits until a job has a status, and returns its result.
func (b bench) awaitStatus(t *testing.T, job string, want v1.Status) (r v1.Result) {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		if r = b.lookup(t, job); r.Status != want {
			return fmt.Errorf("%s is %s, want %s", job, r.Status, want)
		}
		return nil
	})
	return r
}

// awaitOutcome waits until a job has ended, and returns its result.
func (b bench) awaitOutcome(t *testing.T, job string) (r v1.Result) {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		if r = b.lookup(t, job); !r.Final() {
			return fmt.Errorf("%s is %s, want an outcome", job, r.Status)
		}
		return nil
	})
	return r
}

// awaitNoParts waits until the stream of parts is empty.
func (b bench) awaitNoParts(t *testing.T) {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		if n := b.messageCount(t, streams.Parts); n != 0 {
			return fmt.Errorf("%d messages in %s, want none", n, streams.Parts)
		}
		return nil
	})
}

// awaitAcknowledged waits until a consumer has acknowledged all messages of its
// stream.
func (b bench) awaitAcknowledged(t *testing.T, stream, consumer string) {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		s, err := b.js.Stream(t.Context(), stream)
		if err != nil {
			return err
		}
		c, err := s.Consumer(t.Context(), consumer)
		if err != nil {
			return err
		}
		if got, last := c.CachedInfo().AckFloor.Stream, s.CachedInfo().State.LastSeq; got != last {
			return fmt.Errorf("%s has acknowledged the messages up to %d, want %d", consumer, got, last)
		}
		return nil
	})
}

func TestJoin_FailedPartFailsTheJob(t *testing.T) {
	b := newBench(t, 1)
	good, bad := part(0, 2), part(1, 2)
	bad.Regions, bad.Problem = nil, v1.NewProblem(v1.LaneDied, "signal: aborted")
	for i, p := range []v1.Part{good, bad} {
		b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "half", Part: i}), nil, p)
	}
	r := b.awaitStatus(t, "half", v1.Failed)
	checkProblem(t, r, v1.LaneDied)
	if n := len(r.Regions); n != 1 {
		t.Errorf("%d regions, want that of the good part", n)
	}
}

// checkState checks the state of a job of the pipeline text.
func (b bench) checkState(t *testing.T, job string, want v1.Status) {
	t.Helper()
	r := b.lookup(t, job)
	if r.Status != want {
		t.Errorf("%s is %s, want %s", job, r.Status, want)
	}
	if r.Pipeline != "text" {
		t.Errorf("%s is of pipeline %q, want text", job, r.Pipeline)
	}
}

// checkWebhook checks the state of the webhook of a job.
func (b bench) checkWebhook(t *testing.T, job string, want v1.Callback) {
	t.Helper()
	r := b.lookup(t, job)
	if r.Callback == nil {
		t.Fatalf("%s has no webhook", job)
	}
	if *r.Callback != want {
		t.Errorf("the state of the webhook of %s is %+v, want %+v", job, *r.Callback, want)
	}
}

// checkProblem checks the problem of a result.
func checkProblem(t *testing.T, r v1.Result, want v1.Code) {
	t.Helper()
	if r.Problem == nil {
		t.Fatalf("%s is %s and has no problem, want %s", r.ID, r.Status, want)
	}
	if r.Problem.Code != want {
		t.Errorf("%s has the problem %v, want %s", r.ID, r.Problem, want)
	}
}

// checkText checks the text of a result.
func checkText(t *testing.T, r v1.Result, want string) {
	t.Helper()
	if r.Text == nil {
		t.Fatalf("%s has no text, want %q", r.ID, want)
	}
	if *r.Text != want {
		t.Errorf("%s has the text %q, want %q", r.ID, *r.Text, want)
	}
}

// lookup requests the state of a job. A problem is returned as the Problem of a result.
func (b bench) lookup(t *testing.T, job string) v1.Result {
	t.Helper()
	m, err := b.nc.Request(subject.Lookup(job), nil, testTimeout)
	if err != nil {
		t.Fatalf("look up %s: %v", job, err)
	}
	var r v1.Result
	if code := m.Header.Get("Nats-Service-Error-Code"); code != "" {
		r.Problem = new(v1.Problem)
		if err := json.Unmarshal(m.Data, r.Problem); err != nil {
			t.Fatal(err)
		}
		if code != fmt.Sprint(r.Problem.Status) {
			t.Errorf("service error code %s, problem status %d", code, r.Problem.Status)
		}
		return r
	}
	if err := json.Unmarshal(m.Data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestLookup_FiltersRegions: by the headers of the request; a wrong one is a problem.
func TestLookup_FiltersRegions(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	body, err := json.Marshal(v1.Result{ID: "job", Pipeline: "text", Status: v1.Done, Regions: []v1.Region{
		{Label: "car", Score: 0.9}, {Label: "bus", Score: 0.4},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.js.Publish(t.Context(), subject.Results("text", "job"), body); err != nil {
		t.Fatal(err)
	}
	lookUp := func(header, value string) (r v1.Result, p v1.Problem) {
		request := &nats.Msg{Subject: subject.Lookup("job"), Header: nats.Header{header: {value}}}
		m, err := b.nc.RequestMsg(request, testTimeout)
		if err != nil {
			t.Fatal(err)
		}
		var into any = &r
		if m.Header.Get("Nats-Service-Error-Code") != "" {
			into = &p
		}
		if err := json.Unmarshal(m.Data, into); err != nil {
			t.Fatal(err)
		}
		return r, p
	}
	for header, value := range map[string]string{"Sight-Labels": "car", "sight-top": "1", "SIGHT-MIN-SCORE": "0.5"} {
		r, _ := lookUp(header, value)
		if len(r.Regions) != 1 {
			t.Fatalf("%s %s: got the regions %+v, want one", header, value, r.Regions)
		}
		if got := r.Regions[0].Label; got != "car" {
			t.Errorf("%s %s: the label is %q, want car", header, value, got)
		}
	}
	_, p := lookUp("Sight-Top", "none")
	if p.Code != v1.InvalidParameter {
		t.Errorf("an invalid header leads to %q, want %s", p.Code, v1.InvalidParameter)
	}
	if p.Field != "top" {
		t.Errorf("the problem is of field %q, want top", p.Field)
	}
	_, p = lookUp("Sight-Note", "1")
	if p.Code != v1.UnknownField {
		t.Errorf("an unknown header leads to %q, want %s", p.Code, v1.UnknownField)
	}
	if p.Field != "Sight-Note" {
		t.Errorf("the problem is of field %q, want Sight-Note", p.Field)
	}
}

func TestLookup_FollowsAJob(t *testing.T) {
	b := newBench(t, 1)
	ctx := context.Background()
	checkProblem(t, b.lookup(t, "nobody"), v1.UnknownJob)

	job := subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "walker"}
	b.publish(t, subject.Images(job), nil, []byte("image"))
	second := subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "second"}
	b.publish(t, subject.Images(second), nil, []byte("image"))
	b.checkState(t, "walker", v1.Queued)

	c, err := b.js.Consumer(ctx, streams.Images, streams.WorkConsumer(subject.Detect, "text", subject.Interactive))
	if err != nil {
		t.Fatal(err)
	}
	image, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	if r := b.lookup(t, "walker"); r.Status != v1.Running {
		t.Errorf("an image that a worker has: %+v, want running", r)
	}
	if r := b.lookup(t, "second"); r.Status != v1.Queued {
		t.Errorf("the one behind it: %+v, want queued", r)
	}

	b.publish(t, subject.Crops(job), nil, []byte("{}\n"))
	if err := image.DoubleAck(ctx); err != nil {
		t.Fatal(err)
	}
	if r := b.lookup(t, "walker"); r.Status != v1.Running {
		t.Errorf("crops wait: %+v, want running", r)
	}

	b.publish(t, subject.Results("text", "walker"), nil,
		v1.Result{ID: "walker", Pipeline: "text", Status: v1.Done, Regions: []v1.Region{}})
	if r := b.lookup(t, "walker"); r.Status != v1.Done {
		t.Errorf("with a result: %+v, want done", r)
	}
}

// TestLookup_JobWithoutAConsumerIsQueued: an image can be published to a
// pipeline that is not set up yet, or not any more.
func TestLookup_JobWithoutAConsumerIsQueued(t *testing.T) {
	b := newBench(t, 1)
	job := subject.Job{Pipeline: "notsetup", Priority: subject.Bulk, ID: "early"}
	b.publish(t, subject.Images(job), nil, []byte("image"))
	if r := b.lookup(t, job.ID); r.Status != v1.Queued {
		t.Errorf("got %+v with problem %v, want queued", r, r.Problem)
	}
}

// TestReply_ResultWithInvalidHeadersIsNotRedelivered: the service replies once and
// acknowledges the result.
func TestReply_ResultWithInvalidHeadersIsNotRedelivered(t *testing.T) {
	b := newBench(t, 1)
	replies, err := b.nc.SubscribeSync("_INBOX_my.reply")
	if err != nil {
		t.Fatal(err)
	}
	headers := map[string]nats.Header{
		"report": {v1.HeaderReport: {"no report"}, v1.HeaderReply: {"_INBOX_my.reply"}},
		"reply":  {v1.HeaderReply: {"_INBOX.my reply"}},
		"huge":   {v1.HeaderReport: {"r/0/99999999999999999999"}},
	}
	for id, h := range headers {
		b.publish(t, subject.Results("text", id), h, v1.Result{ID: id, Pipeline: "text", Status: v1.Done})
	}
	b.awaitAcknowledged(t, streams.Results, streams.ResultsConsumer)
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := replies.Pending(); n != 1 {
		t.Errorf("%d replies, want 1", n)
	}
}

// TestReply_OnlyToInboxes: a client that publishes images cannot have results
// publish on a subject that is no inbox.
func TestReply_OnlyToInboxes(t *testing.T) {
	b := newBench(t, 1)
	heard, err := b.nc.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	for i, to := range []string{
		"$JS.API.STREAM.PURGE.IMAGES", subject.Results("text", "victim"), "plain", "_INBOX.*", "_INBOX.>", "x_INBOX.a",
		"_INBOX.inbox",
	} {
		id := fmt.Sprint("job", i)
		h := nats.Header{v1.HeaderReply: {to}}
		b.publish(t, subject.Results("text", id), h, v1.Result{ID: id, Pipeline: "text", Status: v1.Done, TraceID: "reply"})
	}
	b.awaitAcknowledged(t, streams.Results, streams.ResultsConsumer)
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	pending, _, err := heard.Pending()
	if err != nil {
		t.Fatal(err)
	}
	var replies []string
	for range pending {
		m, err := heard.NextMsg(testTimeout)
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get(v1.HeaderStored) != "" {
			replies = append(replies, m.Subject)
		}
	}
	if want := []string{"_INBOX.inbox"}; !slices.Equal(replies, want) {
		t.Errorf("replies to %v, want only to %v", replies, want)
	}
}

func TestService_DropsInvalidMessages(t *testing.T) {
	b := newBench(t, 1)
	b.publish(t, subject.Prefix+"parts.text.good.notanumber", nil, []byte("{}"))
	b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "garbage"}), nil, []byte("no json"))
	b.publish(t, subject.Prefix+"results.TEXT.good", nil, []byte("{}"))
	// What comes behind it is still done.
	b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "after"}), nil, part(0, 1))
	b.awaitStatus(t, "after", v1.Done)
	b.awaitAcknowledged(t, streams.Parts, streams.PartsConsumer)
	b.awaitAcknowledged(t, streams.Results, streams.ResultsConsumer)
}
