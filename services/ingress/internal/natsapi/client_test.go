package natsapi_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// patience only ends tests that would hang.
const patience = time.Minute

// newClient returns a client whose connection ends with the test.
func newClient(t *testing.T, url string) *client.Client {
	t.Helper()
	nc, err := nats.Connect(url, nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	t.Cleanup(func() {
		nc.Close()
		<-closed
	})
	c, err := client.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// observe returns what the server receives on a subject.
func observe(t *testing.T, s *bustest.Server, subj string) <-chan *nats.Msg {
	t.Helper()
	nc, received := s.Connect(t), make(chan *nats.Msg, 64)
	if _, err := nc.ChanSubscribe(subj, received); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return received
}

// images returns the stream IMAGES as it is now.
func images(t *testing.T, s *bustest.Server) (jetstream.JetStream, jetstream.Stream) {
	t.Helper()
	js, err := jetstream.New(s.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	return js, stream
}

// checkOneJob checks that IMAGES has one image, which is this job.
func checkOneJob(t *testing.T, s *bustest.Server, id string) {
	t.Helper()
	_, stream := images(t, s)
	if n := stream.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d images are stored, want 1", n)
	}
	job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: id}
	if _, err := stream.GetLastMsgForSubject(t.Context(), subject.Images(job)); err != nil {
		t.Errorf("the job %q: %v", id, err)
	}
}

// checkUnknown checks an error that says that a job may have been accepted.
func checkUnknown(t *testing.T, err error, id string) {
	t.Helper()
	var p *v1.Problem
	if !errors.As(err, &p) || p.Code != v1.Unavailable {
		t.Fatalf("the error is %v, want %s", err, v1.Unavailable)
	}
	if p.Job == "" || p.Job != id {
		t.Errorf("the problem has the id %q, and Submit returned %q; want the same", p.Job, id)
	}
	if !strings.Contains(p.Detail, "may have been accepted") {
		t.Errorf("the detail is %q, want that the image may have been accepted", p.Detail)
	}
	if _, ok := retry.Delay(err); !ok {
		t.Errorf("the error does not say when to try again: %v", err)
	}
}

func TestClient_SubmitStoresOneJobWhenAnAcknowledgementIsLost(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "text")
	p := bustest.StartProxy(t, s)
	c, published := newClient(t, p.URL), observe(t, s, subject.ImagesAt(subject.Bulk))
	p.HoldReplies(true)
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		<-published
		p.Break() // the acknowledgement is lost
		p.HoldReplies(false)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	id, err := c.Submit(ctx, "text", subject.Bulk, []byte("an image"))
	<-lost
	if err != nil {
		t.Fatal(err)
	}
	checkOneJob(t, s, id)
}

func TestClient_SubmitSaysThatAJobMayBeAccepted(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "text")
	p := bustest.StartProxy(t, s)
	c := newClient(t, p.URL)
	p.HoldReplies(true)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	id, err := c.Submit(ctx, "text", subject.Bulk, []byte("an image"))
	if ctx.Err() != nil {
		t.Error("Submit waited as long as its context")
	}
	checkUnknown(t, err, id)
	checkOneJob(t, s, id)
}

func TestClient_SubmitThatIsCancelledHasTheID(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "text")
	p := bustest.StartProxy(t, s)
	c, published := newClient(t, p.URL), observe(t, s, subject.ImagesAt(subject.Bulk))
	p.HoldReplies(true)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-published
		cancel()
	}()
	id, err := c.Submit(ctx, "text", subject.Bulk, []byte("an image"))
	checkUnknown(t, err, id)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v", err, context.Canceled)
	}
}

func TestClient_SubmitSaysThatNothingWasAccepted(t *testing.T) {
	t.Parallel()
	empty, full := bustest.StartEmpty(t), bustest.Start(t, "text")
	js, stream := images(t, full)
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs = 1
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, full.URL).Submit(t.Context(), "text", subject.Bulk, []byte("the first")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		s     *bustest.Server
		bytes int
		code  v1.Code
	}{
		{"no stream", empty, 1, v1.Unavailable},
		{"a full stream", full, 1, v1.Overloaded},
		{"an image that is too large", full, streams.MaxMessage + streams.HeaderAllowance + 1, v1.TooLarge},
	} {
		id, err := newClient(t, c.s.URL).Submit(t.Context(), "text", subject.Bulk, make([]byte, c.bytes))
		var p *v1.Problem
		if !errors.As(err, &p) || p.Code != c.code {
			t.Errorf("%s: the error is %v, want %s", c.name, err, c.code)
			continue
		}
		if id != "" || p.Job != "" {
			t.Errorf("%s: Submit returned the job %q and the problem has %q, want none", c.name, id, p.Job)
		}
		if !strings.Contains(p.Detail, "nothing was accepted") {
			t.Errorf("%s: the detail is %q, want that nothing was accepted", c.name, p.Detail)
		}
	}
}

// TestClient_LostReplyEndsARequest: the service gets the request, and its reply
// is lost.
func TestClient_LostReplyEndsARequest(t *testing.T) {
	t.Parallel()
	s := bustest.StartEmpty(t)
	c := newClient(t, s.URL)
	observe(t, s, subject.Lookup("j1"))
	observe(t, s, subject.Cancel("j1"))
	for name, ask := range map[string]func(context.Context) error{
		"Lookup": func(ctx context.Context) error { _, err := c.Lookup(ctx, "j1"); return err },
		"Cancel": func(ctx context.Context) error { _, err := c.Cancel(ctx, "j1"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			err := ask(ctx)
			if ctx.Err() != nil {
				t.Error("it waited as long as its context")
			}
			var p *v1.Problem
			if !errors.As(err, &p) {
				t.Fatalf("the error is %v, want a problem", err)
			}
			if p.Code != v1.Unavailable {
				t.Errorf("the code is %s, want %s", p.Code, v1.Unavailable)
			}
			if !strings.Contains(p.Detail, "in time") {
				t.Errorf("the detail is %q, want that nobody answered in time", p.Detail)
			}
		})
	}
}

// TestClient_SubmitJobTwiceIsOneJob: the caller was killed before it knew that
// the job was accepted.
func TestClient_SubmitJobTwiceIsOneJob(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "text")
	job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "scan-1"}
	for range 2 {
		if err := newClient(t, s.URL).SubmitJob(t.Context(), job, []byte("an image")); err != nil {
			t.Fatal(err)
		}
	}
	checkOneJob(t, s, job.ID)
}
