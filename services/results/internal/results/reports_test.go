package results

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// waitForMessages waits for n messages in a stream and returns them in order.
func (b bench) waitForMessages(t *testing.T, stream string, n int) []*jetstream.RawStreamMsg {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		if got := b.messageCount(t, stream); got < uint64(n) {
			return fmt.Errorf("%d messages in %s, want at least %d", got, stream, n)
		}
		return nil
	})
	s, err := b.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	var out []*jetstream.RawStreamMsg
	for i := s.CachedInfo().State.FirstSeq; i <= s.CachedInfo().State.LastSeq; i++ {
		m, err := s.GetMsg(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// finishImage plays the worker of an image whose message has header h.
func (b bench) finishImage(t *testing.T, item v1.ReportItem, status v1.Status, h nats.Header) {
	t.Helper()
	copied := nats.Header{nats.MsgIdHdr: {v1.MsgID(item.Job(), "results")}, v1.HeaderReport: h[v1.HeaderReport]}
	b.publish(t, subject.Results("text", item.Job()), copied, v1.Result{ID: item.Job(), Pipeline: "text", Status: status})
}

func TestReport_FromManifestToWebhook(t *testing.T) {
	b := newBench(t, 2)
	events := make(chan *nats.Msg, 100)
	if _, err := b.nc.ChanSubscribe(subject.Events("r1"), events); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	m := v1.Manifest{
		ID: "r1", Pipeline: "text", Accepted: now, Deadline: now.Add(time.Hour), Callback: "https://client.example/done",
		Metadata: map[string]string{"train": "7"},
		Images: []v1.ReportSource{
			{URL: "https://client.example/0.jpg", Metadata: map[string]string{"camera": "3"}}, {},
			{URL: "https://client.example/2.jpg"},
		},
	}
	// Image 1 was uploaded, and its outcome comes before the report is there.
	uploaded := v1.ReportItem{Report: "r1", N: 1, Total: 3}
	b.finishImage(t, uploaded, v1.Done, nats.Header{v1.HeaderReport: {uploaded.String()}})
	b.publish(t, subject.Report("r1"), nil, m)

	fetches := b.waitForMessages(t, streams.Fetches, 2)
	var f v1.Fetch
	if err := json.Unmarshal(fetches[0].Data, &f); err != nil {
		t.Fatal(err)
	}
	if want := m.Images[0].URL; f.URL != want {
		t.Errorf("the first fetch has URL %s, want %s", f.URL, want)
	}
	if !f.Deadline.Equal(m.Deadline) {
		t.Errorf("the first fetch has deadline %v, want %v", f.Deadline, m.Deadline)
	}
	for header, want := range map[string]string{v1.HeaderMetadata: `{"camera":"3"}`, v1.HeaderReport: "r1/0/3"} {
		if got := fetches[0].Header.Get(header); got != want {
			t.Errorf("the first fetch has %s %q, want %q", header, got, want)
		}
	}
	b.checkState(t, "r1-0", v1.Queued)
	stored := 2 // the report, and the outcome of image 1
	for i, status := range map[int]v1.Status{0: v1.Failed, 2: v1.Done} {
		b.waitForMessages(t, streams.Reports, stored)
		stored++
		item := v1.ReportItem{Report: "r1", N: i, Total: 3}
		b.finishImage(t, item, status, nats.Header{v1.HeaderReport: {item.String()}})
	}
	// Images, outcomes and the end: one message each, and one callback.
	b.waitForMessages(t, streams.Reports, 5)
	calls := b.waitForMessages(t, streams.Callbacks, 1)
	var body struct {
		Type string
		Data v1.Report
	}
	if err := json.Unmarshal(calls[0].Data, &body); err != nil {
		t.Fatal(err)
	}
	want := v1.Counts{Total: 3, Done: 2, Failed: 1}
	if want := "report.done"; body.Type != want {
		t.Errorf("the webhook has type %s, want %s", body.Type, want)
	}
	if body.Data.Counts != want {
		t.Errorf("the webhook has counts %+v, want %+v", body.Data.Counts, want)
	}
	if got := body.Data.Metadata["train"]; got != "7" {
		t.Errorf("the webhook has train %q in its metadata, want 7", got)
	}
	if got := calls[0].Header.Get(v1.HeaderCallback); got != m.Callback {
		t.Errorf("the webhook goes to %s, want %s", got, m.Callback)
	}
	// The events of two replicas come in any order.
	images, done := 0, false
	for images < 2 || !done { // not that of image 1: without its messages no outcome names the report
		var e v1.Event
		select {
		case m := <-events:
			if err := json.Unmarshal(m.Data, &e); err != nil {
				t.Fatal(err)
			}
		case <-time.After(testTimeout):
			t.Fatalf("%d events of images, and of the end: %v; want 2, and one of the end", images, done)
		}
		switch e.Event {
		case v1.EventImage:
			images++
		case v1.EventDone:
			if done = true; *e.Counts != want {
				t.Errorf("the event of the end says %+v, want %+v", *e.Counts, want)
			}
		}
	}
}

// TestReport_FetchesHaveTracesOfTheirOwn, each of which begins with its message.
func TestReport_FetchesHaveTracesOfTheirOwn(t *testing.T) {
	b := newBench(t, 1)
	now := time.Now().UTC()
	const request = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	b.publish(t, subject.Report("r8"), nats.Header{"traceparent": {request}}, v1.Manifest{
		ID: "r8", Pipeline: "text", Accepted: now, Deadline: now.Add(time.Hour),
		Images: []v1.ReportSource{{URL: "https://client.example/0.jpg"}, {URL: "https://client.example/1.jpg"}},
	})
	traces := map[string]bool{request[3:35]: true}
	for n, m := range b.waitForMessages(t, streams.Fetches, 2) {
		parent := m.Header.Get("traceparent")
		if len(parent) != len(request) {
			t.Fatalf("image %d has the traceparent %q, want %d characters", n, parent, len(request))
		}
		if traces[parent[3:35]] {
			t.Errorf("image %d has the traceparent %q, want a trace of its own", n, parent)
		}
		traces[parent[3:35]] = true
	}
}

// TestReport_FirstOutcomeOfAnImageStays, although another one comes later than
// the stream knows the ID of the first.
func TestReport_FirstOutcomeOfAnImageStays(t *testing.T) {
	b := newBench(t, 1)
	now := time.Now().UTC()
	b.publish(t, subject.Report("r9"), nil, v1.Manifest{
		ID: "r9", Pipeline: "text", Accepted: now, Deadline: now.Add(time.Hour), Images: []v1.ReportSource{{}, {}},
	})
	b.publish(t, subject.ReportOutcome("r9", string(v1.Failed), 0), nil, v1.Result{ID: "r9-0", Status: v1.Failed})
	for n := range 2 {
		item := v1.ReportItem{Report: "r9", N: n, Total: 2}
		b.finishImage(t, item, v1.Done, nats.Header{v1.HeaderReport: {item.String()}})
	}
	end := b.waitForMessages(t, streams.Reports, 4)[3] // behind the report and two outcomes
	var r v1.Report
	if err := json.Unmarshal(end.Data, &r); err != nil {
		t.Fatal(err)
	}
	if want := subject.ReportFinished("r9"); end.Subject != want {
		t.Errorf("the last message is %s, want %s", end.Subject, want)
	}
	if want := (v1.Counts{Total: 2, Done: 1, Failed: 1}); r.Counts != want {
		t.Errorf("counts %+v, want %+v", r.Counts, want)
	}
}

// TestReport_HeadersOfOthersFinishNothing: what a result says of the size of its
// report, images that the report does not have, and results of other jobs count
// for nothing.
func TestReport_HeadersOfOthersFinishNothing(t *testing.T) {
	b := newBench(t, 1)
	now := time.Now().UTC()
	b.publish(t, subject.Report("r7"), nil, v1.Manifest{
		ID: "r7", Pipeline: "text", Accepted: now, Deadline: now.Add(time.Hour), Images: []v1.ReportSource{{}, {}},
	})
	for _, forged := range []v1.ReportItem{{Report: "r7", N: 0, Total: 1}, {Report: "r7", N: 2, Total: 3}} {
		b.finishImage(t, forged, v1.Done, nats.Header{v1.HeaderReport: {forged.String()}})
	}
	item := v1.ReportItem{Report: "r7", N: 1, Total: 2}
	b.publish(t, subject.Results("text", "other"), nats.Header{v1.HeaderReport: {item.String()}},
		v1.Result{ID: "other", Pipeline: "text", Status: v1.Done})
	b.waitForMessages(t, streams.Reports, 3) // the report and two outcomes
	b.awaitAcknowledged(t, streams.Results, streams.FollowConsumer)
	if n := b.messageCount(t, streams.Reports); n != 3 {
		t.Errorf("%d messages in REPORTS, want that nothing has finished the report", n)
	}
	last := v1.ReportItem{Report: "r7", N: 1, Total: 2}
	b.finishImage(t, last, v1.Done, nats.Header{v1.HeaderReport: {last.String()}})
	end := b.waitForMessages(t, streams.Reports, 5)[4]
	var r v1.Report
	if err := json.Unmarshal(end.Data, &r); err != nil {
		t.Fatal(err)
	}
	if want := (v1.Counts{Total: 2, Done: 2}); r.Counts != want {
		t.Errorf("counts %+v, want %+v", r.Counts, want)
	}
}

func TestNotify_QueuesTheWebhookOfAJobOnce(t *testing.T) {
	b := newBench(t, 1)
	h := nats.Header{v1.HeaderCallback: {"https://client.example/done"}}
	for range 2 { // a redelivery of what led to it
		b.publish(t, subject.Results("text", "c1"), h, v1.Result{ID: "c1", Pipeline: "text", Status: v1.Done})
	}
	var body v1.CallbackBody
	m := b.waitForMessages(t, streams.Callbacks, 1)[0]
	if err := json.Unmarshal(m.Data, &body); err != nil {
		t.Fatal(err)
	}
	if want := v1.WebhookJob(v1.Done); body.Type != want {
		t.Errorf("the webhook has type %s, want %s", body.Type, want)
	}
	if want := subject.Callbacks("c1"); m.Subject != want {
		t.Errorf("the webhook is on %s, want %s", m.Subject, want)
	}
	b.checkWebhook(t, "c1", v1.Callback{State: v1.WebhookPending})
	b.publish(t, subject.CallbackState("c1"), nil, v1.Callback{State: v1.WebhookDelivered, Attempts: 2})
	b.checkWebhook(t, "c1", v1.Callback{State: v1.WebhookDelivered, Attempts: 2})
	b.awaitAcknowledged(t, streams.Results, streams.NotifyConsumer)
	if n := b.messageCount(t, streams.Callbacks); n != 1 {
		t.Errorf("%d webhooks, want 1", n)
	}
}

// TestReply_WaitsForNothingElse: callbacks that cannot be stored delay no reply,
// and no report.
func TestReply_WaitsForNothingElse(t *testing.T) {
	b := newBench(t, 1)
	callbacks, err := b.js.Stream(t.Context(), streams.Callbacks)
	if err != nil {
		t.Fatal(err)
	}
	full := callbacks.CachedInfo().Config
	full.MaxMsgs = 1
	if _, err := b.js.UpdateStream(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	const n = 200 // more than are handled and requested at a time
	for i := range n {
		id := fmt.Sprint("c", i)
		h := nats.Header{v1.HeaderCallback: {"https://client.example/done"}}
		b.publish(t, subject.Results("text", id), h, v1.Result{ID: id, Pipeline: "text", Status: v1.Done})
	}
	replies, err := b.nc.SubscribeSync("_INBOX.waiting")
	if err != nil {
		t.Fatal(err)
	}
	h := nats.Header{v1.HeaderReply: {"_INBOX.waiting"}}
	b.publish(t, subject.Results("text", "waits"), h, v1.Result{ID: "waits", Pipeline: "text", Status: v1.Done})
	if _, err := replies.NextMsg(testTimeout); err != nil {
		t.Fatalf("no reply: %v", err)
	}
	now := time.Now().UTC()
	b.publish(t, subject.Report("r6"), nil, v1.Manifest{
		ID: "r6", Pipeline: "text", Accepted: now, Deadline: now.Add(time.Hour), Images: []v1.ReportSource{{}},
	})
	item := v1.ReportItem{Report: "r6", N: 0, Total: 1}
	b.finishImage(t, item, v1.Done, nats.Header{v1.HeaderReport: {item.String()}})
	b.waitForMessages(t, streams.Reports, 3) // the report, its outcome and its end
	c, err := b.js.Consumer(t.Context(), streams.Results, streams.NotifyConsumer)
	if err != nil {
		t.Fatal(err)
	}
	if left := c.CachedInfo().NumAckPending + int(c.CachedInfo().NumPending); left < n-1 {
		t.Errorf("%d results wait to be followed up, want %d: the test shows nothing", left, n-1)
	}
	full.MaxMsgs = -1
	if _, err := b.js.UpdateStream(t.Context(), full); err != nil {
		t.Fatal(err)
	}
}

// TestSweeper_FinishesACompleteReport has a report whose last outcome was stored, but which
// no replica has finished.
func TestSweeper_FinishesACompleteReport(t *testing.T) {
	b := newBench(t, 0)
	now := time.Now().UTC()
	b.publish(t, subject.Report("r5"), nil, v1.Manifest{
		ID: "r5", Pipeline: "text", Accepted: now.Add(-2 * time.Minute), Deadline: now.Add(time.Hour),
		Images: []v1.ReportSource{{URL: "https://client.example/0.jpg"}}, Callback: "https://client.example/done",
	})
	b.publish(t, subject.ReportOutcome("r5", string(v1.Done), 0), nil,
		v1.Result{ID: "r5-0", Pipeline: "text", Status: v1.Done})
	startReplica(t, b.url, "--sweep", "100ms")
	b.waitForMessages(t, streams.Callbacks, 1)
	b.waitForMessages(t, streams.Reports, 3) // the report, the outcome and the end
}
