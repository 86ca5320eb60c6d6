package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// A Watch receives the events of a job or report. Events are hints that can be lost;
// what they report is stored, and can be looked up.
type Watch struct {
	sub    *nats.Subscription
	events chan *nats.Msg
}

// Watch subscribes to the events of a job or report. The Watch receives the events that
// happen after a look-up that is made after Watch has returned. The caller ends it with
// Close. The error of an invalid ID is a [*v1.Problem].
func (c *Client) Watch(id string) (*Watch, error) {
	if !subject.ValidJob(id) {
		return nil, newInvalidIDProblem()
	}
	w := &Watch{events: make(chan *nats.Msg, 64)}
	var err error
	if w.sub, err = c.nc.ChanSubscribe(subject.Events(id), w.events); err != nil {
		return nil, fmt.Errorf("watch %s: %w", id, err)
	}
	return w, nil
}

// Close ends the subscription.
func (w *Watch) Close() {
	_ = w.sub.Unsubscribe() // fails only when the connection is gone
}

// Next returns the next event, or the error of ctx when it ends first.
func (w *Watch) Next(ctx context.Context) (v1.Event, error) {
	var e v1.Event
	select {
	case m := <-w.events:
		if err := json.Unmarshal(m.Data, &e); err != nil {
			return e, fmt.Errorf("decode event: %w", err)
		}
		return e, nil
	case <-ctx.Done():
		return e, ctx.Err()
	}
}

// LookupBackoff has the delays between the look-ups of [Client.Await], which polls because
// events and replies can be lost: 1 s, and then twice as long each time, up to 8 s.
var LookupBackoff = retry.Exponential(time.Second, 8*time.Second, 2)

// Await waits for the outcome of a job and returns its result. The job may have been
// submitted by any client. When ctx ends first, Await returns the state of the job and
// the error of ctx. Other errors are those of [Client.Lookup].
func (c *Client) Await(ctx context.Context, id string, regions ...RegionOption) (v1.Result, error) {
	if !subject.ValidJob(id) || ctx.Err() != nil { // LookupNow rejects the ID, or there is no time to wait
		r, err := c.LookupNow(ctx, id, regions...)
		if err == nil && !r.Final() {
			err = ctx.Err()
		}
		return r, err
	}
	w, err := c.Watch(id)
	if err != nil {
		return v1.Result{}, err
	}
	defer w.Close()
	for attempt := 1; ; attempt++ {
		r, err := c.LookupNow(ctx, id, regions...)
		if err != nil || r.Final() {
			return r, err
		}
		if err := w.awaitLastEvent(ctx, LookupBackoff.Delay(attempt)); err != nil {
			return r, err
		}
	}
}

// LookupNow is Lookup with a context that does not end with ctx, for the state of a job
// at the end of a wait.
func (c *Client) LookupNow(ctx context.Context, id string, regions ...RegionOption) (v1.Result, error) {
	return c.Lookup(context.WithoutCancel(ctx), id, regions...)
}

// awaitLastEvent waits for the event that ends the job, and at most d, because events can be lost.
func (w *Watch) awaitLastEvent(ctx context.Context, d time.Duration) error {
	wait, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		e, err := w.Next(wait)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			return nil
		case err != nil:
			return err
		case e.Event == v1.EventDone || e.Event == v1.EventFailed:
			return nil
		}
	}
}
