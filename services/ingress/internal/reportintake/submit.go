package reportintake

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// MaxLocation is the maximum length of the location of an image, in bytes.
const MaxLocation = 1024

// A Request is a report to submit. All its jobs have the priority bulk.
type Request struct {
	Pipeline pipeline.Pipeline
	// Key is the idempotency key. "" means none. KeyField is the header or field with the
	// key, as in [intake.Key].
	Key, KeyField string
	// Metadata and WebhookURL belong to the report. Both are optional.
	Metadata   map[string]string
	WebhookURL string
	// Sources are images to fetch. Uploads are images in the request. A request has
	// either.
	Sources []v1.ReportSource
	Uploads []Upload
}

// An Upload is an image in a request, or the problem of this image.
type Upload struct {
	Image []byte
	Err   error
}

// Submit accepts a report, or returns the report of an earlier request with the same key.
func (r *Reports) Submit(ctx context.Context, req Request) (v1.Report, error) {
	var none v1.Report
	n := max(len(req.Sources), len(req.Uploads))
	switch {
	case n == 0:
		return none, v1.NewProblem(v1.InvalidBody, "the report has no images").WithField("images")
	case n > r.cfg.MaxImages:
		return none, TooManyImages(r.cfg.MaxImages)
	}
	id := intake.NewID()
	if req.Key != "" {
		key := intake.NewKey(req.Key, req.KeyField, req.Pipeline.Name, subject.Bulk, req.fingerprint())
		claimed, err := r.cfg.Intake.Claim(ctx, key, id)
		if err != nil {
			return none, intake.StoreError(ctx, err)
		}
		if claimed != id {
			report, err := r.Summary(ctx, claimed)
			var p *v1.Problem
			if !errors.As(err, &p) || p.Code != v1.UnknownReport {
				return report, intake.JobError(err, claimed)
			}
			id = claimed // the first request has not stored the report (yet)
		}
	}
	now := r.cfg.Clock.Now().UTC()
	m := v1.Manifest{
		ID: id, Pipeline: req.Pipeline.Name, Accepted: now, Deadline: now.Add(req.Pipeline.JobDeadline(subject.Bulk)),
		Callback: req.WebhookURL, Metadata: req.Metadata, Images: req.Sources,
	}
	var uploaded []v1.ProblemImage
	if len(req.Uploads) > 0 {
		var err error
		if uploaded, err = r.storeUploads(ctx, req.Pipeline, m, req.Uploads); err != nil {
			return none, intake.ImagesError(err, uploaded)
		}
		m.Images = make([]v1.ReportSource, n)
	} else {
		// One report at a time, so that the backlog includes the reports before this one.
		r.backlog.Lock()
		defer r.backlog.Unlock()
		if err := r.checkBacklog(ctx, req.Pipeline, n); err != nil {
			return none, err
		}
	}
	trace.SpanFromContext(ctx).SetAttributes(telemetry.AttrReport.String(id),
		telemetry.AttrPipeline.String(req.Pipeline.Name), telemetry.AttrPriority.String(string(subject.Bulk)),
		telemetry.AttrImages.Int(n))
	if err := r.store(ctx, m); err != nil {
		return none, intake.ImagesError(intake.UnknownError(ctx, err, id, "/v1/reports/"+id), uploaded)
	}
	return v1.Report{
		ID: m.ID, Pipeline: m.Pipeline, Status: v1.Running, Accepted: m.Accepted, Metadata: m.Metadata,
		Counts: v1.Counts{Total: n},
	}, nil
}

// TooManyImages returns the problem of a report with more than limit images.
func TooManyImages(limit int) *v1.Problem {
	return v1.NewProblem(v1.TooManyImages, "a report may have %d images", limit).
		WithField("images").WithLimit(int64(limit))
}

// fingerprint returns a hash of the images of the report.
func (req Request) fingerprint() []byte {
	h := sha256.New()
	for _, s := range req.Sources {
		fmt.Fprintf(h, "%q\n", s.URL)
	}
	for _, u := range req.Uploads {
		sum := sha256.Sum256(u.Image)
		h.Write(sum[:])
	}
	return h.Sum(nil)
}

// backlogDelay is the retry delay when the backlog is full.
const backlogDelay = 30 * time.Second

