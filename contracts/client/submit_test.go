package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// checkMayBeAccepted checks an error that says that a job may have been accepted.
func checkMayBeAccepted(t *testing.T, err error, id string) {
	t.Helper()
	p := checkProblem(t, err, v1.Unavailable)
	if id == "" {
		t.Error("Submit returned no ID")
	}
	if p.Job != id {
		t.Errorf("the problem has the ID %q, want that of Submit, %q", p.Job, id)
	}
	if !strings.Contains(p.Detail, "may have been accepted") {
		t.Errorf("the detail is %q, want that the image may have been accepted", p.Detail)
	}
	if _, ok := retry.Delay(err); !ok {
		t.Errorf("the error does not say when to try again: %v", err)
	}
}

func TestClient_SubmitStoresTheImage(t *testing.T) {
	t.Parallel()
	url := startMesh(t)
	before := time.Now()
	id, err := newClient(t, url).Submit(t.Context(), "text", subject.Bulk, []byte("an image"))
	if err != nil {
		t.Fatal(err)
	}
	m := checkOneJob(t, url, id)
	if got := string(m.Data); got != "an image" {
		t.Errorf("the message has %q, want the image", got)
	}
	accepted, err := time.Parse(time.RFC3339Nano, m.Header.Get(v1.HeaderAccepted))
	if err != nil {
		t.Fatalf("%s: %v", v1.HeaderAccepted, err)
	}
	if accepted.Before(before.Add(-time.Millisecond)) || accepted.After(time.Now()) {
		t.Errorf("%s is %v, want the time of the submission", v1.HeaderAccepted, accepted)
	}
}

// TestClient_SubmitStoresOneJobWhenAnAcknowledgementIsLost: the connection breaks
// after the server has stored the image.
func TestClient_SubmitStoresOneJobWhenAnAcknowledgementIsLost(t *testing.T) {
	t.Parallel()
	url := startMesh(t)
	c, dialer := newLossyClient(t, url)
	published, _ := subscribe(t, url, subject.ImagesOfPriority(subject.Bulk))
	dialer.loseReplies()
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		<-published
		dialer.closeConns()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	id, err := c.Submit(ctx, "text", subject.Bulk, []byte("an image"))
	<-lost
	if err != nil {
		t.Fatal(err)
	}
	checkOneJob(t, url, id)
}

func TestClient_SubmitReportsThatAJobMayBeAccepted(t *testing.T) {
	t.Parallel()
	url := startMesh(t)
	c, dialer := newLossyClient(t, url)
	dialer.loseReplies()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	id, err := c.Submit(ctx, "text", subject.Bulk, []byte("an image"))
	if ctx.Err() != nil {
		t.Error("Submit waited as long as its context")
	}
	checkMayBeAccepted(t, err, id)
	checkOneJob(t, url, id)
}

func TestClient_SubmitThatIsCancelledHasTheID(t *testing.T) {
	t.Parallel()
	url := startMesh(t)
	c, dialer := newLossyClient(t, url)
	published, _ := subscribe(t, url, subject.ImagesOfPriority(subject.Bulk))
	dialer.loseReplies()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-published
		cancel()
	}()
	id, err := c.Submit(ctx, "text", subject.Bulk, []byte("an image"))
	checkMayBeAccepted(t, err, id)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v", err, context.Canceled)
	}
}

func TestClient_SubmitReportsThatNothingWasAccepted(t *testing.T) {
	t.Parallel()
	empty, full := startServer(t), startMesh(t)
	js, stream := images(t, full)
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs = 1
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, full).Submit(t.Context(), "text", subject.Bulk, []byte("the first")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		url    string
		bytes  int
		code   v1.Code
		passes bool
	}{
		{"no stream", empty, 1, v1.Unavailable, true},
		{"a full stream", full, 1, v1.Overloaded, true},
		{"an image that is too large", full, streams.MaxMessage + streams.HeaderAllowance + 1, v1.TooLarge, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := newClient(t, tt.url).Submit(t.Context(), "text", subject.Bulk, make([]byte, tt.bytes))
			p := checkProblem(t, err, tt.code)
			if id != "" {
				t.Errorf("Submit returned the job %q, want none", id)
			}
			if p.Job != "" {
				t.Errorf("the problem has the job %q, want none", p.Job)
			}
			if !strings.Contains(p.Detail, "nothing was accepted") {
				t.Errorf("the detail is %q, want that nothing was accepted", p.Detail)
			}
			if _, passes := retry.Delay(err); passes != tt.passes {
				t.Errorf("the error says when to try again: %v, want %v", passes, tt.passes)
			}
		})
	}
}

// TestClient_SubmitAfterTheConnectionIsClosed: nothing can be accepted, which is
// said immediately.
func TestClient_SubmitAfterTheConnectionIsClosed(t *testing.T) {
	t.Parallel()
	nc := connect(t, startMesh(t))
	c, err := client.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	id, err := c.Submit(t.Context(), "text", subject.Bulk, nil)
	if p := checkProblem(t, err, v1.Unavailable); !strings.Contains(p.Detail, "nothing was accepted") {
		t.Errorf("the detail is %q, want that nothing was accepted", p.Detail)
	}
	if id != "" {
		t.Errorf("Submit returned the job %q, want none", id)
	}
}

func TestClient_SubmitWithAContextThatHasEnded(t *testing.T) {
	t.Parallel()
	url := startMesh(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	id, err := newClient(t, url).Submit(ctx, "text", subject.Bulk, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v", err, context.Canceled)
	}
	if id != "" {
		t.Errorf("Submit returned the job %q, want none", id)
	}
	_, stream := images(t, url)
	if n := stream.CachedInfo().State.Msgs; n != 0 {
		t.Errorf("%d images are stored, want none", n)
	}
}

func TestClient_SubmitJobRejectsAnIDThatCannotBeOne(t *testing.T) {
	t.Parallel()
	job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "scan.1"}
	checkProblem(t, newClient(t, startServer(t)).SubmitJob(t.Context(), job, nil), v1.UnknownJob)
}

// TestClient_SubmitJobTwiceIsOneJob: the caller was killed before it knew that the
// job was accepted.
func TestClient_SubmitJobTwiceIsOneJob(t *testing.T) {
	t.Parallel()
	url := startMesh(t)
	job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "scan-1"}
	for range 2 {
		if err := newClient(t, url).SubmitJob(t.Context(), job, []byte("an image")); err != nil {
			t.Fatal(err)
		}
	}
	checkOneJob(t, url, job.ID)
}
