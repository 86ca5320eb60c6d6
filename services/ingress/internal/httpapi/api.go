// Package httpapi serves the HTTP API of the mesh, which contracts/openapi.json describes. It
// decodes requests, encodes responses, and limits the memory of bodies. Packages intake and
// reportintake accept the images.
//
// Each resource has its own handler: imageHandler, reportHandler, eventHandler, sessionHandler,
// pipelineHandler and oldHandler. They share parameters, which parses queries and headers;
// bodies, which reads request bodies; and responder, which converts a function that returns an
// error into an HTTP handler with a span, metrics and problems.
//
// The response to a request is its result, the address of the result, or a problem (RFC 9457).
// The problem of a transient error has a Retry-After header.
package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts"
	"github.com/sightmesh/sightmesh/contracts/client"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/ingress/internal/body"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/reportintake"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
)

// Config is the configuration of an [API]. All fields are required except OldRoutes, CORSOrigins, PublicURL
// and TrustedProxies.
type Config struct {
	Intake  *intake.Intake
	Reports *reportintake.Reports
	// Client looks up, watches and cancels jobs.
	Client *client.Client
	// Admission knows the state of the pipelines.
	Admission *admission.Admission
	Limits    imagefile.Limits
	// Wait is the default wait of a request for its result. MaxWait is the longest wait that a request can
	// set.
	Wait    time.Duration
	MaxWait time.Duration
	// BodyMemory limits the bytes of all bodies in memory, and ClientBodyMemory those of one client. BodyRate
	// is the lowest rate at which a body may arrive.
	BodyMemory       int64
	ClientBodyMemory int64
	BodyRate         body.Rate
	// MaxFormBytes is the largest size of a form with images, and MaxImages the maximum of images in it.
	MaxFormBytes int64
	MaxImages    int
	// Sessions, EventStreams and Polls limit the open sessions of frames, event streams and look-ups that
	// wait.
	Sessions     RequestLimit
	EventStreams RequestLimit
	Polls        RequestLimit
	// MaxWindow is the largest window of a session.
	MaxWindow int
	// CORSOrigins are the origins whose web pages may use the mesh; * allows all.
	CORSOrigins []string
	// PublicURL is the URL at which clients reach the mesh; nil means that it follows from each request.
	PublicURL *url.URL
	// TrustedProxies are the networks of the proxies whose X-Forwarded-* headers are trusted.
	TrustedProxies []netip.Prefix
	// OldRoutes enables the routes of the designs that the mesh replaces.
	OldRoutes bool
	// Draining ends when each response should be the last of its connection.
	Draining context.Context //nolint:containedctx // as Stopping
	// Stopping ends when requests should stop waiting.
	Stopping context.Context //nolint:containedctx // it is the life of the process, not of a call
	Tracers  trace.TracerProvider
	Logger   *slog.Logger
	Metrics  *Metrics
}

// API serves HTTP requests. It is safe for concurrent use by multiple goroutines.
type API struct {
	handler  http.Handler
	sessions *sessionHandler
}

// ServeHTTP serves a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// Drain waits until the sessions of frames have ended, and cancels them when hard ends. The caller calls it
// after Stopping has ended and when no more requests arrive.
func (a *API) Drain(hard context.Context) { a.sessions.drain(hard) }

// New returns an API with all routes. The caller calls Drain. New returns an error for an invalid origin.
func New(cfg Config) (*API, error) {
	own := ""
	if cfg.PublicURL != nil {
		own = urlOrigin(cfg.PublicURL)
	}
	origins, err := newOrigins(cfg.CORSOrigins, own)
	if err != nil {
		return nil, fmt.Errorf("cors-origins: %w", err)
	}
	tracer := cfg.Tracers.Tracer("github.com/sightmesh/sightmesh/services/ingress")
	respond := &responder{
		tracer: tracer, logger: cfg.Logger, metrics: cfg.Metrics,
		writeGrace: writeGrace, writeRate: writeRate, discardBytes: discardBytes, discardTime: discardTime,
		origins: origins, draining: cfg.Draining,
	}
	params := parameters{intake: cfg.Intake, wait: cfg.Wait, maxWait: cfg.MaxWait}
	bodies := newBodies(cfg)
	reports := &reportHandler{reports: cfg.Reports, params: params, bodies: bodies}
	images := newImageHandler(cfg, params, bodies, reports)
	events := &eventHandler{
		client: cfg.Client, reports: cfg.Reports, limiter: newRequestLimiter("event streams", cfg.EventStreams),
		stopping: cfg.Stopping,
	}
	document, err := newAPIDocument(contracts.OpenAPI)
	if err != nil {
		return nil, err
	}
	pipelines := &pipelineHandler{admission: cfg.Admission, limits: cfg.Limits, document: document}
	router := mux.NewRouter().SkipClean(true) // a redirect would turn POST into GET
	proxies := &proxies{public: cfg.PublicURL, trusted: cfg.TrustedProxies, router: router}
	a := &API{
		handler:  proxies.handler(origins.handler(router)),
		sessions: newSessionHandler(cfg, params, bodies, respond),
	}

	handle := func(route string, h handlerFunc, methods ...string) {
		router.Handle(route, respond.handler(route, h)).Methods(methods...)
	}
	handle("/v1/images", images.post, http.MethodPost)
	handle("/v1/images/{id}", images.get, http.MethodGet, http.MethodHead)
	handle("/v1/images/{id}", images.delete, http.MethodDelete)
	handle("/v1/images/{id}/events", events.image, http.MethodGet)
	handle("/v1/stream", a.sessions.get, http.MethodGet)
	handle("/v1/reports", reports.post, http.MethodPost)
	handle("/v1/reports/{id}", reports.get, http.MethodGet, http.MethodHead)
	handle("/v1/reports/{id}/events", events.report, http.MethodGet)
	handle("/v1/pipelines", pipelines.list, http.MethodGet, http.MethodHead)
	handle("/openapi.json", pipelines.openAPI, http.MethodGet, http.MethodHead)
	if cfg.OldRoutes {
		old := &oldHandler{intake: cfg.Intake, reports: cfg.Reports, params: params, bodies: bodies, respond: respond}
		handle("/tyocr", old.postTyocr, http.MethodPost)
		handle("/tyocr", old.getTyocr, http.MethodGet, http.MethodHead)
		handle("/upload", images.post, http.MethodPost)
		handle("/internal/v1/subway-images/full-report", old.postFullReport, http.MethodPost)
	}
	router.NotFoundHandler = respond.handler("other", func(w http.ResponseWriter, r *http.Request) error {
		if isPreflight(r) { // otherwise the page could not read the problem of its request
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		return v1.NewProblem(v1.NotFound, "see /openapi.json for what there is")
	})
	router.MethodNotAllowedHandler = respond.handler("other", func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", strings.Join(append(allowedMethods(router, r), http.MethodOptions), ", "))
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		return v1.NewProblem(v1.MethodNotAllowed, "%s is not for this address", r.Method)
	})
	return a, nil
}

// allowedMethods returns the methods that the path of a request accepts.
func allowedMethods(router *mux.Router, r *http.Request) []string {
	var out []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		try := *r
		try.Method = m
		var match mux.RouteMatch
		if router.Match(&try, &match) && match.MatchErr == nil {
			out = append(out, m)
		}
	}
	return out
}
