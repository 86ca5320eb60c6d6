package intake

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func newResult(t *testing.T, id string) []byte {
	t.Helper()
	r := v1.Result{ID: id, Pipeline: "text", Status: v1.Done, Regions: []v1.Region{}, Timings: &v1.Timings{}}
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func (b bench) publish(t *testing.T, m *nats.Msg) {
	t.Helper()
	if err := b.nc.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
}

func TestJob_WaitReceivesItsOwnReply(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	r := Request{Pipeline: text, Image: newImage(t, 8)}
	one, two := b.submit(t, r), b.submit(t, r)
	to := func(j *Job) string { return b.storedMessage(t, j.ID, subject.Interactive).Header.Get(v1.HeaderReply) }
	hourAgo := nats.Header{v1.HeaderStored: {time.Now().Add(-time.Hour).Format(time.RFC3339Nano)}}
	b.publish(t, &nats.Msg{Subject: to(two), Data: newResult(t, two.ID), Header: hourAgo})
	b.publish(t, &nats.Msg{Subject: to(two), Data: []byte("a second one")})
	b.publish(t, &nats.Msg{Subject: b.inbox.subject("none"), Data: []byte("for no job")})
	b.publish(t, &nats.Msg{Subject: to(one), Data: newResult(t, one.ID)})
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	for _, job := range []*Job{one, two} {
		r, err := job.Wait(ctx)
		if err != nil {
			t.Fatalf("%s: %v", job.ID, err)
		}
		if r.ID != job.ID {
			t.Errorf("%s: got the result of %s", job.ID, r.ID)
		}
		if r.Status != v1.Done {
			t.Errorf("%s: the status is %s, want %s", job.ID, r.Status, v1.Done)
		}
		if late := r.Timings.Reply >= v1.Milliseconds(time.Hour); late != (job == two) {
			t.Errorf("%s: the reply took %v ms", job.ID, r.Timings.Reply)
		}
	}
	if n := b.pendingReplies(); n != 0 {
		t.Errorf("%d jobs still wait for a reply", n)
	}
}

func TestJob_WaitFindsTheResultOfALostReply(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	job := b.submit(t, Request{Pipeline: text, Image: newImage(t, 8)})
	if _, err := b.js.Publish(t.Context(), subject.Results("text", job.ID), newResult(t, job.ID)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	r, err := job.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != v1.Done {
		t.Errorf("the status is %s, want %s", r.Status, v1.Done)
	}
}

func TestJob_WaitReturnsTheStateWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reply  *nats.Msg // of the results service; nil for none
		status v1.Status
		ended  bool
	}{
		"running":            {&nats.Msg{Data: []byte(`{"status":"running"}`)}, v1.Running, true},
		"done":               {&nats.Msg{Data: []byte(`{"status":"done"}`)}, v1.Done, false},
		"failed":             {&nats.Msg{Data: []byte(`{"status":"failed"}`)}, v1.Failed, false},
		"no results service": {nil, v1.Queued, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newServedBench(t)
			if tt.reply != nil {
				b.respond(t, subject.AllLookup(), tt.reply)
			}
			job := b.submit(t, Request{Pipeline: text, Image: newImage(t, 8)})
			ctx, cancel := context.WithTimeout(t.Context(), 0)
			defer cancel()
			r, err := job.Wait(ctx)
			if r.Status != tt.status {
				t.Errorf("the status is %s, want %s", r.Status, tt.status)
			}
			if ended := errors.Is(err, context.DeadlineExceeded); ended != tt.ended {
				t.Errorf("got %v, want a deadline error: %v", err, tt.ended)
			}
		})
	}
}

// TestJob_WaitWithARepeatedKey waits for a job of an earlier request, which gets no reply here.
func TestJob_WaitWithARepeatedKey(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	b.startResults(t, v1.Queued, v1.Running, v1.Done)
	b.submit(t, Request{Pipeline: text, Image: newImage(t, 8), Key: "k1"})
	again := b.submit(t, Request{Pipeline: text, Image: newImage(t, 8), Key: "k1"})
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	r, err := again.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != v1.Done {
		t.Errorf("the status is %s, want %s", r.Status, v1.Done)
	}
}

// subscribeCancel subscribes to the requests to cancel jobs.
func (b bench) subscribeCancel(t *testing.T) *nats.Subscription {
	t.Helper()
	sub, err := b.nc.SubscribeSync(subject.AllCancel())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return sub
}

// expectCancel fails the test unless the next request cancels the job id.
func expectCancel(t *testing.T, sub *nats.Subscription, id string) {
	t.Helper()
	m, err := sub.NextMsg(testTimeout)
	if err != nil {
		t.Fatalf("no job is cancelled: %v", err)
	}
	if m.Subject != subject.Cancel(id) {
		t.Errorf("got a request on %s, want the cancellation of %s", m.Subject, id)
	}
	m.Respond([]byte("{}"))
}

func TestJob_AbandonCancelsOnlyUnreferencedJobs(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	sub := b.subscribeCancel(t)
	ended, disconnect := context.WithCancel(t.Context())
	disconnect()
	for _, r := range []Request{{Key: "k1"}, {WebhookURL: "https://client.example/"}} {
		r.Pipeline, r.Image = text, newImage(t, 8)
		b.submit(t, r).Abandon(ended)
	}
	job := b.submit(t, Request{Pipeline: text, Image: newImage(t, 8), Metadata: map[string]string{"a": "b"}})
	abandoned := make(chan struct{})
	go func() {
		defer close(abandoned)
		job.Abandon(ended)
	}()
	expectCancel(t, sub, job.ID)
	<-abandoned
	b.stop()
	job.Abandon(ended)
	n, _, err := sub.Pending()
	if err != nil {
		t.Fatal(err)
	}
	if n != 0 {
		t.Errorf("%d jobs are cancelled while the process stops, want 0", n)
	}
}

func TestIntake_SubmitCancelsWhenTheClientDisconnects(t *testing.T) {
	t.Parallel()
	b := newServedBench(t)
	b.changeImages(t, func(c *jetstream.StreamConfig) { c.NoAck = true })
	sub := b.subscribeCancel(t)
	ctx, disconnect := context.WithCancel(t.Context())
	submitted := make(chan error, 1)
	go func() {
		_, err := b.Submit(ctx, &Request{ID: "j1", Pipeline: text, Image: newImage(t, 8)})
		submitted <- err
	}()
	eventually.Succeeds(t, testTimeout, func() error {
		if b.imageCount(t) == 0 {
			return errors.New("the image is not stored")
		}
		return nil
	})
	disconnect()
	expectCancel(t, sub, "j1")
	if err := <-submitted; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if n := b.pendingReplies(); n != 0 {
		t.Errorf("%d jobs still wait for a reply", n)
	}
}
