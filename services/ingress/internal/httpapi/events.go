package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/sightmesh/sightmesh/contracts/client"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

const (
	// quiet is after how long without an event the state is looked up, since
	// an event can be missed, and the connection is shown to be alive.
	quiet = 10 * time.Second
	// eventTimeout is how long a client may take to read one event.
	eventTimeout = 10 * time.Second
)

// stream writes server-sent events (text/event-stream of the HTML standard).
type stream struct {
	w http.ResponseWriter
	c *http.ResponseController
}

func openStream(w http.ResponseWriter) stream {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx, as an ingress of Kubernetes, would hold events back
	w.WriteHeader(http.StatusOK)
	return stream{w, http.NewResponseController(w)}
}

func (s stream) send(event v1.EventName, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("send event %s: %w", event, err)
	}
	return s.write(fmt.Sprintf("event: %s\ndata: %s\n\n", event, body))
}

// alive is a comment.
func (s stream) alive() error { return s.write(": still here\n\n") }

func (s stream) write(text string) error {
	if err := s.c.SetWriteDeadline(time.Now().Add(eventTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("send event: %w", err)
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return fmt.Errorf("send event: %w", err)
	}
	if err := s.c.Flush(); err != nil {
		return fmt.Errorf("send event: %w", err)
	}
	return nil
}

// imageEvents tells what happens to a job: accepted, then what the workers do,
// then done or failed with the result, after which the stream ends.
func (a *API) imageEvents(w http.ResponseWriter, r *http.Request) error {
	id := mux.Vars(r)["id"]
	return a.events(w, r, id, func(ctx context.Context) (standing, error) {
		result, err := a.Intake.Lookup(ctx, id)
		now := standing{accepted: v1.Event{ID: id, Event: v1.EventAccepted, At: time.Now().UTC(), Status: result.Status}}
		if result.Final() {
			now.ended, now.outcome = v1.EventName(result.Status), result
		}
		return now, err
	})
}

// reportEvents tells what happens to a report: accepted, then each outcome,
// then done with the counts, after which the stream ends.
func (a *API) reportEvents(w http.ResponseWriter, r *http.Request) error {
	id := mux.Vars(r)["id"]
	return a.events(w, r, id, func(ctx context.Context) (standing, error) {
		report, err := a.Reports.Summary(ctx, id)
		now := standing{accepted: report}
		if report.Status == v1.Done {
			now.ended, now.outcome = v1.EventDone, report
		}
		return now, readError(err)
	})
}

// standing is where something is: what its first event carries, and the last
// one with what that carries, once it has ended.
type standing struct {
	accepted any
	ended    v1.EventName
	outcome  any
}

// events tells where something is, what happens to it, and how it ended.
func (a *API) events(w http.ResponseWriter, r *http.Request, id string, state func(context.Context) (standing, error)) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(a.Stopping, cancel)() // the client comes back to another instance
	watch, err := a.Intake.Watch(id)
	if err != nil {
		return err
	}
	defer watch.Close()
	now, err := lookUp(r.Context(), state) // where it is, a client learns in any case
	if err != nil {
		return err
	}
	out := openStream(w)
	if err := out.send(v1.EventAccepted, now.accepted); err != nil {
		return err
	}
	for now.ended == "" {
		e, err := next(ctx, watch)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return err
		case err == nil && e.Event == v1.EventAccepted:
			continue // said already
		case err == nil && e.Event != v1.EventDone && e.Event != v1.EventFailed:
			if err := out.send(e.Event, e); err != nil {
				return err
			}
			continue
		}
		if now, err = lookUp(ctx, state); err != nil {
			return err
		}
		if now.ended != "" {
			break
		}
		if err := out.alive(); err != nil {
			return err
		}
	}
	return out.send(now.ended, now.outcome)
}

func lookUp(ctx context.Context, state func(context.Context) (standing, error)) (standing, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return state(ctx)
}

func next(ctx context.Context, w *client.Watch) (v1.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	return w.Next(ctx)
}
