package httpapi

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/body"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/sessions"
	"github.com/sightmesh/sightmesh/services/internal/regionfilter"
	"github.com/sightmesh/sightmesh/services/internal/requestfields"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// defaultWindow is the default window of a session.
const defaultWindow = 8

const (
	streamIdle         = 5 * time.Minute
	streamWriteTimeout = 30 * time.Second
	streamPing         = 30 * time.Second // half of the usual idle timeout of proxies
)

// sessionHandler serves /v1/stream: sessions of ordered frames over WebSocket. http.Server does not track
// open sessions, so drain waits for them.
type sessionHandler struct {
	intake  *intake.Intake
	params  parameters
	bodies  *bodies
	respond *responder

	maxWindow      int
	limiter        *requestLimiter
	open           sync.WaitGroup
	sessionCtx     context.Context //nolint:containedctx // of sessions, until end is called
	cancelSessions context.CancelFunc
	stopping       context.Context //nolint:containedctx // it is the life of the process, not of a call
}

func newSessionHandler(cfg Config, params parameters, bodies *bodies, respond *responder) *sessionHandler {
	h := &sessionHandler{
		intake: cfg.Intake, params: params, bodies: bodies, respond: respond,
		maxWindow: cfg.MaxWindow, limiter: newRequestLimiter("sessions", cfg.Sessions),
		stopping: cfg.Stopping,
	}
	h.sessionCtx, h.cancelSessions = context.WithCancel(context.Background())
	return h
}

// drain waits until the sessions have ended, and cancels them when hard ends.
func (h *sessionHandler) drain(hard context.Context) {
	defer context.AfterFunc(hard, h.cancelSessions)()
	h.open.Wait()
	h.cancelSessions()
}

// get opens a session of ordered frames.
func (h *sessionHandler) get(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Upgrade") != "" {
		if err := h.respond.origins.checkSession(r); err != nil {
			return err
		}
	}
	if err := requestfields.CheckHeaders(r.Header, nil); err != nil {
		return err
	}
	q, err := parseQuery(r, slices.Concat([]string{"pipeline", "window", "drop", "from"}, filterFields)...)
	if err != nil {
		return err
	}
	filter, err := regionfilter.Parse(q)
	if err != nil {
		return err
	}
	p, err := h.params.pipeline(q["pipeline"])
	if err != nil {
		return err
	}
	window, err := parseNumber(q, "window", min(defaultWindow, h.maxWindow), 1, h.maxWindow)
	if err != nil {
		return err
	}
	from, err := parseNumber(q, "from", 0, 0, sessions.MaxFrame)
	if err != nil {
		return err
	}
	drop := q["drop"]
	if drop != "" && drop != "all" && drop != "latest" {
		return v1.NewProblem(v1.InvalidParameter, "drop is %.20q, want all or latest", drop).WithField("drop")
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		return v1.NewProblem(v1.UpgradeRequired, "this address speaks WebSocket: see docs/stream.md").WithField("Upgrade")
	}
	if err := h.intake.Admit(r.Context(), p, subject.Interactive); err != nil {
		return err
	}
	client := clientKey(r)
	release, err := h.limiter.acquire(client)
	if err != nil {
		return err
	}
	defer release()
	h.open.Add(1)
	defer h.open.Done()
	h.respond.metrics.addSessions(1)
	defer h.respond.metrics.addSessions(-1)
	// checkSession has checked the origin.
	conn, err := websocket.Accept(handshake{w}, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return v1.NewProblem(v1.InvalidHeader, "%v", err).WithField(handshakeField(err))
	}
	// For net/http the request has ended, but the session continues. Each frame has its own trace, because a
	// trace of an hour is unreadable.
	link := trace.LinkFromContext(r.Context())
	err = sessions.Serve(h.sessionCtx, h.stopping, sessions.Config{
		Conn: conn, Window: window, Latest: drop == "latest", From: int64(from),
		MaxBytes:       h.bodies.maxBytes,
		NewReservation: func() *body.Reservation { return h.bodies.memory.NewReservation(client) },
		Idle:           streamIdle, Rate: h.bodies.rate, WriteTimeout: streamWriteTimeout,
		PingInterval: streamPing,
		Process: func(ctx context.Context, image []byte, stored func()) v1.Result {
			return filter.Apply(h.readFrame(ctx, link, p, image, stored))
		},
		CountOutcome: func(s v1.Status) { h.respond.metrics.frames.WithLabelValues(string(s)).Inc() },
	})
	if err != nil {
		h.respond.logger.InfoContext(r.Context(), "a session has ended with an error", "error", err)
	}
	return nil
}

