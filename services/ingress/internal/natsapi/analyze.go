// Package natsapi is the request-reply face of the mesh: a picture as the
// body of a request, its answer as the reply.
package natsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/picture"
	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/ingress/internal/jobs"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Config of the endpoint. All fields are needed.
type Config struct {
	Jobs      *jobs.Jobs
	Admission *admission.Admission
	Pipelines []pipeline.Pipeline
	Limits    picture.Limits
	// Wait is how long an answer is waited for; after it the reply is the
	// state of the job.
	Wait time.Duration
	// Concurrency bounds the requests that wait at a time. One more is
	// refused at once, so that its caller need not guess.
	Concurrency int
	Tracers     trace.TracerProvider
	Logger      *slog.Logger
}

// Analyze answers requests on sight.v1.analyze.<pipeline>.
type Analyze struct {
	Config
	byName   map[string]pipeline.Pipeline
	tracer   trace.Tracer
	requests errgroup.Group

	mu       sync.Mutex
	stopping bool
}

// New adds the endpoint to svc.
func New(cfg Config, svc micro.Service) (*Analyze, error) {
	a := &Analyze{Config: cfg, byName: map[string]pipeline.Pipeline{}, tracer: cfg.Tracers.Tracer("github.com/sightmesh/sightmesh/services/ingress")}
	for _, p := range cfg.Pipelines {
		a.byName[p.Name] = p
	}
	a.requests.SetLimit(cfg.Concurrency)
	if err := svc.AddEndpoint("analyze", micro.HandlerFunc(a.handle), micro.WithEndpointSubject(subject.Analyze("*"))); err != nil {
		return nil, fmt.Errorf("serve analyze: %w", err)
	}
	return a, nil
}

// Stop refuses what comes from here on, and returns when no request is under
// way. The framework, once stopped, may still hand over what it had received.
func (a *Analyze) Stop() {
	a.mu.Lock()
	a.stopping = true
	a.mu.Unlock()
	_ = a.requests.Wait() // its functions return no errors
}

// handle must not block: the framework calls it for one request at a time.
func (a *Analyze) handle(r micro.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.stopping:
		a.refuse(context.Background(), r, v1.NewProblem(v1.Unavailable, "this instance is stopping"), 1)
	case !a.requests.TryGo(func() error {
		a.serve(r)
		return nil
	}):
		a.refuse(context.Background(), r, v1.NewProblem(v1.Overloaded, "%d requests wait already", a.Concurrency), 1)
	}
}

func (a *Analyze) serve(r micro.Request) {
	ctx := telemetry.Extract(context.Background(), nats.Header(r.Headers()))
	ctx, span := a.tracer.Start(ctx, "analyze", trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	result, retryAfter, err := a.answer(ctx, r)
	var p *v1.Problem
	if err != nil && !errors.As(err, &p) {
		a.Logger.ErrorContext(ctx, "request failed", "subject", r.Subject(), "error", err)
		p = v1.NewProblem(v1.Internal, "the log has the reason under this trace id")
	}
	if p != nil {
		out := *p
		out.TraceID = span.SpanContext().TraceID().String()
		span.SetStatus(codes.Error, out.Error())
		a.refuse(ctx, r, &out, retryAfter)
		return
	}
	h := nats.Header{}
	telemetry.Inject(ctx, h)
	body, err := json.Marshal(result)
	if err == nil {
		err = r.Respond(body, micro.WithHeaders(micro.Headers(h)))
	}
	if err != nil {
		a.Logger.WarnContext(ctx, "cannot reply", "error", err)
	}
}

func (a *Analyze) answer(ctx context.Context, r micro.Request) (v1.Result, int, error) {
	name, err := subject.ParseAnalyze(r.Subject())
	if err != nil {
		return v1.Result{}, 0, err
	}
	p, ok := a.byName[name]
	if !ok {
		return v1.Result{}, 0, v1.NewProblem(v1.UnknownPipeline, "no pipeline %.40q", name).WithField("pipeline")
	}
	if _, err := picture.Inspect(r.Data(), a.Limits); err != nil {
		return v1.Result{}, 0, err
	}
	if retryAfter, problem := a.Admission.Admit(ctx, p, subject.Interactive); problem != nil {
		return v1.Result{}, retryAfter, problem
	}
	job, err := a.Jobs.Submit(ctx, jobs.Request{Pipeline: p, Priority: subject.Interactive, Picture: r.Data()})
	if err != nil {
		a.Logger.ErrorContext(ctx, "cannot store a picture", "error", err)
		return v1.Result{}, jobs.RetryAfter, jobs.Problem(err)
	}
	defer job.Forget()
	ctx, cancel := context.WithTimeout(ctx, a.Wait)
	defer cancel()
	result, err := job.Wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return result, 0, nil // its state: the job goes on
	}
	if err == nil && result.Status == v1.Failed && result.Problem != nil {
		return result, 0, result.Problem
	}
	return result, 0, err
}

func (a *Analyze) refuse(ctx context.Context, r micro.Request, p *v1.Problem, retryAfter int) {
	h := micro.Headers{}
	if retryAfter > 0 {
		h["Retry-After"] = []string{strconv.Itoa(retryAfter)}
	}
	if err := bus.RespondProblem(r, p, micro.WithHeaders(h)); err != nil {
		a.Logger.WarnContext(ctx, "cannot reply", "error", err)
	}
}
