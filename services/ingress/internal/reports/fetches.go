package reports

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/picture"
	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/ingress/internal/fetch"
	"github.com/sightmesh/sightmesh/services/ingress/internal/jobs"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// FetchesConfig is what a [Fetches] needs; all of it.
type FetchesConfig struct {
	JetStream jetstream.JetStream
	Publisher *bus.Publisher
	Fetcher   *fetch.Fetcher
	Jobs      *jobs.Jobs
	Admission *admission.Admission
	Pipelines []pipeline.Pipeline
	Limits    picture.Limits
	Tracers   trace.TracerProvider
	Logger    *slog.Logger
	Metrics   prometheus.Registerer
}

// Fetches turns messages of FETCHES into jobs: each is an image of a report
// that is somewhere on the web.
type Fetches struct {
	FetchesConfig
	byName map[string]pipeline.Pipeline
	tracer trace.Tracer
	loop   *consume.Loop
	done   *prometheus.CounterVec
}

// NewFetches returns one.
func NewFetches(cfg FetchesConfig) *Fetches {
	f := &Fetches{
		FetchesConfig: cfg, byName: map[string]pipeline.Pipeline{},
		tracer: cfg.Tracers.Tracer("github.com/sightmesh/sightmesh/services/ingress"),
		done: promauto.With(cfg.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_fetches_total", Help: "Images of reports that were fetched, by outcome: done, a problem code, or retried.",
		}, []string{"outcome"}),
	}
	for _, p := range cfg.Pipelines {
		f.byName[p.Name] = p
	}
	f.loop = consume.NewLoop(consume.Config{
		Open: f.open, Fail: f.fail, Timeout: streams.FetchTimeout + storeTimeout, Backoff: backoff,
		Publisher: cfg.Publisher, Tracer: f.tracer, Logger: cfg.Logger, Hooks: consume.Hooks{Ended: f.ended},
	})
	return f
}

// storeTimeout is how long an image may take to be stored once it is fetched.
const storeTimeout = 10 * time.Second

// Run fetches up to so many images at a time until ctx ends. What is under way
// then is handed back.
func (f *Fetches) Run(ctx context.Context, width int) {
	src := consume.Source{
		JetStream: f.JetStream, Stream: streams.Fetches, Consumer: streams.FetchesConsumer, Width: width, Prefetch: 1,
	}
	f.loop.Run(ctx, ctx, src, f.process)
}

// maxAttempts is how often an image is fetched when the failures are of the
// kind that passes.
const maxAttempts = 5

// backoff is the delay after an attempt that failed.
var backoff = retry.Exponential(time.Second, 64*time.Second, 4)

// longestRetryAfter bounds what a host can ask for.
const longestRetryAfter = 10 * time.Minute

// ended counts what became of an image. One that was put off was not tried.
func (f *Fetches) ended(_ context.Context, _ *consume.Delivery, outcome consume.Outcome) {
	switch outcome {
	case consume.Snoozed, consume.HandedBack:
	default:
		f.done.WithLabelValues(string(outcome)).Inc()
	}
}

// open reads which image of which report a delivery is.
func (f *Fetches) open(d *consume.Delivery) error {
	job, err := subject.ParseFetches(d.Subject)
	if err != nil {
		return err
	}
	if _, err := v1.ParseReportItem(d.Header.Get(v1.HeaderReport)); err != nil {
		return err
	}
	d.Job = job
	return d.ReadDeadline(f.byName[job.Pipeline].JobDeadline(subject.Bulk))
}

// request returns what is to become of the image of a delivery.
func (f *Fetches) request(ctx context.Context, d *consume.Delivery) (jobs.Request, error) {
	r := jobs.Request{ID: d.Job.ID, Pipeline: f.byName[d.Job.Pipeline], Priority: subject.Bulk, Deadline: d.Deadline}
	r.Pipeline.Name = d.Job.Pipeline
	item, err := v1.ParseReportItem(d.Header.Get(v1.HeaderReport))
	if err != nil {
		return r, err
	}
	r.Report = &item
	if meta := d.Header.Get(v1.HeaderMetadata); meta != "" {
		if err := json.Unmarshal([]byte(meta), &r.Metadata); err != nil {
			f.Logger.WarnContext(ctx, "cannot read the metadata of an image", "error", err)
		}
	}
	return r, nil
}

// fail returns the outcome of an image that cannot be a job.
func (f *Fetches) fail(ctx context.Context, d *consume.Delivery, p *v1.Problem) ([]bus.Message, error) {
	r, err := f.request(ctx, d)
	if err != nil {
		return nil, err
	}
	m, err := jobs.Failed(ctx, r, p)
	return []bus.Message{m}, err
}

