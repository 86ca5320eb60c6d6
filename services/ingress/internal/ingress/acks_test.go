package ingress

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// startBehindProxy opens an ingress that reaches NATS through a proxy, and a
// results service that knows what is stored in IMAGES.
func startBehindProxy(t *testing.T, args ...string) (*instance, *bustest.Proxy) {
	t.Helper()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	p := bustest.StartProxy(t, s)
	d := startAt(t, s, p.URL, args...)
	d.startWorkers(t, 2, 1)
	sub, err := d.nc.Subscribe(subject.AllLookup(), func(m *nats.Msg) {
		id := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
		reply := &nats.Msg{Header: nats.Header{}}
		if d.isStored(t, id) {
			reply.Data, _ = json.Marshal(v1.Result{ID: id, Pipeline: "text", Status: v1.Queued})
		} else {
			reply.Header.Set("Nats-Service-Error-Code", "404")
			reply.Data, _ = json.Marshal(v1.NewProblem(v1.UnknownJob, "no job %s", id))
		}
		m.RespondMsg(reply)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	if err := d.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	d.awaitServed(t)
	return d, p
}

// awaitServed waits until ingress has seen the workers of the pipeline text.
func (d *instance) awaitServed(t *testing.T) {
	t.Helper()
	eventually.Succeeds(t, 20*time.Second, func() error {
		if text := d.pipelines(t).Pipelines[0]; !text.Ready {
			return fmt.Errorf("text is not ready: %+v", text)
		}
		return nil
	})
}

func (d *instance) isStored(t *testing.T, id string) bool {
	t.Helper()
	s, err := d.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Error(err)
		return false
	}
	subj := subject.Images(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: id})
	_, err = s.GetLastMsgForSubject(t.Context(), subj)
	return err == nil
}

