package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/reportintake"
)

// reportHandler serves /v1/reports.
type reportHandler struct {
	reports *reportintake.Reports
	params  parameters
	bodies  *bodies
}

// maxReportBody is the maximum size of the JSON body of a report.
const maxReportBody = 4 << 20

// post accepts many images, and responds immediately with the address of their outcomes.
func (h *reportHandler) post(w http.ResponseWriter, r *http.Request) error {
	s, err := h.params.submission(r)
	if err != nil {
		return err
	}
	kind, _, err := parseBodyKind(r.Header)
	if err != nil {
		return err
	}
	switch kind {
	case multipartBody:
		in, release, err := h.bodies.read(w, r)
		if err != nil {
			return err
		}
		defer release()
		if err := h.params.addFields(&s, in.fields, "the body"); err != nil {
			return err
		}
		return h.accept(w, r, s, nil, in.uploads)
	case jsonBody:
		sources, others, err := h.readSources(w, r)
		if err != nil {
			return err
		}
		if err := h.params.addFields(&s, others, "the body"); err != nil {
			return err
		}
		return h.accept(w, r, s, sources, nil)
	}
	return v1.NewProblem(v1.UnsupportedType, "a report is application/json or multipart/form-data").
		WithField("Content-Type")
}

// accept submits a report and responds with it.
func (h *reportHandler) accept(
	w http.ResponseWriter, r *http.Request, s submission, sources []v1.ReportSource, uploads []reportintake.Upload,
) error {
	req, err := s.report(sources, uploads)
	if err != nil {
		return err
	}
	report, err := h.reports.Submit(r.Context(), req)
	if err != nil {
		setLocation(w, err, "/v1/reports/")
		return err
	}
	w.Header().Set("Location", "/v1/reports/"+report.ID)
	w.Header().Set("Retry-After", "1")
	return writeJSON(w, http.StatusAccepted, report)
}

// readSources reads a JSON body with the images of a report.
func (h *reportHandler) readSources(w http.ResponseWriter, r *http.Request) ([]v1.ReportSource, fields, error) {
	body, reservation, err := h.bodies.open(w, r, maxReportBody)
	if err != nil {
		return nil, nil, err
	}
	defer reservation.Release()
	var in struct { // a v1.ReportRequest
		Images []struct { // a v1.ReportSource
			URL      string       `json:"url"`
			Location string       `json:"location"`
			Metadata jsonMetadata `json:"metadata"`
		} `json:"images"`
		bodyFields
	}
	if err := decodeJSON(decodingReader{body, reservation}, &in); err != nil {
		return nil, nil, h.bodies.readError(w, err, maxReportBody)
	}
	out := make([]v1.ReportSource, len(in.Images))
	for i, image := range in.Images {
		field := fmt.Sprintf("images.%d.", i)
		if image.URL == "" {
			return nil, nil, v1.NewProblem(v1.InvalidBody, "%surl is missing", field).WithField(field + "url")
		}
		if err := checkLength(image.URL, field+"url"); err != nil {
			return nil, nil, err
		}
		if err := intake.CheckURL(image.URL); err != nil {
			return nil, nil, intake.FieldProblem(v1.InvalidBody, field+"url", err)
		}
		if len(image.Location) > reportintake.MaxLocation {
			return nil, nil, v1.NewProblem(v1.InvalidBody, "%slocation may have %d bytes", field, reportintake.MaxLocation).
				WithField(field + "location").WithLimit(reportintake.MaxLocation)
		}
		metadata, err := lowerNames(image.Metadata.entries(), field+"metadata.")
		if err != nil {
			return nil, nil, err
		}
		if name, err := intake.CheckMetadata(metadata); err != nil {
			return nil, nil, intake.FieldProblem(v1.InvalidBody, field+"metadata."+name, err)
		}
		out[i] = v1.ReportSource{URL: image.URL, Location: image.Location, Metadata: metadata}
	}
	others, err := jsonFields(in.bodyFields)
	return out, others, err
}

// lowerNames returns metadata with its names in lower case. A name that is given twice is a problem of the field
// that begins with prefix.
func lowerNames(metadata map[string]string, prefix string) (map[string]string, error) {
	out := map[string]string{}
	for given, value := range metadata {
		name := strings.ToLower(given)
		if _, twice := out[name]; twice {
			return nil, v1.NewProblem(v1.InvalidBody, "%.60s is given twice", prefix+name).WithField(prefix + name)
		}
		out[name] = value
	}
	return out, nil
}

// get responds with a report and the outcomes of its images. It reads and writes one outcome after the other,
// because all of them can be large.
func (h *reportHandler) get(w http.ResponseWriter, r *http.Request) error {
	filter, err := parseFilter(r)
	if err != nil {
		return err
	}
	out := json.NewEncoder(w)
	n := 0
	err = h.reports.Read(r.Context(), mux.Vars(r)["id"], func(report v1.Report) error {
		head, err := json.Marshal(report)
		if err != nil {
			return fmt.Errorf("encode report: %w", err)
		}
		if report.Status != v1.Done {
			w.Header().Set("Retry-After", "1")
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		_, err = fmt.Fprintf(w, "%s,\"images\":[\n", head[:len(head)-1])
		return err
	}, func(image v1.ReportImage) error {
		if n++; n > 1 {
			if _, err := w.Write([]byte(",")); err != nil {
				return err
			}
		}
		if image.Result != nil {
			result := filter.Apply(*image.Result)
			image.Result = &result
		}
		return out.Encode(image)
	})
	if err != nil {
		return err
	}
	_, err = w.Write([]byte("]}\n"))
	return err
}