// process fetches the image of a delivery and stores it as a job.
func (f *Fetches) process(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	var want v1.Fetch
	if err := json.Unmarshal(d.Body, &want); err != nil {
		return nil, consume.Drop(fmt.Errorf("decode fetch: %w", err))
	}
	r, err := f.request(ctx, d)
	if err != nil {
		return nil, consume.Drop(err)
	}
	slot, err := f.enter(ctx, d, want)
	switch {
	case errors.Is(err, fetch.ErrBusy):
		return nil, consume.Snooze(busyBackoff.Delay(d.Deliveries))
	case errors.Is(err, errNotServed):
		return nil, consume.Snooze(unservedBackoff.Delay(1))
	case err == nil:
		defer slot.Leave()
		ctx, span := f.tracer.Start(ctx, "fetch", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			telemetry.AttrJob.String(d.Job.ID), telemetry.AttrPipeline.String(d.Job.Pipeline)))
		defer span.End()
		if err = f.store(ctx, r, slot); err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
	}
	return nil, f.retry(ctx, d, err)
}

// retry counts a failure that passes as an attempt. The last of them does not
// pass any more.
func (f *Fetches) retry(ctx context.Context, d *consume.Delivery, err error) error {
	var failed *fetch.Failure
	if !errors.As(err, &failed) || !failed.Transient {
		return err
	}
	n, countErr := f.attempt(ctx, d.Job.ID, d.Deliveries)
	if countErr != nil {
		return countErr
	}
	if n >= maxAttempts {
		return err
	}
	return retry.After(err, max(backoff.Delay(n), min(failed.RetryAfter, longestRetryAfter)))
}

// errNotServed says that the pipeline of an image has no worker now.
var errNotServed = errors.New("no worker is ready for the pipeline")

// Nothing is held while an image is put off, so that a slow host or a pipeline
// without workers takes nothing from the images of others.
var (
	busyBackoff     = retry.Backoff{time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second, 5 * time.Second}
	unservedBackoff = retry.Backoff{20 * time.Second}
)

// attempt counts a fetch of an image that failed in a way that passes, and
// gives how many there were. Deliveries do not tell: an image may have been put
// off before.
func (f *Fetches) attempt(ctx context.Context, job string, deliveries int) (int, error) {
	var tried struct {
		Attempts int `json:"attempts"`
	}
	if deliveries > 1 {
		if _, err := bus.Last(ctx, f.JetStream, streams.Jobs, subject.FetchState(job), &tried); err != nil {
			return 0, err
		}
	}
	tried.Attempts++
	body, err := json.Marshal(tried)
	if err != nil {
		return 0, fmt.Errorf("count the fetches of %s: %w", job, err)
	}
	if _, err := f.JetStream.Publish(ctx, subject.FetchState(job), body, jetstream.WithExpectStream(streams.Jobs)); err != nil {
		return 0, fmt.Errorf("count the fetches of %s: %w", job, err)
	}
	return tried.Attempts, nil
}

// enter takes a slot of the host of an image, once there is room for the job.
func (f *Fetches) enter(ctx context.Context, d *consume.Delivery, want v1.Fetch) (*fetch.Slot, error) {
	p, ok := f.byName[d.Job.Pipeline]
	if !ok {
		return nil, v1.NewProblem(v1.UnknownPipeline, "this ingress does not know the pipeline")
	}
	if err := f.admit(ctx, p, d.Deadline); err != nil {
		return nil, err
	}
	return f.Fetcher.TryEnter(want.URL)
}

// store fetches the picture and makes a job of it.
func (f *Fetches) store(ctx context.Context, r jobs.Request, slot *fetch.Slot) error {
	var err error
	if r.Picture, err = slot.Fetch(ctx); err != nil {
		return err
	}
	if _, err := picture.Inspect(r.Picture, f.Limits); err != nil {
		return err
	}
	return f.Jobs.Store(ctx, r)
}

// admit waits, as every bulk job does, until the work ahead is little enough:
// pictures are not fetched to wait somewhere else. The work ahead is that of
// all pipelines; one that nobody serves has no others wait for it.
func (f *Fetches) admit(ctx context.Context, p pipeline.Pipeline, deadline time.Time) error {
	for {
		if !time.Now().Before(deadline) {
			return v1.NewProblem(v1.DeadlineExceeded, "the deadline %s passed before the picture was fetched", deadline.UTC().Format(time.RFC3339))
		}
		retryAfter, problem := f.Admission.Admit(ctx, p, subject.Bulk)
		if problem == nil {
			return nil
		}
		if problem.Code == v1.NoWorker {
			return errNotServed // others are
		}
		wait := min(time.Duration(retryAfter)*time.Second, jobs.RetryAfter*time.Second, time.Until(deadline))
		if err := retry.Sleep(ctx, wait); err != nil && time.Now().Before(deadline) {
			return fmt.Errorf("wait until there is room: %w", err)
		}
	}
}
