package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"

	"github.com/gorilla/mux"
	"github.com/munnerz/goautoneg"
	"go.opentelemetry.io/otel/trace"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// postImage takes a picture and answers with what is in it, or with where to
// ask for it when that takes longer than the client waits. Several pictures
// make a report.
func (a *API) postImage(w http.ResponseWriter, r *http.Request) error {
	o, err := a.order(r)
	if err != nil {
		return err
	}
	in, release, err := a.readInput(w, r)
	if err != nil {
		return err
	}
	defer release()
	if len(in.pictures) > 1 {
		return a.acceptReport(w, r, o, reportInput{uploads: in.pictures})
	}
	job, pic, err := a.jobOf(r.Context(), o, in)
	if err != nil {
		return err
	}
	defer job.Forget()
	drawn := goautoneg.Negotiate(r.Header.Get("Accept"), []string{"application/json", "image/png", "image/jpeg"})
	if drawn != "image/png" && drawn != "image/jpeg" {
		drawn, pic = "", nil
		release() // the stream has the picture
	}
	if o.prefer.applied != "" {
		w.Header().Set("Preference-Applied", o.prefer.applied)
	}
	if o.prefer.async && o.prefer.wait == 0 {
		return accepted(w, v1.Result{ID: job.ID, Pipeline: o.pipeline.Name, Status: job.Status})
	}
	ctx, cancel := context.WithTimeout(r.Context(), o.prefer.wait)
	defer cancel()
	result, err := job.Wait(ctx)
	switch {
	case err == nil && drawn != "" && result.Status == v1.Done:
		if pic, err = a.pictureToDraw(r.Context(), in, pic, result); err != nil {
			return err
		}
		return a.draw(w, r, pic, result, drawn)
	case err == nil:
		return finished(w, result)
	case r.Context().Err() != nil:
		a.abandon(r.Context(), o, job.ID)
		return r.Context().Err()
	case errors.Is(err, context.DeadlineExceeded):
		return accepted(w, result)
	}
	return err
}

// pictureOf gives the picture of an input, checked: what was sent, or what is
// at the address that was sent.
func (a *API) pictureOf(ctx context.Context, in input) ([]byte, error) {
	if in.url != "" {
		pic, err := a.Fetcher.Fetch(ctx, in.url)
		if err != nil {
			return nil, err
		}
		in.pictures = []upload{{picture: pic}}
	}
	return in.one(a.Limits)
}