// handshake discards the plain-text response of the library to an invalid handshake, so that a problem can be
// written.
type handshake struct{ http.ResponseWriter }

func (h handshake) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols {
		h.ResponseWriter.WriteHeader(status)
	}
}

func (h handshake) Write(b []byte) (int, error) { return len(b), nil }

// Unwrap gives the library access to the connection.
func (h handshake) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// handshakeField returns the header of an invalid handshake. The errors of the library name it, except for
// another version.
func handshakeField(err error) string {
	for _, h := range []string{"Sec-WebSocket-Key", "Origin", "Connection", "Upgrade"} {
		if strings.Contains(err.Error(), h) {
			return h
		}
	}
	return "Sec-WebSocket-Version"
}

// parseNumber returns a whole number without a sign from the query, or fallback when the query has none.
func parseNumber(q fields, name string, fallback, lowest, highest int) (int, error) {
	text, ok := q[name]
	if !ok {
		return fallback, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || int(n) < lowest || int(n) > highest {
		return 0, v1.NewProblem(v1.InvalidParameter, "%s is %.20q, want %d to %d", name, text, lowest, highest).
			WithField(name).WithLimit(int64(highest))
	}
	return int(n), nil
}

// readFrame processes one frame as a job, in its own trace.
func (h *sessionHandler) readFrame(
	ctx context.Context, session trace.Link, p pipeline.Pipeline, image []byte, stored func(),
) v1.Result {
	ctx, span := h.respond.tracer.Start(ctx, "frame",
		trace.WithSpanKind(trace.SpanKindServer), trace.WithNewRoot(), trace.WithLinks(session),
		trace.WithAttributes(telemetry.AttrPipeline.String(p.Name)))
	defer span.End()
	r, err := h.submitFrame(ctx, p, image, stored)
	var problem *v1.Problem
	switch {
	case ctx.Err() != nil, err == nil && r.Problem == nil: // the session has ended, or this is a result
		return r
	case err == nil:
		problem = r.Problem
	case errors.As(err, &problem):
		h.respond.logReason(ctx, err)
	case errors.Is(err, context.DeadlineExceeded):
		problem = v1.NewProblem(v1.Unavailable, "the frame could not be stored in time")
	default:
		problem = v1.NewProblem(v1.Internal, "the log has the reason under this trace id")
		h.respond.logger.ErrorContext(ctx, "cannot process a frame", "error", err)
	}
	out := *problem
	out.TraceID = span.SpanContext().TraceID().String()
	telemetry.Reject(span, &out)
	return v1.Result{Status: v1.Failed, Problem: &out}
}

// submitFrame submits a frame and waits for its result, each for twice the deadline of a job. The mesh gives a
// job an outcome soon after its deadline, so that the wait ends without one only when the mesh cannot.
func (h *sessionHandler) submitFrame(
	session context.Context, p pipeline.Pipeline, image []byte, stored func(),
) (v1.Result, error) {
	longest := 2 * p.JobDeadline(subject.Interactive)
	job, err := h.storeFrame(session, longest, p, image)
	if err != nil {
		return v1.Result{}, err
	}
	defer job.Close()
	stored()
	ctx, cancel := context.WithTimeout(session, longest)
	defer cancel()
	r, err := job.Wait(ctx)
	if err != nil && session.Err() != nil {
		job.Abandon(session) // the client has disconnected
	}
	return r, intake.JobError(err, job.ID)
}

// storeFrame stores a frame and returns its job. After a transient rejection it retries, which is the
// back-pressure of a session. When an attempt may have stored the frame, the problem has the ID of the job.
func (h *sessionHandler) storeFrame(
	session context.Context, longest time.Duration, p pipeline.Pipeline, image []byte,
) (*intake.Job, error) {
	ctx, cancel := context.WithTimeout(session, longest)
	defer cancel()
	id := intake.NewID() // of all attempts, so that a frame is one job
	var unknown error    // of the last attempt that may have stored the frame
	for {
		job, err := h.intake.Submit(ctx, &intake.Request{ID: id, Pipeline: p, Image: image})
		if err == nil && job.Unknown() != nil {
			err, unknown = job.Unknown(), job.Unknown()
			job.Close()
		}
		if err == nil {
			return job, nil
		}
		if after, ok := retry.Delay(err); !ok || retry.Sleep(ctx, after) != nil {
			return nil, cmp.Or(unknown, err)
		}
		h.respond.logReason(ctx, err)
	}
}
