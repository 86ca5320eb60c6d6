package ingress

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// expire replies with the result deadline-exceeded for a job, with a problem that has no ID.
func (d *instance) expire(t *testing.T, m jetstream.Msg) (id string) {
	t.Helper()
	job, err := subject.ParseImages(m.Subject())
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(v1.Result{
		ID: job.ID, Pipeline: "text", Status: v1.Failed, Problem: v1.NewProblem(v1.DeadlineExceeded, "too late"),
	})
	if err != nil {
		t.Fatal(err)
	}
	d.reply(t, m.Headers().Get(v1.HeaderReply), body)
	return job.ID
}

// checkProblem fails the test unless a problem has this code, this ID and a trace ID.
func checkProblem(t *testing.T, p v1.Problem, code v1.Code, id string) {
	t.Helper()
	if p.Code != code {
		t.Errorf("the problem is %+v, want %s", p, code)
	}
	if p.Job != id {
		t.Errorf("the problem %s has the ID %q, want %q", code, p.Job, id)
	}
	if p.TraceID == "" {
		t.Errorf("the problem %s has no trace ID", code)
	}
}

func checkLocation(t *testing.T, h http.Header, want string) {
	t.Helper()
	checkHeader(t, h, "Location", want)
}

func TestProblem_PostHasTheID(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10)
	for name, header := range map[string][]string{"a result": nil, "a drawing": {"Accept", "image/png"}} {
		waiting := d.postLater("", header...)
		id := d.expire(t, d.nextImage(t))
		a := <-waiting
		if a.status != http.StatusGatewayTimeout {
			t.Errorf("%s: got %d, want 504", name, a.status)
		}
		checkProblem(t, a.problem, v1.DeadlineExceeded, id)
		checkLocation(t, a.header, "/v1/images/"+id)
	}
}

// TestProblem_RepeatedKeyHasTheID repeats a key while the state of its job cannot be read.
func TestProblem_RepeatedKeyHasTheID(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10)
	first := d.mustPost(t, "", "Prefer", "respond-async", "Idempotency-Key", "k1")
	if first.status != http.StatusAccepted {
		t.Fatalf("got %d %+v, want 202", first.status, first.problem)
	}
	again := d.mustPost(t, "", "Prefer", "respond-async", "Idempotency-Key", "k1")
	checkProblem(t, again.problem, v1.Unavailable, first.result.ID)
	checkLocation(t, again.header, "/v1/images/"+first.result.ID)
}

func TestProblem_OldRouteHasTheID(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10, "--old-routes")
	got := make(chan http.Header, 1)
	go func() {
		defer close(got)
		form := url.Values{"imgbase64": {base64.StdEncoding.EncodeToString(smallImage())}}
		res, err := http.PostForm(d.url+"/tyocr", form)
		if err != nil {
			t.Error(err)
			return
		}
		res.Body.Close()
		got <- res.Header
	}()
	id := d.expire(t, d.nextImage(t))
	checkLocation(t, <-got, "/v1/images/"+id)
}

func TestProblem_NATSHasTheID(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10)
	inbox, err := d.nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.nc.PublishRequest(subject.Analyze("text"), inbox.Subject, smallImage()); err != nil {
		t.Fatal(err)
	}
	id := d.expire(t, d.nextImage(t))
	m, err := inbox.NextMsg(testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	var p v1.Problem
	if err := json.Unmarshal(m.Data, &p); err != nil {
		t.Fatal(err)
	}
	checkProblem(t, p, v1.DeadlineExceeded, id)
}

// TestProblem_FrameHasTheID covers a frame that ends with the outcome of its job. For a frame that ends by the time
// limit of frames, see [TestSession_FrameThatWaitedHasItsWholeTime].
func TestProblem_FrameHasTheID(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10)
	c := d.session(t, "")
	c.frame(t)
	id := d.expire(t, d.nextImage(t))
	var a v1.FrameOutcome
	c.read(t, &a)
	checkFailed(t, a, 0, v1.DeadlineExceeded, id)
}

// startWithDeadline opens an ingress with workers whose pipeline text has this deadline.
func startWithDeadline(t *testing.T, deadline string) *instance {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pipelines.yaml")
	text := "pipelines: [{name: text, deadline: " + deadline + ", detect: {kind: text-lines, timeout: 1s}}]"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startServed(t, 2, 10, "--pipelines", file)
}
