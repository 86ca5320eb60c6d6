package httpapi

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/reportintake"
)

// oldHandler serves the routes of the designs that the mesh replaces, as the original services did: with the
// same fields, the same JSON and the same texts of problems.
type oldHandler struct {
	intake  *intake.Intake
	reports *reportintake.Reports
	params  parameters
	bodies  *bodies
	respond *responder
}

//go:embed tyocr.html
var tyocrPage []byte

// getTyocr responds with the page of the original service.
func (h *oldHandler) getTyocr(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy",
		"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'")
	_, err := w.Write(tyocrPage)
	return err
}

// tyocrResponse is the response of POST /tyocr: sign 0 with the text, or -1 with the problem.
type tyocrResponse struct {
	Sign int    `json:"sign"`
	Text string `json:"text"`
}

// postTyocr responds with the text of the image in the form field imgbase64. Its clients check sign and not
// the status. They wait as long as a request without a preference: 20 s by default.
func (h *oldHandler) postTyocr(w http.ResponseWriter, r *http.Request) error {
	text, err := h.readText(w, r)
	var p *v1.Problem
	switch {
	case err == nil:
		return writeJSON(w, http.StatusOK, tyocrResponse{0, text})
	case errors.Is(err, context.DeadlineExceeded):
		return writeJSON(w, http.StatusOK, tyocrResponse{-1, "time out"})
	case errors.As(err, &p):
		h.respond.recordProblem(r.Context(), p, err)
		return writeJSON(w, http.StatusOK, tyocrResponse{-1, p.Detail})
	}
	return err
}

func (h *oldHandler) readText(w http.ResponseWriter, r *http.Request) (string, error) {
	pipelines := h.intake.Pipelines()
	i := slices.IndexFunc(pipelines, func(p pipeline.Pipeline) bool { return p.Text })
	if i < 0 {
		return "", v1.NewProblem(v1.UnknownPipeline, "no pipeline reads text")
	}
	in, release, err := h.bodies.read(w, r)
	if err != nil {
		return "", err
	}
	defer release()
	req := intake.Request{Pipeline: pipelines[i], Grow: in.grow}
	if req.Image, req.URL, err = in.imageOrURL(); err != nil {
		return "", err
	}
	job, err := h.intake.Submit(r.Context(), &req)
	if err != nil {
		return "", err
	}
	defer job.Close()
	release()
	w.Header().Set("Location", "/v1/images/"+job.ID) // the JSON has no field for the ID
	ctx, cancel := context.WithTimeout(r.Context(), h.params.wait)
	defer cancel()
	result, err := job.Wait(ctx)
	switch {
	case r.Context().Err() != nil || errors.Is(err, context.DeadlineExceeded) || err != nil && job.Unknown() != nil:
		job.Abandon(r.Context()) // the client cannot get the ID of the job
		return "", errors.Join(r.Context().Err(), err)
	case err != nil:
		return "", err
	case result.Problem != nil:
		return "", result.Problem
	case result.Text == nil:
		return "", nil
	}
	return *result.Text, nil
}

// fullReportResponse is the response of the report route.
type fullReportResponse struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// fullReportFields are the required strings of a report, besides imageUrls.
var fullReportFields = []string{
	"requestId", "systemId", "inspectionStartTime", "inspectionEndTime", "trainId", "lineCode", "yardName", "direction",
}

// postFullReport accepts a report of the inspection of a train. The response only says whether it was
// accepted. Location has the address of the outcomes.
func (h *oldHandler) postFullReport(w http.ResponseWriter, r *http.Request) error {
	report, err := h.acceptFullReport(w, r)
	if err == nil {
		w.Header().Set("Location", "/v1/reports/"+report.ID)
		return writeJSON(w, http.StatusOK, fullReportResponse{http.StatusOK, "success"})
	}
	var p *v1.Problem
	if !errors.As(err, &p) {
		return err
	}
	setLocation(w, err, "/v1/reports/")
	h.respond.recordProblem(r.Context(), p, err)
	reply := fullReportResponse{p.Status, p.Detail}
	if p.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", retryAfter(err))
		reply.Message = "System busy, try later."
	}
	return writeJSON(w, p.Status, reply)
}

func (h *oldHandler) acceptFullReport(w http.ResponseWriter, r *http.Request) (v1.Report, error) {
	var none v1.Report
	s, err := h.params.submission(r)
	if err != nil {
		return none, err
	}
	body, reservation, err := h.bodies.open(w, r, maxReportBody)
	if err != nil {
		return none, err
	}
	defer reservation.Release()
	var fields map[string]jsontext.Value
	if err := json.UnmarshalRead(decodingReader{body, reservation}, &fields); err != nil {
		return none, h.bodies.readError(w, jsonError(err), maxReportBody)
	}
	s.Metadata = map[string]string{}
	for _, name := range fullReportFields {
		if s.Metadata[name], err = textField(fields, name, name); err != nil {
			return none, err
		}
	}
	if name, err := intake.CheckMetadata(s.Metadata); err != nil {
		return none, intake.FieldProblem(v1.InvalidBody, name, err)
	}
	var images []map[string]jsontext.Value
	if raw, ok := fields["imageUrls"]; !ok || json.Unmarshal(raw, &images) != nil || len(images) == 0 {
		return none, v1.NewProblem(v1.InvalidBody, "imageUrls is missing, or no list of images").WithField("imageUrls")
	}
	sources := make([]v1.ReportSource, len(images))
	for i, image := range images {
		at := fmt.Sprintf("imageUrls.%d.", i)
		if sources[i].Location, err = textField(image, "location", at+"location"); err != nil {
			return none, err
		}
		if sources[i].URL, err = textField(image, "imageUrl", at+"imageUrl"); err != nil {
			return none, err
		}
		if err := checkLength(sources[i].URL, at+"imageUrl"); err != nil {
			return none, err
		}
		if err := intake.CheckURL(sources[i].URL); err != nil {
			return none, intake.FieldProblem(v1.InvalidBody, at+"imageUrl", err)
		}
	}
	req, err := s.report(sources, nil)
	if err != nil {
		return none, err
	}
	return h.reports.Submit(r.Context(), req)
}

// textField returns a required string.
func textField(fields map[string]jsontext.Value, name, path string) (string, error) {
	raw, ok := fields[name]
	if !ok || raw.Kind() == 'n' {
		return "", v1.NewProblem(v1.InvalidBody, "%s is missing", path).WithField(path)
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil || s == "" {
		return "", v1.NewProblem(v1.InvalidBody, "%s is not a text, or empty", path).WithField(path)
	}
	return s, nil
}
