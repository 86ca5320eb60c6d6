// Package httpapi is the HTTP face of the mesh, as contracts/openapi.json
// describes it: pictures in, answers or problems out.
package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/mux"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"github.com/sightmesh/sightmesh/contracts"
	"github.com/sightmesh/sightmesh/contracts/picture"
	"github.com/sightmesh/sightmesh/contracts/pipeline"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/ingress/internal/fetch"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/reports"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Config of the API. All fields are needed.
type Config struct {
	Intake    *intake.Intake
	Reports   *reports.Reports
	Fetcher   *fetch.Fetcher
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
	// MaxFormBytes bounds a form with pictures, and MaxImages the images of a
	// report. Reports are refused while MaxBacklog images wait to be fetched.
	MaxFormBytes int64
	MaxImages    int
	MaxBacklog   int
	// MaxStreams bounds the sessions of frames, and MaxWindow the window of
	// each.
	MaxStreams int
	MaxWindow  int
	// Callbacks says whether there is a secret to sign callbacks with.
	Callbacks bool
	// OldRoutes adds the routes of the designs that the mesh replaces.
	OldRoutes bool
	// Stopping ends when no more is to be waited for.
	Stopping context.Context //nolint:containedctx // it is the life of the process, not of a call
	Tracers  trace.TracerProvider
	Logger   *slog.Logger
	Metrics  *Metrics
}

// API handles HTTP requests.
type API struct {
	Config
	byName map[string]pipeline.Pipeline
	bodies *semaphore.Weighted
	draws  *semaphore.Weighted
	router *mux.Router
	// streams are the sessions of frames, of which http.Server knows nothing.
	streams    sync.WaitGroup
	slots      *semaphore.Weighted // of sessions
	life       context.Context     //nolint:containedctx // of sessions
	endStreams context.CancelFunc
}

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.router.ServeHTTP(w, r) }

// Drain waits until the sessions of frames have ended, and ends them when hard
// ends. It is called once Stopping has ended and no more requests come.
func (a *API) Drain(hard context.Context) {
	defer context.AfterFunc(hard, a.endStreams)()
	a.streams.Wait()
	a.endStreams()
}

// New returns the handler of the whole API. The caller ends it with Drain.
func New(cfg Config) *API {
	a := &API{Config: cfg, byName: map[string]pipeline.Pipeline{}, bodies: semaphore.NewWeighted(cfg.BodyMemory), draws: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0)))}
	for _, p := range cfg.Pipelines {
		a.byName[p.Name] = p
	}
	a.life, a.endStreams = context.WithCancel(context.Background())
	a.slots = semaphore.NewWeighted(int64(cfg.MaxStreams))
	r := mux.NewRouter()
	a.router = r
	r.Handle("/v1/images", a.route("/v1/images", a.postImage)).Methods(http.MethodPost)
	get := []string{http.MethodGet, http.MethodHead}
	r.Handle("/v1/images/{id}", a.route("/v1/images/{id}", a.getImage)).Methods(get...)
	r.Handle("/v1/images/{id}", a.route("/v1/images/{id}", a.deleteImage)).Methods(http.MethodDelete)
	r.Handle("/v1/images/{id}/events", a.route("/v1/images/{id}/events", a.imageEvents)).Methods(http.MethodGet)
	r.Handle("/v1/stream", a.route("/v1/stream", a.getStream)).Methods(http.MethodGet)
	r.Handle("/v1/reports", a.route("/v1/reports", a.postReport)).Methods(http.MethodPost)
	r.Handle("/v1/reports/{id}", a.route("/v1/reports/{id}", a.getReport)).Methods(get...)
	r.Handle("/v1/reports/{id}/events", a.route("/v1/reports/{id}/events", a.reportEvents)).Methods(http.MethodGet)
	r.Handle("/v1/pipelines", a.route("/v1/pipelines", a.getPipelines)).Methods(get...)
	r.Handle("/openapi.json", a.route("/openapi.json", a.getOpenAPI)).Methods(get...)
	if cfg.OldRoutes {
		a.oldRoutes(r)
	}
	r.NotFoundHandler = a.route("other", func(http.ResponseWriter, *http.Request) error {
		return v1.NewProblem(v1.NotFound, "see /openapi.json for what there is")
	})
	r.MethodNotAllowedHandler = a.route("other", func(w http.ResponseWriter, req *http.Request) error {
		w.Header().Set("Allow", strings.Join(allowed(r, req), ", "))
		return v1.NewProblem(v1.MethodNotAllowed, "%s is not for this address", req.Method)
	})
	return a
}

// allowed lists the methods that the address of a request takes.
func allowed(r *mux.Router, req *http.Request) []string {
	var out []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		try := *req
		try.Method = m
		var match mux.RouteMatch
		if r.Match(&try, &match) && match.MatchErr == nil {
			out = append(out, m)
		}
	}
	return out
}

// askTimeout is how long another service may take to answer about a job.
const askTimeout = 5 * time.Second

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

// writeTagged writes what does not change any more with its ETag, or that the
// client has it already.
func writeTagged(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	w.Header().Set("Etag", `"`+hex.EncodeToString(sum[:16])+`"`)
	w.Header().Set("Content-Type", "application/json")
	// ServeContent knows the conditions of RFC 9110.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(append(body, '\n')))
	return nil
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
			if w.status == 0 || w.cutOff { // or the server would say 200, or that this was all
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
