package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/mux"

	"github.com/sightmesh/sightmesh/contracts/client"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/reportintake"
)

const (
	// lookupInterval is the time without an event after which the state is looked up, because an event can be
	// missed. A comment then keeps the connection open.
	lookupInterval = 10 * time.Second
	// eventTimeout is the time limit for a client to read one event.
	eventTimeout = 10 * time.Second
)

// eventHandler serves event streams.
type eventHandler struct {
	client   *client.Client
	reports  *reportintake.Reports
	limiter  *requestLimiter
	stopping context.Context //nolint:containedctx // it is the life of the process, not of a call
}

// eventStream writes server-sent events (text/event-stream of the HTML standard).
type eventStream struct {
	w http.ResponseWriter
	c *http.ResponseController
	n int // number of events sent
}

// endID is the ID of the last event of a stream. A client that reconnects with it gets 204, because
// EventSource reconnects whenever a stream ends.
const endID = "end"

// newEventStream starts a stream. last is the ID of the last event that the client has received, or "".
func newEventStream(w http.ResponseWriter, last string) *eventStream {
	// Without a charset, clients such as requests of Python read a text as ISO 8859-1.
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx, such as the ingress controller of Kubernetes, would buffer events
	w.WriteHeader(http.StatusOK)
	n, err := strconv.ParseUint(last, 10, 31)
	if err != nil { // not an ID of this API
		n = 0
	}
	return &eventStream{w, http.NewResponseController(w), int(n)}
}

// send sends an event that is not the last.
func (s *eventStream) send(event v1.EventName, data any) error {
	s.n++
	return s.sendAs(strconv.Itoa(s.n), event, data)
}

// sendLast sends the last event of the stream.
func (s *eventStream) sendLast(event v1.EventName, data any) error {
	return s.sendAs(endID, event, data)
}

func (s *eventStream) sendAs(id string, event v1.EventName, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("send event %s: %w", event, err)
	}
	return s.write(fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", id, event, body))
}

// sendComment sends a comment, which clients ignore.
func (s *eventStream) sendComment() error { return s.write(": still here\n\n") }

func (s *eventStream) write(text string) error {
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

// image streams the events of a job: accepted, then those of the workers, then done or failed with the
// result.
func (h *eventHandler) image(w http.ResponseWriter, r *http.Request) error {
	filter, err := parseFilter(r)
	if err != nil {
		return err
	}
	id := mux.Vars(r)["id"]
	return h.serve(w, r, id, func(ctx context.Context) (state, error) {
		result, err := h.client.Lookup(ctx, id)
		now := state{accepted: v1.Event{ID: id, Event: v1.EventAccepted, At: time.Now().UTC(), Status: result.Status}}
		if result.Final() {
			now.ended, now.outcome = v1.EventName(result.Status), filter.Apply(result)
		}
		return now, err
	})
}

// report streams the events of a report: accepted, then each outcome, then done with the counts.
func (h *eventHandler) report(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	id := mux.Vars(r)["id"]
	if err := reportintake.CheckID(id); err != nil { // the problem of a watch is that of a job
		return err
	}
	return h.serve(w, r, id, func(ctx context.Context) (state, error) {
		report, err := h.reports.Summary(ctx, id)
		now := state{accepted: report}
		if report.Status == v1.Done {
			now.ended, now.outcome = v1.EventDone, report
		}
		return now, err
	})
}

// state is the state of a job or report: the content of the first event, and the name and content of the last
// event once it has ended.
type state struct {
	accepted any
	ended    v1.EventName
	outcome  any
}

// lookupFunc returns the state of a job or report.
type lookupFunc func(context.Context) (state, error)

// serve streams the state of a job or report, its events, and how it ended.
func (h *eventHandler) serve(w http.ResponseWriter, r *http.Request, id string, lookup lookupFunc) error {
	last := r.Header.Get("Last-Event-ID")
	if last == endID {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	release, err := h.limiter.acquire(clientKey(r))
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.stopping, cancel)() // the client reconnects to another instance
	watch, err := h.client.Watch(id)
	if err != nil {
		return err
	}
	defer watch.Close()
	now, err := lookupState(r.Context(), lookup) // also while stopping, so that the client gets the state
	if err != nil {
		return err
	}
	out := newEventStream(w, last)
	if last == "" {
		if err := out.send(v1.EventAccepted, now.accepted); err != nil {
			return err
		}
	}
	for now.ended == "" {
		e, err := nextEvent(ctx, watch)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return err
		case err == nil && e.Event == v1.EventAccepted:
			continue // sent already
		case err == nil && e.Event != v1.EventDone && e.Event != v1.EventFailed:
			if err := out.send(e.Event, e); err != nil {
				return err
			}
			continue
		}
		if now, err = lookupState(ctx, lookup); err != nil {
			return err
		}
		if now.ended != "" {
			break
		}
		if err := out.sendComment(); err != nil {
			return err
		}
	}
	return out.sendLast(now.ended, now.outcome)
}

func lookupState(ctx context.Context, lookup lookupFunc) (state, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return lookup(ctx)
}

func nextEvent(ctx context.Context, w *client.Watch) (v1.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupInterval)
	defer cancel()
	return w.Next(ctx)
}
