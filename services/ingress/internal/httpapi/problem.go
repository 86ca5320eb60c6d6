package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// retryAfter is the Retry-After header of a problem that passes.
func retryAfter(err error) string {
	return cmp.Or(intake.RetryAfter(err), intake.RetryAfter(retry.After(err, intake.RetryDelay)))
}

// problem answers a request that failed, in the form of RFC 9457.
func (a *API) problem(ctx context.Context, w *recorder, err error) {
	if w.status != 0 {
		// Too late to say it: the answer has begun.
		a.Logger.WarnContext(ctx, "cannot finish an answer", "error", err)
		w.cutOff = true
		return
	}
	if errors.Is(err, context.Canceled) {
		return // nobody is there to read it
	}
	var p *v1.Problem
	if !errors.As(err, &p) {
		a.Logger.ErrorContext(ctx, "request failed", "error", err)
		p = v1.NewProblem(v1.Internal, "the log has the reason under this trace id")
	}
	a.logReason(ctx, err)
	out := *p
	span := trace.SpanFromContext(ctx)
	out.TraceID = span.SpanContext().TraceID().String()
	span.SetAttributes(telemetry.AttrProblem.String(string(out.Code)))
	if out.Status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, out.Error())
	}
	a.Metrics.problems.WithLabelValues(string(out.Code)).Inc()
	if out.Status == http.StatusTooManyRequests || out.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter(err))
	}
	body, err := json.Marshal(out)
	if err != nil {
		a.Logger.ErrorContext(ctx, "cannot encode a problem", "error", err)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(out.Status)
	if _, err := w.Write(append(body, '\n')); err != nil {
		a.Logger.DebugContext(ctx, "cannot send a problem", "error", err)
	}
}

// logReason logs what the client is not told of an error of the mesh.
func (a *API) logReason(ctx context.Context, err error) {
	var s *intake.ServerError
	if errors.As(err, &s) {
		a.Logger.ErrorContext(ctx, "the mesh cannot serve a request", "error", s.Err)
	}
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
	cutOff bool // the answer has begun and cannot be finished
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

type headerCarrier = propagation.HeaderCarrier
