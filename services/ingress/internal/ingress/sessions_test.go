package ingress

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

// session is a client of GET /v1/stream.
type session struct {
	*websocket.Conn
	ctx context.Context
}

func (d *instance) dial(t *testing.T, query, origin string) (session, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	c, res, err := websocket.Dial(ctx, strings.Replace(d.url, "http", "ws", 1)+"/v1/stream"+query,
		&websocket.DialOptions{HTTPHeader: header})
	if err == nil {
		t.Cleanup(func() { c.CloseNow() })
	}
	return session{c, ctx}, res, err
}

func (d *instance) session(t *testing.T, query string) session {
	t.Helper()
	c, res, err := d.dial(t, query, "") //nolint:bodyclose // a session has none
	if err != nil {
		if res != nil {
			body, _ := io.ReadAll(res.Body) // only for the message
			t.Logf("the response is %s", body)
		}
		t.Fatal(err)
	}
	return c
}

func (c session) frame(t *testing.T) {
	t.Helper()
	if err := c.Write(c.ctx, websocket.MessageBinary, smallImage()); err != nil {
		t.Fatal(err)
	}
}

// checkDone fails the test unless a is the outcome of a frame with the result of this job.
func checkDone(t *testing.T, a v1.FrameOutcome, frame int64, id string) {
	t.Helper()
	if a.Frame != frame {
		t.Errorf("got the outcome of frame %d, want %d", a.Frame, frame)
	}
	if a.Status != v1.Done {
		t.Errorf("frame %d is %s, want %s", frame, a.Status, v1.Done)
	}
	if a.Result == nil {
		t.Errorf("frame %d has no result", frame)
	} else if a.Result.ID != id {
		t.Errorf("frame %d has the result of job %s, want %s", frame, a.Result.ID, id)
	}
}

// checkFailed fails the test unless a is the outcome of a frame that failed with this problem of this job.
func checkFailed(t *testing.T, a v1.FrameOutcome, frame int64, code v1.Code, id string) {
	t.Helper()
	if a.Frame != frame {
		t.Errorf("got the outcome of frame %d, want %d", a.Frame, frame)
	}
	if a.Status != v1.Failed {
		t.Errorf("frame %d is %s, want %s", frame, a.Status, v1.Failed)
	}
	if a.Problem == nil {
		t.Errorf("frame %d has no problem, want %s", frame, code)
	} else {
		checkProblem(t, *a.Problem, code, id)
	}
}

