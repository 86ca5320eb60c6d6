// Package natsapi serves requests over NATS. The body of a request is an image, and the
// reply is its result. The package decodes requests, encodes replies, and limits the
// requests that wait. Package intake accepts the images.
//
// Every request gets one reply, also while the service stops. A problem is an error of the
// NATS service framework, with a Retry-After header when it is transient.
package natsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/body"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Config is the configuration of [Analyze]. All fields are required.
type Config struct {
	Conn   *nats.Conn
	Intake *intake.Intake
	Limits imagefile.Limits
	// Wait is the default wait of a request for its result. After it, the reply is the state of the job.
	// MaxWait is the longest wait that a request can set.
	Wait, MaxWait time.Duration
	// Concurrency is the maximum of requests that wait. Further requests are rejected immediately.
	Concurrency int
	// Memory limits the bytes of those requests.
	Memory  *body.Memory
	Tracers trace.TracerProvider
	Logger  *slog.Logger
}

// Analyze serves requests on sight.v1.analyze.<pipeline>.
type Analyze struct {
	Config
	tracer   trace.Tracer
	requests *bus.Requests
}

// New adds the endpoint to svc. The caller calls Stop.
func New(cfg Config, svc *bus.Service) (*Analyze, error) {
	a := &Analyze{
		Config: cfg,
		tracer: cfg.Tracers.Tracer("github.com/sightmesh/sightmesh/services/ingress"),
		requests: bus.NewRequests(cfg.Concurrency,
			retry.After(v1.NewProblem(v1.Overloaded, "%d requests wait already", cfg.Concurrency).
				WithLimit(int64(cfg.Concurrency)), busyDelay),
			retry.After(v1.NewProblem(v1.Unavailable, "this instance is stopping"), busyDelay)),
	}
	err := svc.AddEndpoint(bus.Endpoint{
		Name: "analyze", Subject: subject.AllAnalyze(), Metadata: a.metadata(), Handle: a.handle,
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

// metadata returns the metadata of the endpoint.
func (a *Analyze) metadata() map[string]string {
	m := a.Limits.Metadata()
	m["pipelines"] = strings.Join(pipeline.Names(a.Intake.Pipelines()), ",")
	m["headers"] = strings.Join(requestHeaders, ",")
	m["response_schema"], m["problem_schema"] = v1.SchemaID("result"), v1.SchemaID("problem")
	m["wait_seconds"], m["max_wait_seconds"] = formatSeconds(a.Wait), formatSeconds(a.MaxWait)
	m["requests"], m["max_key_bytes"] = strconv.Itoa(a.Concurrency), strconv.Itoa(intake.MaxKey)
	return m
}

func formatSeconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// Stop rejects new requests, and returns when no request is in progress.
func (a *Analyze) Stop() { a.requests.Stop() }

// busyDelay is the retry delay after which another instance may serve the request.
const busyDelay = time.Second

// handle starts serving a request.
func (a *Analyze) handle(r *bus.Request) {
	ctx, span := a.startSpan(r)
	reservation := a.Memory.NewReservation("")
	err := reservation.Grow(int64(len(r.Msg.Data)))
	if err == nil {
		err = a.requests.TryGo(func(free func()) {
			defer span.End()
			defer reservation.Release() // the body is in memory until the reply
			a.serve(ctx, r, free)
		})
	}
	if err != nil {
		reservation.Release()
		a.reject(ctx, r, err)
		span.End()
	}
}

// startSpan starts the span of a request, which continues the trace of the client. Its kind is server, like
// that of an HTTP request, because there is a reply.
func (a *Analyze) startSpan(r *bus.Request) (context.Context, trace.Span) {
	ctx := telemetry.Extract(context.Background(), r.Msg.Header)
	return a.tracer.Start(ctx, "analyze", trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(bus.ServerAttributes(a.Conn)...),
		trace.WithAttributes(bus.RequestAttributes(r.Msg, "analyze", subject.AllAnalyze())...))
}

// serve replies to a request. It calls free before the reply.
func (a *Analyze) serve(ctx context.Context, r *bus.Request, free func()) {
	h := nats.Header{}
	result, err := a.analyze(ctx, r.Msg, h)
	free()
	if err != nil {
		a.reject(ctx, r, err)
		return
	}
	telemetry.Inject(ctx, h)
	body, err := json.Marshal(result)
	if err != nil {
		a.reject(ctx, r, fmt.Errorf("encode result: %w", err))
		return
	}
	if err := r.Respond(body, h); err != nil {
		a.Logger.WarnContext(ctx, "cannot reply", "error", err)
	}
}

// analyze returns the result of the image in a request, or the state of its job when the wait ends first.
// Requests with the same key are one job. It adds headers of the reply to h.
func (a *Analyze) analyze(ctx context.Context, m *nats.Msg, h nats.Header) (v1.Result, error) {
	req, err := a.parseRequest(m)
	if err != nil {
		return v1.Result{}, err
	}
	job, err := a.Intake.Submit(ctx, &req.Request)
	if err != nil {
		return v1.Result{}, err
	}
	defer job.Close()
	if req.prefer.Applied != "" {
		h.Set(headerApplied, req.prefer.Applied)
	}
	if req.prefer.Async && req.prefer.Wait == 0 && job.Unknown() == nil {
		return v1.Result{ID: job.ID, Pipeline: job.Pipeline, Status: job.Status}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, req.prefer.Wait)
	defer cancel()
	result, err := job.Wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return result, nil // the job continues
	}
	if err == nil && result.Status == v1.Failed && result.Problem != nil {
		return result, result.Problem
	}
	return req.filter.Apply(result), err
}

// reject replies with the problem of err. An error without a problem becomes [v1.Internal], and the log has
// the reason.
func (a *Analyze) reject(ctx context.Context, r *bus.Request, err error) {
	var p *v1.Problem
	var s *intake.ServerError
	switch {
	case !errors.As(err, &p):
		a.Logger.ErrorContext(ctx, "request failed", "subject", r.Msg.Subject, "error", err)
		p = v1.NewProblem(v1.Internal, "the log has the reason under this trace id")
	case errors.As(err, &s):
		a.Logger.ErrorContext(ctx, "the mesh cannot serve a request", "subject", r.Msg.Subject, "error", s.Err)
	}
	if err := bus.Reject(ctx, r, p, err); err != nil {
		a.Logger.WarnContext(ctx, "cannot reply", "error", err)
	}
}
