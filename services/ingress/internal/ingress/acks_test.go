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

// startBehindProxy starts an ingress that reaches NATS through a proxy, and a results service
// that looks up jobs in the stream IMAGES.
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

// storedImages returns how many messages the stream IMAGES has.
func (d *instance) storedImages(t *testing.T) uint64 {
	t.Helper()
	s, err := d.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// postAsync posts n images concurrently with respond-async.
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

func checkAccepted(t *testing.T, d *instance, responses []response) {
	t.Helper()
	for _, a := range responses {
		checkResponse(t, "an image", a, http.StatusAccepted, "")
		if !d.isStored(t, a.result.ID) {
			t.Errorf("job %q is not stored", a.result.ID)
		}
	}
	if n := d.storedImages(t); n != uint64(len(responses)) {
		t.Errorf("%d images are stored, want %d", n, len(responses))
	}
}

// TestAcks_LateAcknowledgementIsAccepted delays the acknowledgements until there were two publishes for each image.
func TestAcks_LateAcknowledgementIsAccepted(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	bustest.OnPublish(t, d.nc, subject.AllImages(), 2*12, func() { p.PauseReplies(false) })
	p.PauseReplies(true)
	checkAccepted(t, d, d.postAsync(t, 12))
}

// TestAcks_LostLookupDelaysNoResult breaks the connection while ingress polls for a result whose
// reply was lost.
func TestAcks_LostLookupDelaysNoResult(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	polls := make(chan *nats.Msg, 64)
	sub, err := d.nc.ChanSubscribe("$JS.API.STREAM.MSG.GET."+streams.Results, polls)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	responses := make(chan response, 1)
	go func() {
		a, err := d.post(t.Context(), "", "Prefer", "wait=20")
		if err != nil {
			t.Error(err)
		}
		responses <- a
	}()
	eventually.Succeeds(t, testTimeout, func() error {
		if d.storedImages(t) == 0 {
			return errors.New("the image is not stored")
		}
		return nil
	})
	p.PauseReplies(true)
	<-polls
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
	p.PauseReplies(false)
	checkResult(t, <-responses, job.ID)
}

func TestAcks_StoresLostImagesAgain(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	p.PauseRequests(true)
	time.AfterFunc(2*time.Second, func() {
		p.Break() // the images are lost
		p.PauseRequests(false)
	})
	checkAccepted(t, d, d.postAsync(t, 12))
}

func TestAcks_LostConnection(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	bustest.OnPublish(t, d.nc, subject.AllImages(), 12, func() {
		p.Break() // the acknowledgements are lost
		p.PauseReplies(false)
	})
	p.PauseReplies(true)
	checkAccepted(t, d, d.postAsync(t, 12))
}

// checkUnknown checks the response for a job that may have been accepted.
func checkUnknown(t *testing.T, a response) {
	t.Helper()
	checkResponse(t, "a job that may have been accepted", a, http.StatusServiceUnavailable, v1.Unavailable)
	if a.problem.Job == "" {
		t.Error("the problem has no ID")
	}
	checkLocation(t, a.header, "/v1/images/"+a.problem.Job)
	if want := "may have been accepted"; !strings.Contains(a.problem.Detail, want) {
		t.Errorf("the detail is %q, want %q", a.problem.Detail, want)
	}
}

func TestAcks_UnknownHasTheIDOfTheJob(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	p.PauseReplies(true)
	responses := d.postAsync(t, 12)
	p.PauseReplies(false)
	for _, a := range responses {
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
	// Three requests claim the key k2, and then one of them again.
	bustest.OnPublish(t, d.nc, subject.AllJobs(), 3+1, func() { p.PauseReplies(false) })
	p.PauseReplies(true)
	for _, a := range d.postAsync(t, 3, "Idempotency-Key", "k2") {
		if a.status != 202 {
			t.Errorf("got %d %+v, want 202", a.status, a.problem)
		}
	}
	d.postAsync(t, 3, "Idempotency-Key", "k2") // like a client that has lost its response
	if n := d.storedImages(t); n != 2 {
		t.Errorf("%d images are stored, want one for each of two keys", n)
	}
}

// TestAcks_WaitingClientGetsItsResult covers an image that a worker processes although its
// acknowledgement is lost.
func TestAcks_WaitingClientGetsItsResult(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	p.PauseReplies(true)
	time.AfterFunc(7*time.Second, func() { p.PauseReplies(false) })
	waiting := d.postLater("")
	id := d.storeResult(t, d.nextImage(t), true)
	checkResult(t, <-waiting, id)
}

func TestAcks_FullStreamIsRejected(t *testing.T) {
	t.Parallel()
	d, _ := startBehindProxy(t)
	d.updateImagesStream(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	d.postAsync(t, 1)
	attempts, err := d.nc.SubscribeSync(subject.AllImages())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, a := range d.postAsync(t, 3) {
		checkResponse(t, "a full stream", a, http.StatusTooManyRequests, v1.Overloaded)
		if a.problem.Job != "" {
			t.Errorf("the problem has the ID %s, want none", a.problem.Job)
		}
	}
	n := 0
	eventually.Succeeds(t, testTimeout, func() error { // the server can reject a message before it delivers the message
		if n, _, err = attempts.Pending(); err == nil && n < 3 {
			err = fmt.Errorf("%d publishes have arrived, want 3", n)
		}
		return err
	})
	if n != 3 {
		t.Errorf("3 images were published %d times, want no retries", n)
	}
}

// TestAcks_FrameIsOneJob delays the acknowledgement of a frame for longer than the retries of one
// submission.
func TestAcks_FrameIsOneJob(t *testing.T) {
	t.Parallel()
	d, p := startBehindProxy(t)
	c := d.session(t, "")
	p.PauseReplies(true)
	c.frame(t)
	m := d.nextImage(t)
	eventually.Succeeds(t, testTimeout, func() error { // until the retries of the first submission have ended
		if want := streams.ErrUnknown.Error(); !strings.Contains(d.log.text(), want) {
			return fmt.Errorf("the log has no line %q", want)
		}
		return nil
	})
	p.PauseReplies(false)
	id := d.storeResult(t, m, false)
	var a v1.FrameOutcome
	c.read(t, &a)
	checkDone(t, a, 0, id)
	if n := d.storedImages(t); n != 0 {
		t.Errorf("%d more images are stored, want none", n)
	}
}
