package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gorilla/mux"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/client"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// lookupTimeout is the time limit for another service to reply about a job.
const lookupTimeout = 5 * time.Second

// imageHandler serves /v1/images.
type imageHandler struct {
	intake      *intake.Intake
	client      *client.Client
	params      parameters
	bodies      *bodies
	reports     *reportHandler // for several images in one request
	drawer      *drawer
	pollLimiter *requestLimiter // limits look-ups that wait
	stopping    context.Context //nolint:containedctx // it is the life of the process, not of a call
}

func newImageHandler(cfg Config, params parameters, bodies *bodies, reports *reportHandler) *imageHandler {
	return &imageHandler{
		intake: cfg.Intake, client: cfg.Client, params: params, bodies: bodies, reports: reports,
		drawer: newDrawer(cfg), pollLimiter: newRequestLimiter("long polls", cfg.Polls), stopping: cfg.Stopping,
	}
}

// post accepts an image. It responds with the result, or with 202 and the address of the result when the wait
// of the client ends first. Several images become a report.
func (h *imageHandler) post(w http.ResponseWriter, r *http.Request) error {
	w.Header().Add("Vary", "Accept")
	s, err := h.params.submission(r)
	if err != nil {
		return err
	}
	in, release, err := h.bodies.read(w, r)
	if err != nil {
		return err
	}
	defer release()
	if err := h.params.addFields(&s, in.fields, "the body"); err != nil {
		return err
	}
	if len(in.uploads) > 1 {
		return h.reports.accept(w, r, s, nil, in.uploads)
	}
	err = h.submit(w, r, s, in, release)
	setLocation(w, err, "/v1/images/")
	return err
}

// submit creates a job for the image of a request, and responds as post does. It calls release when it no
// longer needs the image.
func (h *imageHandler) submit(
	w http.ResponseWriter, r *http.Request, s submission, in bodyContent, release func(),
) error {
	req := s.Request
	req.Grow = in.grow
	var err error
	if req.Image, req.URL, err = in.imageOrURL(); err != nil {
		return err
	}
	job, err := h.intake.Submit(r.Context(), &req)
	if err != nil {
		return err
	}
	defer job.Close()
	mediaType := drawnType(r)
	if mediaType == "" {
		req.Image = nil
		release() // the image is stored in the stream
	}
	if s.prefer.Applied != "" {
		w.Header().Set("Preference-Applied", s.prefer.Applied)
	}
	if s.prefer.Async && s.prefer.Wait == 0 && job.Unknown() == nil {
		return writeAccepted(w, v1.Result{ID: job.ID, Pipeline: job.Pipeline, Status: job.Status})
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.prefer.Wait)
	defer cancel()
	result, err := job.Wait(ctx)
	switch {
	case err == nil && mediaType != "" && result.Status == v1.Done:
		return h.drawer.writeDrawn(w, r, &req, s.filter.Apply(result), mediaType)
	case err == nil:
		return writeResult(w, s.filter.Apply(result))
	case r.Context().Err() != nil:
		job.Abandon(r.Context())
		return r.Context().Err()
	case errors.Is(err, context.DeadlineExceeded):
		return writeAccepted(w, result)
	}
	return err
}

// setLocation sets the header Location when err is the problem of a job or report that was accepted, or may
// have been.
func setLocation(w http.ResponseWriter, err error, path string) {
	var p *v1.Problem
	if errors.As(err, &p) && p.Job != "" {
		w.Header().Set("Location", path+p.Job)
	}
}

// writeResult responds with the outcome of a job: its result or its problem.
func writeResult(w http.ResponseWriter, result v1.Result) error {
	if result.Timings != nil {
		w.Header().Set("Server-Timing", serverTiming(*result.Timings))
	}
	if result.Status == v1.Failed && result.Problem != nil {
		return result.Problem
	}
	return writeJSON(w, http.StatusOK, result)
}

// writeAccepted responds with 202 and the address of the result.
func writeAccepted(w http.ResponseWriter, result v1.Result) error {
	w.Header().Set("Location", "/v1/images/"+result.ID)
	w.Header().Set("Retry-After", "1")
	return writeJSON(w, http.StatusAccepted, result)
}

// get responds with the result of a job, including failed ones, or with its state when the wait of the client
// ends first.
func (h *imageHandler) get(w http.ResponseWriter, r *http.Request) error {
	query, err := h.params.lookup(r)
	if err != nil {
		return err
	}
	if query.wait > 0 {
		release, err := h.pollLimiter.acquire(clientKey(r))
		if err != nil {
			return err
		}
		defer release()
	}
	ctx, cancel := context.WithTimeout(r.Context(), query.wait)
	defer cancel()
	defer context.AfterFunc(h.stopping, cancel)() // the response is the state, and the client requests another instance
	result, err := h.client.Await(ctx, mux.Vars(r)["id"])
	if err != nil && (ctx.Err() == nil || !errors.Is(err, ctx.Err())) {
		return err
	}
	if r.Context().Err() != nil {
		return r.Context().Err() // the client has disconnected
	}
	trace.SpanFromContext(r.Context()).SetAttributes(
		telemetry.AttrJob.String(result.ID), telemetry.AttrOutcome.String(string(result.Status)))
	if result.Final() {
		return writeWithETag(w, r, query.filter.Apply(result))
	}
	w.Header().Set("Retry-After", "1")
	return writeJSON(w, http.StatusOK, result)
}

// delete cancels a job that has no outcome yet.
func (h *imageHandler) delete(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookupTimeout)
	defer cancel()
	c, err := h.client.Cancel(ctx, mux.Vars(r)["id"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, c)
}