// storedImages is how many messages IMAGES has.
func (d *instance) storedImages(t *testing.T) uint64 {
	t.Helper()
	s, err := d.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// postAsync submits n images at a time that no client waits for.
func (d *instance) postAsync(t *testing.T, n int, header ...string) []response {
	t.Helper()
	out := make([]response, n)
	var all sync.WaitGroup
	for i := range out {
		all.Go(func() {
			a, err := d.post(t.Context(), "", append([]string{"Prefer", "respond-async"}, header...)...)
			if err != nil {
				t.Error(err)
			}
			out[i] = a
		})
	}
	all.Wait()
	return out
}

func checkAccepted(t *testing.T, d *instance, answers []response) {
	t.Helper()
	for _, a := range answers {
		if a.status != 202 || !d.isStored(t, a.result.ID) {
			t.Errorf("got %d %+v %+v, want 202 with a job that is stored", a.status, a.result, a.problem)
		}
	}
	if n := d.storedImages(t); n != uint64(len(answers)) {
		t.Errorf("%d images are stored, want %d", n, len(answers))
	}
}

func TestAcks_LateAcknowledgementIsAccepted(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	p.HoldReplies(true)
	time.AfterFunc(4*time.Second, func() { p.HoldReplies(false) })
	checkAccepted(t, d, d.postAsync(t, 12))
}

// TestAcks_LostLookupDelaysNoResult: the connection breaks while ingress looks for
// the result of a request, and after the reply was lost.
func TestAcks_LostLookupDelaysNoResult(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	looks := make(chan *nats.Msg, 64)
	sub, err := d.nc.ChanSubscribe("$JS.API.STREAM.MSG.GET."+streams.Results, looks)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	answered := make(chan response, 1)
	go func() {
		a, err := d.post(t.Context(), "", "Prefer", "wait=20")
		if err != nil {
			t.Error(err)
		}
		answered <- a
	}()
	eventually.Succeeds(t, 20*time.Second, func() error {
		if d.storedImages(t) == 0 {
			return errors.New("the image is not stored")
		}
		return nil
	})
	p.HoldReplies(true)
	<-looks
	image, err := d.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	job, err := subject.ParseImages(m.Subject)
	if err != nil {
		t.Fatal(err)
	}
	result, err := json.Marshal(v1.Result{ID: job.ID, Pipeline: job.Pipeline, Status: v1.Done})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.js.Publish(t.Context(), subject.Results(job.Pipeline, job.ID), result); err != nil {
		t.Fatal(err)
	}
	p.Break()
	p.HoldReplies(false)
	if a := <-answered; a.status != http.StatusOK {
		t.Errorf("got %d %+v %+v, want 200", a.status, a.result, a.problem)
	}
}

func TestAcks_StoresLostImagesAgain(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	p.HoldRequests(true)
	time.AfterFunc(2*time.Second, func() {
		p.Break() // the images are lost
		p.HoldRequests(false)
	})
	checkAccepted(t, d, d.postAsync(t, 12))
}

func TestAcks_LostConnection(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	p.HoldReplies(true)
	time.AfterFunc(2*time.Second, func() {
		p.Break() // the acknowledgements are lost
		p.HoldReplies(false)
	})
	checkAccepted(t, d, d.postAsync(t, 12))
}

// checkUnknown checks an answer that says that a job may have been accepted.
func checkUnknown(t *testing.T, a response) {
	t.Helper()
	if a.status != 503 || a.problem.Code != v1.Unavailable {
		t.Errorf("got %d %+v, want 503", a.status, a.problem)
	}
	if a.problem.Job == "" || a.header.Get("Location") != "/v1/images/"+a.problem.Job {
		t.Errorf("the problem has the id %q and Location %q, want both", a.problem.Job, a.header.Get("Location"))
	}
	if !strings.Contains(a.problem.Detail, "may have been accepted") {
		t.Errorf("the detail is %q, want that the image may have been accepted", a.problem.Detail)
	}
}

func TestAcks_UnknownHasTheIDOfTheJob(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	p.HoldReplies(true)
	answers := d.postAsync(t, 12)
	p.HoldReplies(false)
	for _, a := range answers {
		checkUnknown(t, a)
		if !d.isStored(t, a.problem.Job) {
			t.Errorf("job %s is not stored", a.problem.Job)
		}
	}
	if n := d.storedImages(t); n != 12 {
		t.Errorf("%d images are stored, want 12", n)
	}
}

func TestAcks_RetryWithAKeyIsTheSameJob(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	first := d.postLater("", "Prefer", "respond-async", "Idempotency-Key", "k1")
	if a := <-first; a.status != 202 {
		t.Fatalf("got %+v", a)
	}
	p.HoldReplies(true)
	time.AfterFunc(4*time.Second, func() { p.HoldReplies(false) })
	for _, a := range d.postAsync(t, 3, "Idempotency-Key", "k2") {
		if a.status != 202 {
			t.Errorf("got %d %+v, want 202", a.status, a.problem)
		}
	}
	d.postAsync(t, 3, "Idempotency-Key", "k2") // as a client that has lost its answer does
	if n := d.storedImages(t); n != 2 {
		t.Errorf("%d images are stored, want one for each of two keys", n)
	}
}

// TestAcks_WaitingClientGetsItsResult: the acknowledgement is lost, and a
// worker processes the image all the same.
func TestAcks_WaitingClientGetsItsResult(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	p.HoldReplies(true)
	time.AfterFunc(7*time.Second, func() { p.HoldReplies(false) })
	waiting := d.postLater("")
	id := d.storeResult(t, d.nextImage(t), true)
	if a := <-waiting; a.status != 200 || a.result.ID != id {
		t.Errorf("got %d %+v %+v, want the result of job %s", a.status, a.result, a.problem, id)
	}
}

func TestAcks_FullStreamIsRejected(t *testing.T) {
	t.Parallel()
	d, _ := startBehindProxy(t)
	d.updateImagesStream(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	d.postAsync(t, 1)
	start := time.Now()
	for _, a := range d.postAsync(t, 3) {
		if a.status != 429 || a.problem.Job != "" {
			t.Errorf("got %d %+v, want 429 without a job", a.status, a.problem)
		}
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("a certain rejection took %v", took)
	}
}

// TestAcks_FrameIsOneJob: the acknowledgement of a frame stays away for longer
// than one submission tries.
func TestAcks_FrameIsOneJob(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	c := d.session(t, "")
	p.HoldReplies(true)
	c.frame(t)
	m := d.nextImage(t)
	time.Sleep(7 * time.Second)
	p.HoldReplies(false)
	id := d.storeResult(t, m, false)
	var a v1.FrameOutcome
	if c.read(t, &a); a.Status != v1.Done || a.Result.ID != id {
		t.Errorf("got %+v, want the result of job %s", a, id)
	}
	if n := d.storedImages(t); n != 0 {
		t.Errorf("%d more images are stored, want none", n)
	}
}
