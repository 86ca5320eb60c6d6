package client_test

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// publishEvent publishes an event of a job.
func publishEvent(t *testing.T, nc *nats.Conn, id string, name v1.EventName) {
	t.Helper()
	if err := nc.Publish(subject.Events(id), reply(t, v1.Event{ID: id, Event: name}).Data); err != nil {
		t.Error(err)
	}
	if err := nc.Flush(); err != nil {
		t.Error(err)
	}
}

// watch watches the job j1 until the test ends. When it returns, the server has the
// subscription, because it has replied to a later request of the same client.
func watch(t *testing.T, url string) *client.Watch {
	t.Helper()
	serve(t, url, subject.Lookup("j1"), reply(t, newQueuedResult("j1")))
	c := newClient(t, url)
	w, err := c.Watch("j1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	if _, err := c.Lookup(t.Context(), "j1"); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestClient_AwaitReturnsAStoredOutcome(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	requests := serve(t, url, subject.Lookup("j1"), reply(t, newDoneResult("j1", "line")))
	r, err := newClient(t, url).Await(t.Context(), "j1")
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != v1.Done {
		t.Errorf("the status is %s, want %s", r.Status, v1.Done)
	}
	if n := len(requests); n != 1 {
		t.Errorf("Await looked the job up %d times, want once", n)
	}
}

// TestClient_AwaitLooksUpAfterTheLastEvent: the event is received before the first delay
// between two look-ups has passed. Earlier events do not end the wait.
func TestClient_AwaitLooksUpAfterTheLastEvent(t *testing.T) {
	t.Parallel()
	for event, outcome := range map[v1.EventName]v1.Status{v1.EventDone: v1.Done, v1.EventFailed: v1.Failed} {
		url := startServer(t)
		last := v1.Result{ID: "j1", Status: outcome}
		requests := serve(t, url, subject.Lookup("j1"), reply(t, newQueuedResult("j1")), reply(t, last))
		nc, published := connect(t, url), make(chan struct{})
		go func() {
			defer close(published)
			<-requests // the first look-up
			publishEvent(t, nc, "j1", v1.EventDetecting)
			publishEvent(t, nc, "j1", event)
		}()
		r, err := newClient(t, url).Await(t.Context(), "j1")
		<-published
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != outcome {
			t.Errorf("%s: the status is %s, want %s", event, r.Status, outcome)
		}
		if n := len(requests); n != 1 {
			t.Errorf("%s: Await looked the job up %d times after the first, want once", event, n)
		}
	}
}

// TestClient_AwaitPollsWhenTheEventIsLost: no event is published.
func TestClient_AwaitPollsWhenTheEventIsLost(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	serve(t, url, subject.Lookup("j1"), reply(t, newQueuedResult("j1")), reply(t, newDoneResult("j1", "line")))
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	r, err := newClient(t, url).Await(ctx, "j1")
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != v1.Done {
		t.Errorf("the status is %s, want %s", r.Status, v1.Done)
	}
}

func TestClient_AwaitReturnsTheStateWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	requests := serve(t, url, subject.Lookup("j1"), reply(t, newQueuedResult("j1")))
	c := newClient(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-requests
		cancel()
	}()
	for _, when := range []string{"during the wait", "before the wait"} {
		r, err := c.Await(ctx, "j1")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: the error is %v, want %v", when, err, context.Canceled)
		}
		if r.Status != v1.Queued {
			t.Errorf("%s: the status is %q, want %s", when, r.Status, v1.Queued)
		}
	}
}

func TestClient_AwaitReturnsTheErrorOfALookUp(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	serve(t, url, subject.Lookup("j1"), problemReply(t, v1.NewProblem(v1.JobExpired, "gone"), ""))
	_, err := newClient(t, url).Await(t.Context(), "j1")
	checkProblem(t, err, v1.JobExpired)
}

func TestClient_WatchRejectsAnIDThatCannotBeOne(t *testing.T) {
	t.Parallel()
	_, err := newClient(t, startServer(t)).Watch("*")
	checkProblem(t, err, v1.UnknownJob)
}

func TestWatch_NextReturnsEventsInOrder(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	nc := connect(t, url)
	w := watch(t, url)
	events := []v1.EventName{v1.EventDetecting, v1.EventClassifying, v1.EventDone}
	for _, name := range events {
		publishEvent(t, nc, "j2", v1.EventFailed)
		publishEvent(t, nc, "j1", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	for _, want := range events {
		e, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if e.ID != "j1" {
			t.Errorf("an event of %s, want j1", e.ID)
		}
		if e.Event != want {
			t.Errorf("the event is %s, want %s", e.Event, want)
		}
	}
}

func TestWatch_NextEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := watch(t, startServer(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v", err, context.Canceled)
	}
}

func TestWatch_NextReturnsAnErrorForAnEventThatIsNotJSON(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	w := watch(t, url)
	if err := connect(t, url).Publish(subject.Events("j1"), []byte("done")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	e, err := w.Next(ctx)
	if err == nil {
		t.Errorf("got the event %+v, want an error", e)
	}
	if ctx.Err() != nil {
		t.Errorf("got %v when the time was up, want an error of JSON", err)
	}
}
