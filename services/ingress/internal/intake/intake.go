// Package intake accepts images, whatever way they come in: HTTP, NATS, the
// frames of a session, the routes of older designs, and the fetches of reports.
// The ways in decode a [Request] and encode what comes of it, and do nothing
// else with images.
//
// [Intake.Submit] takes an image through these steps, in this order. The first
// that fails rejects the image, and then no later one has been begun:
//
//	inspect   the image is of a type that is read here, and within the limits
//	find      no earlier request with the same idempotency key has a job
//	admit     a worker serves the pipeline, and the queue is short enough
//	store     the image waits in IMAGES for detect; from here on it is a job
//
// A request that has an earlier one with its key gets the job of that. An image
// at a URL is fetched and inspected after find: what is at the URL now may be
// another image than that of the key, or none any more.
//
// Every error that a client is told wraps a [*v1.Problem], and is a
// [*retry.Error] when it passes. A [*ServerError] in it has the reason that is
// for the log.
//
// The result of a job is sent to an inbox of this process once it is stored.
// Such a reply can be lost while a connection is being made again, so that
// [Job.Wait] also looks at the stored results. Nothing here outlives the
// process: a result for which no request waits is still stored, and can be
// looked up by the ID of the job.
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

// Config of an [Intake]. All fields are needed.
type Config struct {
	Conn      *nats.Conn
	JetStream jetstream.JetStream
	Clock     *clock.Clock
	Publisher *bus.Publisher
	// Client looks up and cancels jobs.
	Client    *client.Client
	Fetcher   *fetch.Fetcher
	Admission *admission.Admission
	// Pipelines of the mesh. The first is that of a request which names none.
	Pipelines []pipeline.Pipeline
	Limits    imagefile.Limits
	// Webhooks says whether callbacks are sent, for which there has to be a
	// secret that signs them.
	Webhooks bool
	// Stopping ends when the process begins to stop.
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

// New opens the inbox for replies. The caller ends it with Close.
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

// Request is an image and what is to become of it.
type Request struct {
	// ID of the job; empty for a new one. A second request with the ID of a
	// job that is under way adds nothing.
	ID       string
	Pipeline pipeline.Pipeline
	// Priority of the job; empty for that of the pipeline.
	Priority subject.Priority
	// Image is the encoded file, or URL is where to fetch it.
	Image []byte
	URL   string
	// Grow is called before memory is taken for n more bytes of an image that is
	// fetched, and ends the fetch with its error. Nil for no bound.
	Grow func(n int64) error
	// Key is the idempotency key: of several requests with one key, the first
	// becomes a job and the others get that job. Empty for none.
	Key string
	// Metadata comes back with the result, and WebhookURL is called with it.
	// Both may be empty.
	Metadata   map[string]string
	WebhookURL string
	// Report says which image of a report the job is; nil for none.
	Report *v1.ReportItem
	// Deadline of the job; zero for what the pipeline says.
	Deadline time.Time
}

func (r *Request) priority() subject.Priority {
	return cmp.Or(r.Priority, r.Pipeline.Priority, subject.Interactive)
}

// NewID makes the ID of a job or report. IDs sort by the time they were made.
func NewID() string { return ulid.Make().String() }

// Submit accepts an image and returns its job, or the job that the key of the
// request stands for. The caller waits for the result with [Job.Wait], and ends
// the job's place here with [Job.Close].
//
// When it stays unknown whether the image is stored, Submit returns the job all
// the same, and [Job.Unknown] says so. Its result is worth waiting for.
//
// Submit sets r.Image to the image that it fetched from r.URL; it fetches none
// when the key stands for a job. When ctx ends before the image is known to be
// stored, Submit cancels the job as [Job.Abandon] does.
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
		job.Abandon(ctx) // it may be stored all the same
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

// find returns the job that the key of a request stands for, or the ID that the
// request's own job is to have.
func (i *Intake) find(ctx context.Context, r *Request) (id string, job *Job, err error) {
	fresh := cmp.Or(r.ID, NewID())
	if r.Key == "" {
		return fresh, nil, nil
	}
	content := sha256.Sum256(r.Image)
	if r.URL != "" {
		content = sha256.Sum256([]byte(r.URL))
	}
	id, err = i.Claim(ctx, NewKey(r.Key, r.Pipeline.Name, r.priority(), content[:]), fresh)
	if err != nil {
		return "", nil, StoreError(ctx, err)
	}
	if id == fresh {
		return id, nil, nil
	}
	found, err := i.cfg.Client.LookupNow(ctx, id)
	var p *v1.Problem
	if errors.As(err, &p) && p.Code == v1.UnknownJob {
		return id, nil, nil // the first request has not stored its image, or not yet
	}
	if err != nil {
		return "", nil, JobError(err, id)
	}
	return id, &Job{ID: id, Pipeline: r.Pipeline.Name, Status: found.Status, intake: i, hasOtherReference: true}, nil
}

// Inspect returns a [*v1.Problem] when an image is none that is read here. The span
// of ctx records how large the image is.
func (i *Intake) Inspect(ctx context.Context, image []byte) error {
	h, err := imagefile.Inspect(image, i.cfg.Limits)
	trace.SpanFromContext(ctx).SetAttributes(telemetry.ImageAttributes(len(image), h.Width, h.Height)...)
	return err
}

// Fetch returns the image at a URL, inspected. grow is as in [Request]. The
// errors are those of [fetch.Fetcher.FetchBounded] and [Intake.Inspect].
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

// Admit returns nil when a job can be accepted now; see
// [admission.Admission.Admit] for its errors.
func (i *Intake) Admit(ctx context.Context, p pipeline.Pipeline, prio subject.Priority) error {
	return i.cfg.Admission.Admit(ctx, p, prio)
}

// admit is Admit in a span: it asks the workers when it has not for a while.
func (i *Intake) admit(ctx context.Context, r *Request) error {
	ctx, span := telemetry.StartChild(ctx, "admit")
	defer span.End()
	err := i.Admit(ctx, r.Pipeline, r.priority())
	if err != nil {
		telemetry.Fail(span, err)
	}
	return err
}

// AdmitLater returns nil when a job can be accepted that waits until the work
// ahead is done; see [admission.Admission.AdmitLater] for its errors.
func (i *Intake) AdmitLater(ctx context.Context, p pipeline.Pipeline) error {
	return i.cfg.Admission.AdmitLater(ctx, p)
}

// Pipelines lists the pipelines of the mesh.
func (i *Intake) Pipelines() []pipeline.Pipeline { return i.cfg.Pipelines }

// Pipeline returns a pipeline by its name, or the first when name is empty.
func (i *Intake) Pipeline(name string) (p pipeline.Pipeline, ok bool) {
	if name == "" {
		return i.cfg.Pipelines[0], true
	}
	p, ok = i.byName[name]
	return p, ok
}
