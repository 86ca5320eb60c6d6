// Package intake accepts images from all APIs: HTTP, NATS, the frames of sessions, the
// routes of older designs, and the fetches of reports. An API decodes a [Request] and
// encodes its result, and does nothing else with images.
//
// [Intake.Submit] processes an image in these steps. When a step fails, the image is
// rejected and no later step starts:
//
//	inspect   the image has a supported type and is within the limits
//	find      no earlier request with the same idempotency key has a job
//	admit     a worker serves the pipeline, and the queue is short enough
//	store     the image is stored in IMAGES for detect; from here on it is a job
//
// When an earlier request has the same key, Submit returns the job of that request. An
// image at a URL is fetched and inspected after find, because the URL may have another
// image by now, or none.
//
// Every error for a client wraps a [*v1.Problem], and is a [*retry.Error] when it is
// transient. A [*ServerError] in it has the reason for the log.
//
// When the result of a job is stored, the results service sends it as a reply to the inbox
// of this process. A reply can be lost while a connection is re-established, so
// [Job.Wait] also reads the stored results. The package keeps no state beyond the life of
// the process: a result for which no request waits is stored too, and can be looked up by
// the ID of the job.
package intake

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/ingress/internal/fetch"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Config is the configuration of an [Intake]. All fields are required.
type Config struct {
	Conn      *nats.Conn
	JetStream jetstream.JetStream
	Clock     *clock.Clock
	Publisher *bus.Publisher
	// Client looks up and cancels jobs.
	Client    *client.Client
	Fetcher   *fetch.Fetcher
	Admission *admission.Admission
	// Pipelines are those of the mesh. The first is the default of requests.
	Pipelines []pipeline.Pipeline
	Limits    imagefile.Limits
	// Webhooks is whether webhooks are sent. They need a secret to sign them.
	Webhooks bool
	// Stopping ends when the process starts to stop.
	Stopping context.Context //nolint:containedctx // it is the life of the process, not of a call
	Logger   *slog.Logger
}

// Intake accepts images. It is safe for concurrent use by multiple goroutines.
type Intake struct {
	cfg     Config
	byName  map[string]pipeline.Pipeline
	results jetstream.Stream
	inbox   *inbox
}

// New returns an Intake with an inbox for replies. The caller calls Close.
func New(ctx context.Context, cfg Config) (*Intake, error) {
	if len(cfg.Pipelines) == 0 {
		return nil, errors.New("accept images: there is no pipeline")
	}
	i := &Intake{cfg: cfg, byName: map[string]pipeline.Pipeline{}}
	for _, p := range cfg.Pipelines {
		i.byName[p.Name] = p
	}
	var err error
	if i.results, err = cfg.JetStream.Stream(ctx, streams.Results); err != nil {
		return nil, fmt.Errorf("open stream %s: %w", streams.Results, err)
	}
	if i.inbox, err = newInbox(cfg.Conn); err != nil {
		return nil, err
	}
	return i, nil
}

// Close closes the inbox.
func (i *Intake) Close() error { return i.inbox.close() }

// A Request is an image with the parameters of its job.
type Request struct {
	// ID is the ID of the job. "" means a new one. A second request with the ID of a
	// running job has no effect.
	ID       string
	Pipeline pipeline.Pipeline
	// Priority is the priority of the job. "" means that of the pipeline.
	Priority subject.Priority
	// Image is the encoded file. URL is where to fetch it. A request has either.
	Image []byte
	URL   string
	// Grow is called before memory is allocated for n more bytes of a fetched image. Its
	// error ends the fetch. nil means no limit.
	Grow func(n int64) error
	// Key is the idempotency key: the first request with a key creates the job, and later
	// ones get the same job. "" means none. KeyField is the header or field with the key,
	// as in [Key].
	Key, KeyField string
	// Metadata is returned with the result, and WebhookURL is called with it. Both are
	// optional.
	Metadata   map[string]string
	WebhookURL string
	// Report is which image of a report the job is. nil means none.
	Report *v1.ReportItem
	// Deadline is the deadline of the job. Zero means that of the pipeline.
	Deadline time.Time
}

func (r *Request) priority() subject.Priority {
	return cmp.Or(r.Priority, r.Pipeline.Priority, subject.Interactive)
}

// NewID returns an ID for a job or report. IDs sort by the time of their creation.
func NewID() string { return ulid.Make().String() }

