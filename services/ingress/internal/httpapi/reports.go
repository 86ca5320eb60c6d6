package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/sightmesh/sightmesh/contracts/picture"
	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

// reportInput is what a report brings: addresses of images, or pictures.
type reportInput struct {
	sources []v1.ReportSource
	uploads []upload
}

// maxLocation bounds what a client says of where a picture was taken.
const maxLocation = 1024

// reportJSON is the JSON body of POST /v1/reports.
type reportJSON struct {
	Images []struct {
		URL      string            `json:"url"`
		Location string            `json:"location"`
		Metadata map[string]string `json:"metadata"`
	} `json:"images"`
}

// maxReportBody bounds the JSON body of a report.
const maxReportBody = 4 << 20

// postReport takes many images, and answers at once with where to ask for
// their outcomes.
func (a *API) postReport(w http.ResponseWriter, r *http.Request) error {
	o, err := a.order(r)
	if err != nil {
		return err
	}
	kind, _, err := bodyType(r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	switch kind {
	case multipartBody:
		in, release, err := a.readInput(w, r)
		if err != nil {
			return err
		}
		defer release()
		return a.acceptReport(w, r, o, reportInput{uploads: in.pictures})
	case jsonBody:
		sources, err := a.readReport(w, r)
		if err != nil {
			return err
		}
		return a.acceptReport(w, r, o, reportInput{sources: sources})
	}
	return v1.NewProblem(v1.UnsupportedType, "a report is application/json or multipart/form-data").WithField("Content-Type")
}

func (a *API) readReport(w http.ResponseWriter, r *http.Request) ([]v1.ReportSource, error) {
	body, release, err := a.openBody(w, r, maxReportBody)
	if err != nil {
		return nil, err
	}
	defer release()
	var in reportJSON
	if err := decodeJSON(body, &in); err != nil {
		return nil, a.bodyError(w, err, maxReportBody)
	}
	out := make([]v1.ReportSource, len(in.Images))
	for i, image := range in.Images {
		field := fmt.Sprintf("images.%d.", i)
		if image.URL == "" {
			return nil, v1.NewProblem(v1.InvalidBody, "%surl is missing", field).WithField(field + "url")
		}
		if err := checkURL(image.URL); err != nil {
			return nil, v1.NewProblem(v1.InvalidBody, "%surl %v", field, err).WithField(field + "url")
		}
		if len(image.Location) > maxLocation {
			return nil, v1.NewProblem(v1.InvalidBody, "%slocation may have %d bytes", field, maxLocation).WithField(field + "location").WithLimit(maxLocation)
		}
		if name, err := checkMetadata(image.Metadata); err != nil {
			return nil, v1.NewProblem(v1.InvalidBody, "%smetadata.%s %v", field, name, err).WithField(field + "metadata." + name)
		}
		out[i] = v1.ReportSource{URL: image.URL, Location: image.Location, Metadata: image.Metadata}
	}
	return out, nil
}

// acceptReport makes a durable job of a report and answers with it.
func (a *API) acceptReport(w http.ResponseWriter, r *http.Request, o order, in reportInput) error {
	report, err := a.storeReport(r.Context(), o, in)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/reports/"+report.ID)
	w.Header().Set("Retry-After", "1")
	return writeJSON(w, http.StatusAccepted, report)
}

// storeReport stores a report, or finds the one that its key stands for. All
// of a report is bulk work.
func (a *API) storeReport(ctx context.Context, o order, in reportInput) (v1.Report, error) {
	o.priority = subject.Bulk
	var none v1.Report
	n := max(len(in.sources), len(in.uploads))
	switch {
	case n == 0:
		return none, v1.NewProblem(v1.InvalidBody, "the report has no images").WithField("images")
	case n > a.MaxImages:
		return none, a.tooManyImages()
	}
	now := time.Now().UTC()
	m := v1.Manifest{
		ID: intake.NewID(), Pipeline: o.pipeline.Name, Accepted: now, Deadline: now.Add(o.pipeline.JobDeadline(subject.Bulk)),
		Callback: o.callback, Metadata: o.metadata, Images: in.sources,
	}
	if o.key != "" {
		id, err := a.claim(ctx, o, in.fingerprint(), m.ID)
		if err != nil {
			return none, err
		}
		if id != m.ID {
			report, err := a.Reports.Summary(ctx, id)
			err = readError(err)
			var p *v1.Problem
			if !errors.As(err, &p) || p.Code != v1.UnknownReport {
				return report, err
			}
			m.ID = id // whoever was first has not stored it, or not yet
		}
	}
	if len(in.uploads) > 0 {
		if err := a.storeUploads(ctx, o.pipeline, m, in.uploads); err != nil {
			return none, err
		}
		m.Images = make([]v1.ReportSource, len(in.uploads))
	} else if err := a.room(ctx, o.pipeline, n); err != nil {
		return none, err
	}
	if err := a.Reports.Store(ctx, m); err != nil {
		return none, intake.StoreError(ctx, err)
	}
	return v1.Report{
		ID: m.ID, Pipeline: m.Pipeline, Status: v1.Running, Accepted: m.Accepted, Metadata: m.Metadata, Counts: v1.Counts{Total: n},
	}, nil
}

// fingerprint is what makes two reports the same.
func (in reportInput) fingerprint() []byte {
	h := sha256.New()
	for _, s := range in.sources {
		fmt.Fprintf(h, "%q\n", s.URL)
	}
	for _, u := range in.uploads {
		sum := sha256.Sum256(u.picture)
		h.Write(sum[:])
	}
	return h.Sum(nil)
}

// backlogDelay is how long a client should wait until images were fetched.
const backlogDelay = 30 * time.Second

// room refuses a report of a pipeline that nobody serves, or while too many
// images wait to be fetched. That the work ahead is long is no reason: the
// images are fetched when it is done.
func (a *API) room(ctx context.Context, pl pipeline.Pipeline, n int) error {
	var p *v1.Problem
	if err := a.Admission.Admit(ctx, pl, subject.Bulk); errors.As(err, &p) && p.Code == v1.NoWorker {
		return err
	}
	backlog, err := a.Reports.Backlog(ctx)
	if err != nil {
		return intake.StoreError(ctx, err)
	}
	if backlog+n > a.MaxBacklog {
		p := v1.NewProblem(v1.Overloaded, "%d images of reports wait to be fetched, with this report they would be more than %d", backlog, a.MaxBacklog)
		return retry.After(p.WithLimit(int64(a.MaxBacklog)), backlogDelay)
	}
	return nil
}

// storeUploads makes a job of each picture, before the report is stored: then
// all of it is there, or the client is told that nothing was accepted.
func (a *API) storeUploads(ctx context.Context, p pipeline.Pipeline, m v1.Manifest, uploads []upload) error {
	if err := a.Admission.Admit(ctx, p, subject.Bulk); err != nil {
		return err
	}
	for i, u := range uploads {
		item := v1.ReportItem{Report: m.ID, N: i, Total: len(uploads)}
		req := intake.Request{ID: item.Job(), Pipeline: p, Priority: subject.Bulk, Picture: u.picture, Report: &item, Deadline: m.Deadline}
		err := u.problem
		if err == nil {
			_, err = picture.Inspect(u.picture, a.Limits)
		}
		var bad *v1.Problem
		if errors.As(err, &bad) {
			err = a.Intake.Fail(ctx, req, bad)
		} else if err == nil {
			err = a.Intake.Store(ctx, req)
		}
		if err != nil {
			return intake.StoreError(ctx, err)
		}
	}
	return nil
}

// readError says that a report could not be read now.
func readError(err error) error {
	var p *v1.Problem
	if err == nil || errors.As(err, &p) || errors.Is(err, context.Canceled) {
		return err
	}
	p = v1.NewProblem(v1.Unavailable, "the report cannot be read now")
	return retry.After(&intake.ServerError{Problem: p, Err: err}, intake.RetryDelay)
}

// getReport answers with a report and the outcome of each of its images. They
// are read and written one after the other: all of them can be a lot.
func (a *API) getReport(w http.ResponseWriter, r *http.Request) error {
	out := json.NewEncoder(w)
	n := 0
	err := a.Reports.Read(r.Context(), mux.Vars(r)["id"], func(report v1.Report) error {
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
		return out.Encode(image)
	})
	if err != nil {
		return readError(err)
	}
	_, err = w.Write([]byte("]}\n"))
	return err
}
