package results

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestHeadersThatMakeNoSenseAreNotLooped: an answer whose headers cannot be
// followed is answered once, and ends.
func TestHeadersThatMakeNoSenseAreNotLooped(t *testing.T) {
	b := newBench(t, 1)
	replies, err := b.nc.SubscribeSync("my.reply")
	if err != nil {
		t.Fatal(err)
	}
	for id, h := range map[string]nats.Header{
		"report": {v1.HeaderReport: {"no report"}, v1.HeaderReply: {"my.reply"}},
		"reply":  {v1.HeaderReply: {"my reply"}},
		"huge":   {v1.HeaderReport: {"r/0/99999999999999999999"}},
	} {
		b.publish(t, subject.Results("text", id), h, v1.Result{ID: id, Pipeline: "text", Status: v1.Done})
	}
	time.Sleep(4 * time.Second)
	if n, _, _ := replies.Pending(); n != 1 {
		t.Errorf("%d replies, want 1", n)
	}
	c, err := b.js.Consumer(t.Context(), streams.Results, streams.ResultsConsumer)
	if err != nil {
		t.Fatal(err)
	}
	if i := c.CachedInfo(); i.NumAckPending > 0 || i.NumRedelivered > 0 {
		t.Errorf("%d answers wait for an acknowledgement, %d were delivered again; consumer sequence %d", i.NumAckPending, i.NumRedelivered, i.Delivered.Consumer)
	}
}

// TestReportWithTwoOutcomesOfOneImage: the later outcome of an image takes the
// place of the earlier.
func TestReportWithTwoOutcomesOfOneImage(t *testing.T) {
	b := newBench(t, 1)
	now := time.Now().UTC()
	b.publish(t, subject.Report("r9"), nil, v1.Manifest{ID: "r9", Pipeline: "text", Accepted: now, Deadline: now.Add(time.Hour), Images: []v1.ReportSource{{}, {}}})
	item := v1.ReportItem{Report: "r9", N: 0, Total: 2}
	// What is stored when the job of image 0 is answered twice, more than two minutes apart.
	b.publish(t, subject.ReportOutcome("r9", "failed", 0), nil, v1.Result{ID: item.Job(), Status: v1.Failed})
	b.finishImage(t, item, v1.Done, nats.Header{v1.HeaderReport: {item.String()}})
	time.Sleep(time.Second)
	s, err := b.js.Stream(t.Context(), streams.Reports)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.GetLastMsgForSubject(t.Context(), subject.ReportFinished("r9")); err == nil {
		t.Errorf("finished without an outcome of image 1: %s", m.Data)
	}
}