// jobOf makes a job of the picture of an input, or finds the one that the
// request's key stands for. That of an address is found before it is fetched:
// what is there now may be another picture, or none any more. The picture that
// is returned is nil then.
func (a *API) jobOf(ctx context.Context, o order, in input) (*intake.Job, []byte, error) {
	id := ""
	if o.key != "" && in.url != "" {
		what := sha256.Sum256([]byte(in.url))
		found, job, err := a.find(ctx, o, what[:])
		if err != nil || job != nil {
			return job, nil, err
		}
		id = found
	}
	pic, err := a.pictureOf(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	job, err := a.submit(ctx, o, id, pic)
	return job, pic, err
}

// find finds the job that the key of a request stands for, or gives the id
// that it is to have.
func (a *API) find(ctx context.Context, o order, what []byte) (id string, job *intake.Job, err error) {
	fresh := intake.NewID()
	id, err = a.claim(ctx, o, what, fresh)
	if err != nil || id == fresh {
		return id, nil, err
	}
	job, err = a.Intake.Attach(ctx, id, o.pipeline)
	var p *v1.Problem
	if errors.As(err, &p) && p.Code == v1.UnknownJob {
		// Whoever was first has not stored the picture, or not yet.
		return id, nil, nil
	}
	return id, job, err
}

// pictureToDraw gives the picture that a result is of. That of a job which was
// there before is fetched again, and has to be the same.
func (a *API) pictureToDraw(ctx context.Context, in input, pic []byte, result v1.Result) ([]byte, error) {
	if in.url == "" {
		return pic, nil
	}
	if pic == nil {
		var err error
		if pic, err = a.pictureOf(ctx, in); err != nil {
			return nil, err
		}
	}
	if sum := sha256.Sum256(pic); result.Image != nil && result.Image.SHA256 != hex.EncodeToString(sum[:]) {
		return nil, v1.NewProblem(v1.FetchFailed, "what is at the address is no longer the picture that was read").WithField("url")
	}
	return pic, nil
}

// submit makes a job of a picture, or finds the one that the request's key
// stands for, unless its id is known already.
func (a *API) submit(ctx context.Context, o order, id string, pic []byte) (*intake.Job, error) {
	switch {
	case id != "":
	case o.key == "":
		id = intake.NewID()
	default:
		what := sha256.Sum256(pic)
		found, job, err := a.find(ctx, o, what[:])
		if err != nil || job != nil {
			return job, err
		}
		id = found
	}
	req := intake.Request{
		ID: id, Pipeline: o.pipeline, Priority: o.priority, Picture: pic, Metadata: o.metadata, Callback: o.callback,
	}
	if err := a.Admission.Admit(ctx, o.pipeline, o.priority); err != nil {
		return nil, err
	}
	job, err := a.Intake.Submit(ctx, req)
	if err != nil {
		if ctx.Err() != nil { // it may have been stored all the same
			a.abandon(ctx, o, req.ID)
		}
		return nil, intake.StoreError(ctx, err)
	}
	trace.SpanFromContext(ctx).SetAttributes(telemetry.AttrJob.String(job.ID), telemetry.AttrPipeline.String(o.pipeline.Name))
	return job, nil
}

// claim gives the id that the key of a request stands for: that of the first
// request with the key, which must have been for the same thing.
func (a *API) claim(ctx context.Context, o order, what []byte, id string) (string, error) {
	h := sha256.New()
	h.Write([]byte(o.pipeline.Name + "\n" + string(o.priority) + "\n"))
	h.Write(what)
	id, err := a.Intake.Claim(ctx, intake.Key{Name: o.key, Fingerprint: [sha256.Size]byte(h.Sum(nil))}, id)
	return id, intake.StoreError(ctx, err)
}

// abandon drops the job of a client that hung up before it learned the job's
// name, when nobody else can ask for it. While this process stops, a
// connection may have ended for another reason.
func (a *API) abandon(ctx context.Context, o order, job string) {
	if o.key != "" || o.callback != "" || a.Stopping.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	var p *v1.Problem
	if _, err := a.Intake.Cancel(ctx, job); err != nil && !errors.As(err, &p) { // such as that it is done
		a.Logger.WarnContext(ctx, "cannot cancel the job of a client that is gone", "error", err)
	}
}

// finished answers with the outcome of a job: the result, or its problem.
func finished(w http.ResponseWriter, result v1.Result) error {
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

// getImage answers with the result of a job, failed ones included, or with its
// state, once it has its outcome or the client has waited.
func (a *API) getImage(w http.ResponseWriter, r *http.Request) error {
	wait, err := a.wait(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	defer context.AfterFunc(a.Stopping, cancel)() // the state, and the client asks another instance
	result, err := a.Intake.Await(ctx, mux.Vars(r)["id"])
	if err != nil && (ctx.Err() == nil || !errors.Is(err, ctx.Err())) {
		return err
	}
	if r.Context().Err() != nil {
		return r.Context().Err() // the client is gone
	}
	trace.SpanFromContext(r.Context()).SetAttributes(telemetry.AttrJob.String(result.ID))
	if result.Final() {
		return writeTagged(w, r, result)
	}
	w.Header().Set("Retry-After", "1")
	return writeJSON(w, http.StatusOK, result)
}

// deleteImage drops a job that has no outcome yet.
func (a *API) deleteImage(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	c, err := a.Intake.Cancel(ctx, mux.Vars(r)["id"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, c)
}
