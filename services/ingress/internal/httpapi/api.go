// Package httpapi is the HTTP face of the mesh, as contracts/openapi.json
// describes it: pictures in, answers or problems out.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/mux"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"github.com/sightmesh/sightmesh/contracts"
	"github.com/sightmesh/sightmesh/contracts/picture"
	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/ingress/internal/jobs"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Config of the API. All fields are needed.
type Config struct {
	Jobs      *jobs.Jobs
	Admission *admission.Admission
	Pipelines []pipeline.Pipeline
	Limits    picture.Limits
	// Wait is how long a request waits that does not say; MaxWait is the
	// longest that it may say.
	Wait    time.Duration
	MaxWait time.Duration
	// BodyMemory bounds the bytes of bodies that are held at a time, and
	// BodyTimeout how long one may take to arrive.
	BodyMemory  int64
	BodyTimeout time.Duration
	Tracers     trace.TracerProvider
	Logger      *slog.Logger
	Metrics     *Metrics
}

// API handles HTTP requests.
type API struct {
	Config
	byName map[string]pipeline.Pipeline
	bodies *semaphore.Weighted
}

// New returns the handler of the whole API.
func New(cfg Config) http.Handler {
	a := &API{Config: cfg, byName: map[string]pipeline.Pipeline{}, bodies: semaphore.NewWeighted(cfg.BodyMemory)}
	for _, p := range cfg.Pipelines {
		a.byName[p.Name] = p
	}
	r := mux.NewRouter()
	r.Handle("/v1/images", a.route("/v1/images", a.postImage)).Methods(http.MethodPost)
	get := []string{http.MethodGet, http.MethodHead}
	r.Handle("/v1/images/{id}", a.route("/v1/images/{id}", a.getImage)).Methods(get...)
	r.Handle("/v1/pipelines", a.route("/v1/pipelines", a.getPipelines)).Methods(get...)
	r.Handle("/openapi.json", a.route("/openapi.json", a.getOpenAPI)).Methods(get...)
	r.NotFoundHandler = a.route("other", func(http.ResponseWriter, *http.Request) error {
		return v1.NewProblem(v1.NotFound, "see /openapi.json for what there is")
	})
	r.MethodNotAllowedHandler = a.route("other", func(w http.ResponseWriter, r *http.Request) error {
		allow := "GET, HEAD"
		if r.URL.Path == "/v1/images" {
			allow = "POST"
		}
		w.Header().Set("Allow", allow)
		return v1.NewProblem(v1.MethodNotAllowed, "%s is not for this address", r.Method)
	})
	return r
}

// postImage takes a picture and answers with what is in it, or with where to
// ask for it when that takes longer than the client waits.
func (a *API) postImage(w http.ResponseWriter, r *http.Request) error {
	p, prio, err := a.parameters(r)
	if err != nil {
		return err
	}
	pref, err := parsePrefer(r.Header.Values("Prefer"), a.Wait, a.MaxWait)
	if err != nil {
		return err
	}
	pic, release, err := a.readPicture(w, r)
	if err != nil {
		return err
	}
	defer release()
	if _, err := picture.Inspect(pic, a.Limits); err != nil {
		return err
	}
	if retryAfter, problem := a.Admission.Admit(r.Context(), p, prio); problem != nil {
		return later(problem, retryAfter)
	}
	job, err := a.Jobs.Submit(r.Context(), p, prio, pic)
	switch {
	case errors.Is(err, bus.ErrFull):
		return later(v1.NewProblem(v1.Overloaded, "the queue is full"), 5)
	case err != nil && r.Context().Err() != nil:
		return err // the client is gone
	case err != nil:
		a.Logger.ErrorContext(r.Context(), "cannot store a picture", "error", err)
		return later(v1.NewProblem(v1.Unavailable, "the picture could not be stored"), 5)
	}
	defer job.Forget()
	release() // the stream has the picture
	trace.SpanFromContext(r.Context()).SetAttributes(telemetry.AttrJob.String(job.ID), telemetry.AttrPipeline.String(p.Name))
	if pref.applied != "" {
		w.Header().Set("Preference-Applied", pref.applied)
	}
	if pref.async {
		return accepted(w, v1.Result{ID: job.ID, Pipeline: p.Name, Status: v1.Queued})
	}
	ctx, cancel := context.WithTimeout(r.Context(), pref.wait)
	defer cancel()
	result, err := job.Wait(ctx)
	switch {
	case err == nil:
		return a.finished(w, result)
	case r.Context().Err() != nil:
		return r.Context().Err() // the client is gone, the job is not
	case errors.Is(err, context.DeadlineExceeded):
		return accepted(w, result)
	}
	return err
}