// checkBacklog rejects a report when its pipeline has no worker, when too many images
// wait to be fetched, or when results cannot be stored. It accepts a report when the
// workers have a long backlog, because images are fetched when the backlog is processed.
func (r *Reports) checkBacklog(ctx context.Context, pl pipeline.Pipeline, n int) error {
	if err := r.cfg.Intake.AdmitLater(ctx, pl); err != nil {
		return err
	}
	backlog, err := r.readBacklog(ctx)
	if err != nil {
		return intake.StoreError(ctx, fmt.Errorf("read the backlog of reports: %w", err))
	}
	if backlog+n > r.cfg.MaxBacklog {
		p := v1.NewProblem(v1.Overloaded, "%d images of reports wait to be fetched, "+
			"with this report they would be more than %d", backlog, r.cfg.MaxBacklog)
		return retry.After(p.WithLimit(int64(r.cfg.MaxBacklog)), backlogDelay)
	}
	return nil
}

// readBacklog returns how many images of all reports wait to be fetched: the messages of
// FETCHES, and the images of the reports that are not expanded yet.
func (r *Reports) readBacklog(ctx context.Context) (int, error) {
	fetches, err := r.cfg.JetStream.Stream(ctx, streams.Fetches)
	if err != nil {
		return 0, err
	}
	n := int(fetches.CachedInfo().State.Msgs)
	expand, err := r.cfg.JetStream.Consumer(ctx, streams.Reports, streams.ReportsConsumer)
	if err != nil {
		return 0, err
	}
	info := expand.CachedInfo()
	manifests, err := r.cfg.JetStream.Stream(ctx, streams.Reports)
	if err != nil {
		return 0, err
	}
	next := info.AckFloor.Stream + 1
	for left := info.NumAckPending + int(info.NumPending); left > 0 && n <= r.cfg.MaxBacklog; left-- {
		stored, err := manifests.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject.AllManifests()))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return 0, err
		}
		var m v1.Manifest
		if err := json.Unmarshal(stored.Data, &m); err != nil {
			return 0, fmt.Errorf("decode report: %w", err)
		}
		n += len(m.Images)
		next = stored.Sequence + 1
	}
	return n, nil
}

// storeUploads stores a job for each image before the report itself is stored, so that a
// stored report is complete. It returns the stored images. With an error it also returns
// the image that may be stored, so that the client gets its ID.
func (r *Reports) storeUploads(
	ctx context.Context, p pipeline.Pipeline, m v1.Manifest, uploads []Upload,
) (stored []v1.ProblemImage, err error) {
	if err := r.cfg.Intake.Admit(ctx, p, subject.Bulk); err != nil {
		return nil, err
	}
	for i, u := range uploads {
		item := v1.ReportItem{Report: m.ID, N: i, Total: len(uploads)}
		job := intake.Request{
			ID: item.Job(), Pipeline: p, Priority: subject.Bulk, Image: u.Image, Report: &item, Deadline: m.Deadline,
		}
		image := v1.ProblemImage{ID: job.ID}
		image.Status, err = r.storeUpload(ctx, job, u.Err)
		if errors.Is(err, streams.ErrUnknown) {
			return append(stored, v1.ProblemImage{ID: job.ID}), intake.StoreError(ctx, err)
		}
		if err != nil {
			return stored, intake.StoreError(ctx, err)
		}
		stored = append(stored, image)
	}
	return stored, nil
}

// storeUpload stores a job for an image, or its failure when bad or the inspection returns
// a problem. The image has its own trace, linked to the trace of the report, because a
// trace with a thousand images is unreadable.
func (r *Reports) storeUpload(ctx context.Context, job intake.Request, bad error) (v1.Status, error) {
	ctx, span := telemetry.StartChild(ctx, "image", trace.WithNewRoot(), trace.WithLinks(trace.LinkFromContext(ctx)),
		trace.WithAttributes(telemetry.AttrJob.String(job.ID), telemetry.AttrReport.String(job.Report.Report),
			telemetry.AttrPipeline.String(job.Pipeline.Name), telemetry.AttrPriority.String(string(job.Priority))))
	defer span.End()
	if bad == nil {
		bad = r.cfg.Intake.Inspect(ctx, job.Image)
	}
	var p *v1.Problem
	status, err := v1.Queued, bad
	if errors.As(bad, &p) {
		telemetry.Reject(span, p)
		status, err = v1.Failed, r.cfg.Intake.StoreFailure(ctx, job, p)
	} else if err == nil {
		err = r.cfg.Intake.Store(ctx, job)
	}
	if err != nil {
		telemetry.Fail(span, err)
		return status, err
	}
	span.SetAttributes(telemetry.AttrOutcome.String(string(status)))
	return status, nil
}

// store stores the manifest of a report. After that the report ends, even when processes
// die. A second manifest with the same ID has no effect.
func (r *Reports) store(ctx context.Context, m v1.Manifest) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode report %s: %w", m.ID, err)
	}
	return r.cfg.Intake.Publish(ctx, bus.Message{
		Subject: subject.Report(m.ID), Stream: streams.Reports, ID: v1.MsgID(m.ID, v1.MsgReports), Body: body,
	})
}