// read reads one message into v.
func (c session) read(t *testing.T, v any) {
	t.Helper()
	_, data, err := c.Read(c.ctx)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestStop_SessionEndHasTheNextFrame checks that received frames are finished first.
func TestStop_SessionEndHasTheNextFrame(t *testing.T) {
	d := startServed(t, 2, 10)
	c := d.session(t, "?from=5")
	c.frame(t)
	first := d.nextImage(t)
	c.frame(t)
	second := d.nextImage(t)
	d.stop()
	idSecond, idFirst := d.storeResult(t, second, true), d.storeResult(t, first, true)
	for i, id := range []string{idFirst, idSecond} {
		var a v1.FrameOutcome
		c.read(t, &a)
		checkDone(t, a, int64(5+i), id)
	}
	var end v1.SessionEnd
	c.read(t, &end)
	if end.End {
		t.Error("the last message has end, want a session that continues")
	}
	if end.Next != 7 {
		t.Errorf("the next frame is %d, want 7", end.Next)
	}
	if end.Problem == nil {
		t.Error("the last message has no problem")
	} else if end.Problem.Code != v1.Unavailable {
		t.Errorf("the code is %s, want %s", end.Problem.Code, v1.Unavailable)
	}
	if _, _, err := c.Read(c.ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the session was closed with %v, want %v", err, websocket.StatusGoingAway)
	}
}

// TestSession_CancelsFramesWhenTheClientDisconnects checks the jobs of frames, which no other client can
// look up.
func TestSession_CancelsFramesWhenTheClientDisconnects(t *testing.T) {
	d := startServed(t, 2, 10)
	cancels, err := d.nc.SubscribeSync(subject.AllCancel())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	c := d.session(t, "")
	c.frame(t)
	job, err := subject.ParseImages(d.nextImage(t).Subject())
	if err != nil {
		t.Fatal(err)
	}
	c.CloseNow()
	m, err := cancels.NextMsg(testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	if want := subject.Cancel(job.ID); m.Subject != want {
		t.Fatalf("got a request on %s, want %s", m.Subject, want)
	}
	m.Respond([]byte("{}"))
}

// TestSession_FramesWaitWhileTheQueueIsFull also checks that a request is rejected then.
func TestSession_FramesWaitWhileTheQueueIsFull(t *testing.T) {
	d := startServed(t, 2, 10)
	d.updateImagesStream(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	c := d.session(t, "?window=2")
	c.frame(t)
	m := d.nextImage(t)
	c.frame(t)
	checkResponse(t, "a request", d.mustPost(t, ""), http.StatusTooManyRequests, v1.Overloaded)
	for n := range int64(2) {
		id := d.storeResult(t, m, true)
		var a v1.FrameOutcome
		c.read(t, &a)
		checkDone(t, a, n, id)
		if n == 0 {
			m = d.nextImage(t) // after a retry of the session
		}
	}
}

// TestSession_FrameThatWaitedHasItsWholeTime checks that the time before a frame is stored does not count for the
// wait for its outcome. The problem of the frame has the ID of its job, which can still have any outcome.
func TestSession_FrameThatWaitedHasItsWholeTime(t *testing.T) {
	t.Parallel()
	const deadline = 6 * time.Second
	d := startWithDeadline(t, deadline.String())
	d.updateImagesStream(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	c := d.session(t, "?window=2")
	c.frame(t)
	first := d.nextImage(t)
	sent := time.Now()
	c.frame(t) // the queue is full until the outcome of the first frame
	checkResponse(t, "a request", d.mustPost(t, ""), http.StatusTooManyRequests, v1.Overloaded)
	var a v1.FrameOutcome
	id := d.storeResult(t, first, true)
	c.read(t, &a)
	checkDone(t, a, 0, id)
	job, err := subject.ParseImages(d.nextImage(t).Subject())
	if err != nil {
		t.Fatal(err)
	}
	var second v1.FrameOutcome
	c.read(t, &second)
	if elapsed, least := time.Since(sent), intake.RetryDelay+2*deadline; elapsed < least {
		t.Errorf("the frame ended after %v, want %v or more: %+v", elapsed, least, second)
	}
	checkFailed(t, second, 1, v1.Unavailable, job.ID)
}

// TestSession_ReleasesFramesOnceStored has memory for one frame of full size. A second frame is
// accepted while the first is in progress.
func TestSession_ReleasesFramesOnceStored(t *testing.T) {
	d := startServed(t, 2, 10, "--body-memory", "8388608")
	c := d.session(t, "?window=2")
	c.frame(t)
	d.nextImage(t)
	c.frame(t)
	d.nextImage(t)
}

func TestSession_RejectsInvalidRequests(t *testing.T) {
	d := start(t, "--max-streams", "1") // the former name of --max-sessions
	if !strings.Contains(d.log.text(), `"flag":"--max-streams","use":"--max-sessions"`) {
		t.Errorf("the log has no warning about the former name:\n%s", d.log.text())
	}
	checkRejected := func(query, origin string, code v1.Code) {
		t.Helper()
		_, res, err := d.dial(t, query, origin)
		if err == nil {
			t.Fatalf("%s of %q was opened, want %s", query, origin, code)
		}
		defer res.Body.Close()
		var p v1.Problem
		if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
			t.Fatalf("%s of %q: %v", query, origin, err)
		}
		if p.Code != code {
			t.Errorf("%s of %q: %+v, want %s", query, origin, p, code)
		}
		if res.StatusCode != p.Status {
			t.Errorf("%s of %q: %s, want the status of the problem, %d", query, origin, res.Status, p.Status)
		}
		if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s of %q: Content-Type is %q", query, origin, got)
		}
	}
	for _, name := range []string{"X-Sight-Foo", "X-Sight-Meta-A"} {
		res, problem := d.send(t, http.MethodGet, "/v1/stream", name, "1", "Connection", "Upgrade", "Upgrade", "websocket")
		if res.status != http.StatusBadRequest {
			t.Errorf("%s: %d, want 400", name, res.status)
		}
		if problem.Code != v1.UnknownField {
			t.Errorf("%s: the code is %q, want %s", name, problem.Code, v1.UnknownField)
		}
		if problem.Field != name {
			t.Errorf("%s: the field is %q, want %s", name, problem.Field, name)
		}
	}
	checkRejected("", "", v1.NoWorker)
	d.startWorkers(t, 2, 10)
	checkRejected("?pipeline=faces", "", v1.NoWorker)
	checkRejected("", "https://elsewhere.example", v1.CrossOrigin)
	c := d.session(t, "")
	checkRejected("", "", v1.Overloaded)
	c.Close(websocket.StatusNormalClosure, "")
	// Another session can be opened when the first has ended.
	eventually.Succeeds(t, testTimeout, func() error {
		_, res, err := d.dial(t, "", d.url)
		if err != nil {
			res.Body.Close()
			return fmt.Errorf("open a session after the first: %w", err)
		}
		return nil
	})
}