// parameters reads the query.
func (a *API) parameters(r *http.Request) (pipeline.Pipeline, subject.Priority, error) {
	q, err := parseQuery(r.URL.RawQuery, "pipeline", "priority")
	if err != nil {
		return pipeline.Pipeline{}, "", err
	}
	name, prio := q["pipeline"], subject.Priority(q["priority"])
	if name == "" {
		name = a.Pipelines[0].Name
	}
	p, ok := a.byName[name]
	if !ok {
		return p, "", v1.NewProblem(v1.UnknownPipeline, "no pipeline %.40q; /v1/pipelines lists those there are", name).WithField("pipeline")
	}
	if prio == "" {
		prio = subject.Interactive
	}
	if !prio.Valid() {
		return p, "", v1.NewProblem(v1.InvalidParameter, "priority is %.40q, want interactive or bulk", prio).WithField("priority")
	}
	return p, prio, nil
}

// finished answers with the outcome of a job: the result, or its problem.
func (a *API) finished(w http.ResponseWriter, result v1.Result) error {
	if result.Timings != nil {
		w.Header().Set("Server-Timing", serverTiming(*result.Timings))
	}
	if result.Status == v1.Failed && result.Problem != nil {
		return result.Problem
	}
	return writeJSON(w, http.StatusOK, result)
}

func accepted(w http.ResponseWriter, result v1.Result) error {
	w.Header().Set("Location", "/v1/images/"+result.ID)
	w.Header().Set("Retry-After", "1")
	return writeJSON(w, http.StatusAccepted, result)
}

// getImage answers with the result of a job, failed ones included, or with
// its state.
func (a *API) getImage(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	result, err := a.Jobs.Lookup(ctx, mux.Vars(r)["id"])
	if err != nil {
		var p *v1.Problem
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return later(v1.NewProblem(v1.Unavailable, "the results service did not answer in time"), 5)
		case errors.As(err, &p) && p.Code == v1.Unavailable:
			return later(p, 5)
		}
		return err
	}
	trace.SpanFromContext(r.Context()).SetAttributes(telemetry.AttrJob.String(result.ID))
	if result.Status != v1.Done && result.Status != v1.Failed {
		w.Header().Set("Retry-After", "1")
	}
	return writeJSON(w, http.StatusOK, result)
}

func (a *API) getPipelines(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, v1.Pipelines{
		Pipelines: a.Admission.Pipelines(),
		Limits: v1.Limits{
			MaxBytes: a.Limits.MaxBytes, MaxSide: a.Limits.MaxSide, MaxPixels: a.Limits.MaxPixels, Types: picture.Types(),
		},
	})
}

func (a *API) getOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(contracts.OpenAPI)
	return err
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	_, err = w.Write(append(body, '\n'))
	return err
}

// route wraps a handler with what all of them have: a server span that
// continues the caller's trace, metrics, and problems for errors.
func (a *API) route(route string, h func(http.ResponseWriter, *http.Request) error) http.Handler {
	tracer := a.Tracers.Tracer("github.com/sightmesh/sightmesh/services/ingress")
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		start := time.Now()
		ctx := telemetry.Propagator().Extract(r.Context(), headerCarrier(r.Header))
		method := knownMethod(r.Method)
		ctx, span := tracer.Start(ctx, method+" "+route, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
			attribute.String("http.request.method", method), attribute.String("http.route", route),
			attribute.String("url.path", r.URL.Path), attribute.String("user_agent.original", r.UserAgent())))
		defer span.End()
		telemetry.Propagator().Inject(ctx, headerCarrier(rw.Header()))
		w := &recorder{ResponseWriter: rw}
		a.Metrics.inFlight.Inc()
		defer a.Metrics.inFlight.Dec()
		defer func() { // a panic is the bug of one request
			if v := recover(); v != nil {
				a.Logger.ErrorContext(ctx, "a request panicked", "route", route, "panic", v)
				a.problem(ctx, w, v1.NewProblem(v1.Internal, "this is our mistake"))
			}
			status := w.status
			if status == 0 {
				status = 499 // the client went away; the number is only for us
			}
			span.SetAttributes(attribute.Int("http.response.status_code", status))
			telemetry.Observe(ctx, a.Metrics.duration.WithLabelValues(route, method, strconv.Itoa(status)), time.Since(start).Seconds())
			if w.status == 0 { // or the server would say 200
				panic(http.ErrAbortHandler)
			}
		}()
		if err := h(w, r.WithContext(ctx)); err != nil {
			a.problem(ctx, w, err)
		}
	})
}

func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch:
		return m
	}
	return "_OTHER" // the name the semantic conventions give; keeps labels few
}
