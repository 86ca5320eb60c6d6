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

// Watch hears what happens to a job or report. Events are hints: what they say
// is stored, and some may be missed.
type Watch struct {
	sub    *nats.Subscription
	events chan *nats.Msg
}

// Watch begins to listen; what happens after it returns and is looked up, is
// heard. The caller ends it with Close. An id that cannot be one is a
// [*v1.Problem].
func (c *Client) Watch(id string) (*Watch, error) {
	if !subject.ValidJob(id) {
		return nil, errNoJob()
	}
	w := &Watch{events: make(chan *nats.Msg, 64)}
	var err error
	if w.sub, err = c.nc.ChanSubscribe(subject.Events(id), w.events); err != nil {
		return nil, fmt.Errorf("watch %s: %w", id, err)
	}
	return w, nil
}

// Close stops listening.
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

// Looks has the delays between two look-ups of a job that is waited for: events
// and replies can be lost.
var Looks = retry.Exponential(time.Second, 8*time.Second, 2)

// Await returns the answer of any job, whoever submitted it, or its state and
// the error of ctx when that ends first. Other errors are as for [Client.Lookup].
func (c *Client) Await(ctx context.Context, id string) (v1.Result, error) {
	if !subject.ValidJob(id) || ctx.Err() != nil { // which the look-up says, or there is no time to wait
		r, err := c.LookupNow(ctx, id)
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
	for looks := 1; ; looks++ {
		r, err := c.LookupNow(ctx, id)
		if err != nil || r.Final() {
			return r, err
		}
		if err := w.end(ctx, Looks.Delay(looks)); err != nil {
			return r, err
		}
	}
}

// LookupNow is Lookup even when ctx has ended, for a last word on the job.
func (c *Client) LookupNow(ctx context.Context, id string) (v1.Result, error) {
	return c.Lookup(context.WithoutCancel(ctx), id)
}

// end waits until the job ends, but no longer than d, since an event can be
// missed.
func (w *Watch) end(ctx context.Context, d time.Duration) error {
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