// Submit accepts an image and returns its job, or the job of an earlier request with the
// same key. The caller waits for the result with [Job.Wait] and calls [Job.Close].
//
// When it remains unknown whether the image is stored, Submit still returns the job, and
// [Job.Unknown] returns an error. The caller should wait for its result.
//
// Submit sets r.Image to the image that it has fetched from r.URL. It fetches nothing when
// the key has a job. When ctx ends before the image is known to be stored, Submit cancels
// the job as [Job.Abandon] does.
func (i *Intake) Submit(ctx context.Context, r *Request) (*Job, error) {
	span := trace.SpanFromContext(ctx)
	span.SetAttributes(telemetry.AttrPipeline.String(r.Pipeline.Name), telemetry.AttrPriority.String(string(r.priority())))
	if r.URL == "" {
		if err := i.Inspect(ctx, r.Image); err != nil {
			return nil, err
		}
	}
	id, job, err := i.find(ctx, r)
	if err != nil {
		return nil, err
	}
	if job != nil {
		span.SetAttributes(job.attributes()...)
		return job, nil
	}
	if r.URL != "" {
		if r.Image, err = i.Fetch(ctx, r.URL, r.Grow); err != nil {
			return nil, err
		}
	}
	if err := i.admit(ctx, r); err != nil {
		return nil, err
	}
	job = &Job{
		ID: id, Pipeline: r.Pipeline.Name, Status: v1.Queued,
		intake: i, reply: i.inbox.register(id), hasOtherReference: r.Key != "" || r.WebhookURL != "",
	}
	err = i.publish(ctx, r, id, i.inbox.subject(id))
	switch {
	case err != nil && ctx.Err() != nil:
		job.Close()
		job.Abandon(ctx) // the image may be stored
		return nil, JobError(ctx.Err(), id)
	case errors.Is(err, streams.ErrUnknown):
		job.unknown = UnknownError(ctx, err, id, "/v1/images/"+id)
	case err != nil:
		job.Close()
		return nil, StoreError(ctx, err)
	}
	span.SetAttributes(job.attributes()...)
	return job, nil
}

// find returns the job of an earlier request with the same key, or the ID for a new job.
func (i *Intake) find(ctx context.Context, r *Request) (id string, job *Job, err error) {
	newID := cmp.Or(r.ID, NewID())
	if r.Key == "" {
		return newID, nil, nil
	}
	content := sha256.Sum256(r.Image)
	if r.URL != "" {
		content = sha256.Sum256([]byte(r.URL))
	}
	id, err = i.Claim(ctx, NewKey(r.Key, r.KeyField, r.Pipeline.Name, r.priority(), content[:]), newID)
	if err != nil {
		return "", nil, StoreError(ctx, err)
	}
	if id == newID {
		return id, nil, nil
	}
	found, err := i.cfg.Client.LookupNow(ctx, id)
	var p *v1.Problem
	if errors.As(err, &p) && p.Code == v1.UnknownJob {
		return id, nil, nil // the first request has not stored its image (yet)
	}
	if err != nil {
		return "", nil, JobError(err, id)
	}
	return id, &Job{ID: id, Pipeline: r.Pipeline.Name, Status: found.Status, intake: i, hasOtherReference: true}, nil
}

// Inspect returns a [*v1.Problem] when an image is not supported. It records the size of
// the image in the span of ctx.
func (i *Intake) Inspect(ctx context.Context, image []byte) error {
	h, err := imagefile.Inspect(image, i.cfg.Limits)
	trace.SpanFromContext(ctx).SetAttributes(telemetry.ImageAttributes(len(image), h.Width, h.Height)...)
	return err
}

// Fetch downloads and inspects the image at a URL. grow is as in [Request]. The errors are
// those of [fetch.Fetcher.FetchBounded] and [Intake.Inspect].
func (i *Intake) Fetch(ctx context.Context, url string, grow func(n int64) error) ([]byte, error) {
	if grow == nil {
		grow = func(int64) error { return nil }
	}
	image, err := i.cfg.Fetcher.FetchBounded(ctx, url, grow)
	if err != nil {
		return nil, err
	}
	if err := i.Inspect(ctx, image); err != nil {
		return nil, err
	}
	return image, nil
}

// Admit returns nil when a job can be accepted now. See [admission.Admission.Admit] for its
// errors.
func (i *Intake) Admit(ctx context.Context, p pipeline.Pipeline, prio subject.Priority) error {
	return i.cfg.Admission.Admit(ctx, p, prio)
}

// admit is Admit in a span, because it may request the status of the workers.
func (i *Intake) admit(ctx context.Context, r *Request) error {
	ctx, span := telemetry.StartChild(ctx, "admit")
	defer span.End()
	err := i.Admit(ctx, r.Pipeline, r.priority())
	if err != nil {
		telemetry.Fail(span, err)
	}
	return err
}

// AdmitLater returns nil when a job can be accepted that waits for the backlog. See
// [admission.Admission.AdmitLater] for its errors.
func (i *Intake) AdmitLater(ctx context.Context, p pipeline.Pipeline) error {
	return i.cfg.Admission.AdmitLater(ctx, p)
}

// Pipelines returns the pipelines of the mesh.
func (i *Intake) Pipelines() []pipeline.Pipeline { return i.cfg.Pipelines }

// Pipeline returns a pipeline by its name, or the first pipeline when name is "".
func (i *Intake) Pipeline(name string) (p pipeline.Pipeline, ok bool) {
	if name == "" {
		return i.cfg.Pipelines[0], true
	}
	p, ok = i.byName[name]
	return p, ok
}
