package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/picture"
	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/frames"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// defaultWindow is the window of a session that does not say.
const defaultWindow = 8

const (
	streamIdle         = 5 * time.Minute
	streamWriteTimeout = 30 * time.Second
)

// getStream opens a session of ordered frames.
func (a *API) getStream(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r.URL.RawQuery, "pipeline", "window", "drop", "from")
	if err != nil {
		return err
	}
	p, err := a.pipeline(q["pipeline"])
	if err != nil {
		return err
	}
	window, err := number(q, "window", min(defaultWindow, a.MaxWindow), 1, a.MaxWindow)
	if err != nil {
		return err
	}
	from, err := number(q, "from", 0, 0, frames.MaxFrame)
	if err != nil {
		return err
	}
	drop := q["drop"]
	if drop != "" && drop != "all" && drop != "latest" {
		return v1.NewProblem(v1.InvalidParameter, "drop is %.20q, want all or latest", drop).WithField("drop")
	}
	if r.Header.Get("Upgrade") == "" {
		w.Header().Set("Upgrade", "websocket")
		return v1.NewProblem(v1.InvalidHeader, "this address speaks WebSocket: see docs/stream.md").WithField("Upgrade")
	}
	if err := a.Admission.Admit(r.Context(), p, subject.Interactive); err != nil {
		return err
	}
	if !a.slots.TryAcquire(1) {
		return retry.After(v1.NewProblem(v1.Overloaded, "%d sessions are open", a.MaxStreams).WithLimit(int64(a.MaxStreams)), intake.RetryDelay)
	}
	defer a.slots.Release(1)
	a.streams.Add(1)
	defer a.streams.Done()
	a.Metrics.streams.Inc()
	defer a.Metrics.streams.Dec()
	conn, err := websocket.Accept(handshake{w}, r, nil)
	if err != nil {
		return v1.NewProblem(v1.InvalidHeader, "%v", err).WithField(handshakeField(err))
	}
	// A session outlives the request in the eyes of net/http, and each frame
	// has a trace of its own: one of an hour could not be read.
	link := trace.LinkFromContext(r.Context())
	err = frames.Serve(a.life, a.Stopping, frames.Config{
		Conn: conn, Window: window, Latest: drop == "latest", From: int64(from),
		MaxBytes: a.Limits.MaxBytes, Memory: a.bodies, Idle: streamIdle, BodyTimeout: a.BodyTimeout, WriteTimeout: streamWriteTimeout,
		Read: func(ctx context.Context, pic []byte, stored func()) v1.Result {
			return a.readFrame(ctx, link, p, pic, stored)
		},
		Answered: func(s v1.Status) { a.Metrics.frames.WithLabelValues(string(s)).Inc() },
	})
	if err != nil {
		a.Logger.InfoContext(r.Context(), "a session of frames broke", "error", err)
	}
	return nil
}

// handshake leaves it to a problem to say why a request is no WebSocket, or
// one of another origin: the library would say it as plain text.
type handshake struct{ http.ResponseWriter }

func (h handshake) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols {
		h.ResponseWriter.WriteHeader(status)
	}
}

func (h handshake) Write(b []byte) (int, error) { return len(b), nil }

// Unwrap lets the library reach the connection.
func (h handshake) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// handshakeField is the header that a handshake failed for, as the library
// names it in its errors. That of another version is the only one it does not.
func handshakeField(err error) string {
	for _, h := range []string{"Sec-WebSocket-Key", "Origin", "Connection", "Upgrade"} {
		if strings.Contains(err.Error(), h) {
			return h
		}
	}
	return "Sec-WebSocket-Version"
}

// number reads a whole number of the query.
func number(q map[string]string, name string, byDefault, least, most int) (int, error) {
	if q[name] == "" {
		return byDefault, nil
	}
	n, err := strconv.Atoi(q[name])
	if err != nil || n < least || n > most {
		return 0, v1.NewProblem(v1.InvalidParameter, "%s is %.20q, want %d to %d", name, q[name], least, most).WithField(name).WithLimit(int64(most))
	}
	return n, nil
}

// readFrame has one frame read as a job, in a trace of its own.
func (a *API) readFrame(ctx context.Context, session trace.Link, p pipeline.Pipeline, pic []byte, stored func()) v1.Result {
	ctx, span := a.Tracers.Tracer("github.com/sightmesh/sightmesh/services/ingress").Start(ctx, "frame",
		trace.WithNewRoot(), trace.WithLinks(session), trace.WithAttributes(telemetry.AttrPipeline.String(p.Name)))
	defer span.End()
	r, err := a.tryFrame(ctx, p, pic, stored)
	var problem *v1.Problem
	switch {
	case err == nil, ctx.Err() != nil: // the session is over
		return r
	case errors.As(err, &problem):
		a.logReason(ctx, err)
	case errors.Is(err, context.DeadlineExceeded):
		problem = v1.NewProblem(v1.DeadlineExceeded, "no answer came within the time of a job")
	default:
		problem = v1.NewProblem(v1.Internal, "the log has the reason under this trace id")
		a.Logger.ErrorContext(ctx, "cannot read a frame", "error", err)
	}
	out := *problem
	out.TraceID = span.SpanContext().TraceID().String()
	span.SetAttributes(telemetry.AttrProblem.String(string(out.Code)))
	return v1.Result{Status: v1.Failed, Problem: &out}
}

// tryFrame submits a frame and waits for its answer. Where a request would be
// put off, a session waits: that is its back-pressure.
func (a *API) tryFrame(session context.Context, p pipeline.Pipeline, pic []byte, stored func()) (v1.Result, error) {
	if _, err := picture.Inspect(pic, a.Limits); err != nil {
		return v1.Result{}, err
	}
	ctx, cancel := context.WithTimeout(session, 2*p.JobDeadline(subject.Interactive))
	defer cancel()
	o := order{pipeline: p, priority: subject.Interactive}
	for {
		job, err := a.submit(ctx, o, "", pic)
		if after, ok := retry.Delay(err); ok && retry.Sleep(ctx, after) == nil {
			a.logReason(ctx, err)
			continue
		}
		if err != nil {
			return v1.Result{}, err
		}
		defer job.Forget()
		stored()
		r, err := job.Wait(ctx)
		if err != nil && session.Err() != nil {
			a.abandon(session, o, job.ID) // the client is gone
		}
		return r, err
	}
}
