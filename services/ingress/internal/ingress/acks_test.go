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

// openProxied opens an ingress that reaches NATS through a proxy, and a
// results service that knows what is stored in IMAGES.
func openProxied(t *testing.T, args ...string) (*door, *bustest.Proxy) {
	t.Helper()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	p := bustest.StartProxy(t, s)
	d := openAt(t, s, p.URL, args...)
	d.workers(t, 2, 1)
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
func (d *door) awaitServed(t *testing.T) {
	t.Helper()
	eventually.Succeeds(t, 20*time.Second, func() error {
		if text := d.pipelines(t).Pipelines[0]; !text.Ready {
			return fmt.Errorf("text is not ready: %+v", text)
		}
		return nil
	})
}

func (d *door) isStored(t *testing.T, id string) bool {
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
func (d *door) storedImages(t *testing.T) uint64 {
	t.Helper()
	s, err := d.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// async submits n images at a time that no client waits for.
func (d *door) async(t *testing.T, n int, header ...string) []answer {
	t.Helper()
	out := make([]answer, n)
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

func checkAccepted(t *testing.T, d *door, answers []answer) {
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

func TestAcks_LateOnesAreNoRejection(t *testing.T) {
	t.Parallel()
	d, p := openProxied(t)
	p.HoldReplies(true)
	time.AfterFunc(4*time.Second, func() { p.HoldReplies(false) })
	checkAccepted(t, d, d.async(t, 12))
}

// TestAcks_LostLookDelaysNoResult: the connection breaks while ingress looks for
// the result of a request, and after the reply was lost.
func TestAcks_LostLookDelaysNoResult(t *testing.T) {
	t.Parallel()
	d, p := openProxied(t)
	looks := make(chan *nats.Msg, 64)
	sub, err := d.nc.ChanSubscribe("$JS.API.STREAM.MSG.GET."+streams.Results, looks)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	answered := make(chan answer, 1)
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

func TestAcks_LostImagesAreStoredAgain(t *testing.T) {
	t.Parallel()
	d, p := openProxied(t)
	p.HoldRequests(true)
	time.AfterFunc(2*time.Second, func() {
		p.Break() // the images are lost
		p.HoldRequests(false)
	})
	checkAccepted(t, d, d.async(t, 12))
}

func TestAcks_LostWithTheConnection(t *testing.T) {
	t.Parallel()
	d, p := openProxied(t)
	p.HoldReplies(true)
	time.AfterFunc(2*time.Second, func() {
		p.Break() // the acknowledgements are lost
		p.HoldReplies(false)
	})
	checkAccepted(t, d, d.async(t, 12))
}

// checkUnknown checks an answer that says that a job may have been accepted.
func checkUnknown(t *testing.T, a answer) {
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

func TestAcks_UnknownIsSaidWithTheJob(t *testing.T) {
	t.Parallel()
	d, p := openProxied(t)
	p.HoldReplies(true)
	answers := d.async(t, 12)
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
	d, p := openProxied(t)
	first := d.later("", "Prefer", "respond-async", "Idempotency-Key", "k1")
	if a := <-first; a.status != 202 {
		t.Fatalf("got %+v", a)
	}
	p.HoldReplies(true)
	time.AfterFunc(4*time.Second, func() { p.HoldReplies(false) })
	for _, a := range d.async(t, 3, "Idempotency-Key", "k2") {
		if a.status != 202 {
			t.Errorf("got %d %+v, want 202", a.status, a.problem)
		}
	}
	d.async(t, 3, "Idempotency-Key", "k2") // as a client that has lost its answer does
	if n := d.storedImages(t); n != 2 {
		t.Errorf("%d images are stored, want one for each of two keys", n)
	}
}

// TestAcks_ClientThatWaitsGetsItsResult: the acknowledgement is lost, and a
// worker processes the image all the same.
func TestAcks_ClientThatWaitsGetsItsResult(t *testing.T) {
	t.Parallel()
	d, p := openProxied(t)
	p.HoldReplies(true)
	time.AfterFunc(7*time.Second, func() { p.HoldReplies(false) })
	waiting := d.later("")
	id := d.answer(t, d.next(t), true)
	if a := <-waiting; a.status != 200 || a.result.ID != id {
		t.Errorf("got %d %+v %+v, want the result of job %s", a.status, a.result, a.problem, id)
	}
}

func TestAcks_FullStreamStaysARejection(t *testing.T) {
	t.Parallel()
	d, _ := openProxied(t)
	d.images(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	d.async(t, 1)
	start := time.Now()
	for _, a := range d.async(t, 3) {
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
	d, p := openProxied(t)
	c := d.session(t, "")
	p.HoldReplies(true)
	c.frame(t)
	m := d.next(t)
	time.Sleep(7 * time.Second)
	p.HoldReplies(false)
	id := d.answer(t, m, false)
	var a v1.FrameOutcome
	if c.read(t, &a); a.Status != v1.Done || a.Result.ID != id {
		t.Errorf("got %+v, want the result of job %s", a, id)
	}
	if n := d.storedImages(t); n != 0 {
		t.Errorf("%d more images are stored, want none", n)
	}
}
