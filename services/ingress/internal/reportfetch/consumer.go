// Package reportfetch fetches the images of reports that are at URLs. It consumes the
// stream FETCHES and creates a job for each image, or stores the failure of one.
// Package fetch does the downloads.
package reportfetch

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
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/fetch"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Config is the configuration of a [Consumer]. All fields are required.
type Config struct {
	JetStream jetstream.JetStream
	Clock     *clock.Clock
	Publisher *bus.Publisher
	Fetcher   *fetch.Fetcher
	Intake    *intake.Intake
	Tracers   trace.TracerProvider
	Logger    *slog.Logger
	Metrics   prometheus.Registerer
}

// A Consumer creates jobs from messages of FETCHES. Each message is an image of a report
// at a URL.
type Consumer struct {
	cfg      Config
	tracer   trace.Tracer
	loop     *consume.Loop
	outcomes *prometheus.CounterVec
}

// New returns a Consumer. The caller calls Run.
func New(cfg Config) *Consumer {
	f := &Consumer{
		cfg: cfg, tracer: cfg.Tracers.Tracer("github.com/sightmesh/sightmesh/services/ingress"),
		outcomes: promauto.With(cfg.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_fetches_total",
			Help: "Attempts to fetch images of reports, by outcome: done, a problem code or retried.",
		}, []string{"outcome"}),
	}
	f.loop = consume.NewLoop(consume.Config{
		Open: f.parseDelivery, Fail: f.failureMessages, Timeout: fetch.Timeout + storeTimeout, Backoff: storeBackoff,
		Clock: cfg.Clock, Publisher: cfg.Publisher, Tracer: f.tracer, Logger: cfg.Logger,
		Hooks: consume.Hooks{Ended: f.countOutcome},
	})
	return f
}

// storeTimeout is the time limit for storing an image after its download.
const storeTimeout = 10 * time.Second

// Run fetches up to width images at a time until ctx ends. It then naks the messages in
// progress.
func (f *Consumer) Run(ctx context.Context, width int) {
	src := consume.Source{
		JetStream: f.cfg.JetStream, Stream: streams.Fetches, Consumer: streams.FetchesConsumer, Width: width, Prefetch: 1,
	}
	f.loop.Run(ctx, ctx, src, f.process)
}

// maxAttempts is the maximum of attempts to fetch an image, when the errors are
// transient.
const maxAttempts = 5

// storeBackoff is the delay after an image could not be stored. It depends on the number
// of deliveries, which includes snoozed ones.
var storeBackoff = retry.Exponential(time.Second, 8*time.Second, 2)

// backoff is the delay after a failed attempt.
var backoff = retry.Exponential(time.Second, 64*time.Second, 4)

// longestRetryAfter limits the delay that a host can request.
const longestRetryAfter = 10 * time.Minute

// countOutcome counts the outcome of a delivery. A snoozed delivery was no attempt.
func (f *Consumer) countOutcome(_ context.Context, _ *consume.Delivery, outcome consume.Outcome) {
	switch outcome {
	case consume.Snoozed, consume.HandedBack:
	default:
		f.outcomes.WithLabelValues(string(outcome)).Inc()
	}
}

// parseDelivery sets the job and the deadline of a delivery from its subject and headers.
func (f *Consumer) parseDelivery(d *consume.Delivery) error {
	job, err := subject.ParseFetches(d.Subject)
	if err != nil {
		return err
	}
	if _, err := v1.ParseReportItem(d.Header.Get(v1.HeaderReport)); err != nil {
		return err
	}
	d.Job = job
	p, ok := f.cfg.Intake.Pipeline(job.Pipeline)
	if !ok {
		return v1.NewProblem(v1.UnknownPipeline, "this ingress does not know the pipeline")
	}
	return d.ReadDeadline(p.JobDeadline(subject.Bulk))
}

// newRequest returns the request for the job of a delivery, without its image.
func (f *Consumer) newRequest(ctx context.Context, d *consume.Delivery) (intake.Request, error) {
	p, ok := f.cfg.Intake.Pipeline(d.Job.Pipeline)
	if !ok {
		p.Name = d.Job.Pipeline
	}
	r := intake.Request{ID: d.Job.ID, Pipeline: p, Priority: subject.Bulk, Deadline: d.Deadline}
	item, err := v1.ParseReportItem(d.Header.Get(v1.HeaderReport))
	if err != nil {
		return r, err
	}
	r.Report = &item
	if meta := d.Header.Get(v1.HeaderMetadata); meta != "" {
		if err := json.Unmarshal([]byte(meta), &r.Metadata); err != nil {
			f.cfg.Logger.WarnContext(ctx, "cannot read the metadata of an image", "error", err)
		}
	}
	return r, nil
}

// failureMessages returns the message with the outcome of an image that cannot be a job.
func (f *Consumer) failureMessages(ctx context.Context, d *consume.Delivery, p *v1.Problem) ([]bus.Message, error) {
	r, err := f.newRequest(ctx, d)
	if err != nil {
		return nil, err
	}
	m, err := intake.NewFailure(ctx, r, p)
	return []bus.Message{m}, err
}

// process downloads the image of a delivery and stores it as a job.
func (f *Consumer) process(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	var want v1.Fetch
	if err := json.Unmarshal(d.Body, &want); err != nil {
		return nil, consume.Drop(fmt.Errorf("decode fetch: %w", err))
	}
	r, err := f.newRequest(ctx, d)
	if err != nil {
		return nil, consume.Drop(err)
	}
	permit, err := f.acquirePermit(ctx, r, want)
	switch {
	case errors.Is(err, fetch.ErrBusy):
		return nil, consume.Snooze(busyBackoff.Delay(d.Deliveries))
	case errors.Is(err, errNotServed):
		return nil, consume.Snooze(unservedBackoff.Delay(1))
	case err == nil:
		defer permit.Release()
		ctx, span := f.tracer.Start(ctx, "fetch", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			telemetry.AttrJob.String(d.Job.ID), telemetry.AttrPipeline.String(d.Job.Pipeline),
			semconv.HTTPRequestMethodGet))
		defer span.End()
		if err = f.fetchAndStore(ctx, r, permit); err != nil {
			telemetry.Fail(span, err)
		}
	}
	return nil, f.retryOrFail(ctx, d, err)
}

// retryOrFail counts an attempt that failed with a transient error. It returns the error
// with the delay of the next attempt, or as a permanent error after the last attempt.
func (f *Consumer) retryOrFail(ctx context.Context, d *consume.Delivery, err error) error {
	var p *v1.Problem
	after, transient := retry.Delay(err)
	if !transient || !errors.As(err, &p) {
		return err
	}
	n, countErr := f.countAttempt(ctx, d.Job.ID, d.Deliveries)
	if countErr != nil {
		return countErr
	}
	if n >= maxAttempts {
		return p
	}
	return retry.After(p, max(backoff.Delay(n), min(after, longestRetryAfter)))
}

// errNotServed is the error when the pipeline of an image has no worker.
var errNotServed = errors.New("no worker is ready for the pipeline")

// A snoozed image has no permit and no memory, so that a slow host or a pipeline without
// workers does not delay other images. Many images of one host are retried at increasing
// intervals.
var (
	busyBackoff     = retry.Exponential(time.Second, 30*time.Second, 2)
	unservedBackoff = retry.Backoff{20 * time.Second}
)

// countAttempt counts a failed attempt to fetch an image, and returns the number of
// attempts. The number of deliveries is no substitute, because it includes snoozed ones.
func (f *Consumer) countAttempt(ctx context.Context, job string, deliveries int) (int, error) {
	var state v1.Attempts
	if deliveries > 1 {
		if _, err := bus.ReadLast(ctx, f.cfg.JetStream, streams.Jobs, subject.FetchState(job), &state); err != nil {
			return 0, fmt.Errorf("count the fetches: %w", err)
		}
	}
	state.Attempts++
	if err := bus.PublishLast(ctx, f.cfg.JetStream, streams.Jobs, subject.FetchState(job), state); err != nil {
		return 0, fmt.Errorf("count the fetches: %w", err)
	}
	return state.Attempts, nil
}

// acquirePermit waits until the job can be admitted, and acquires a permit of the host.
func (f *Consumer) acquirePermit(ctx context.Context, r intake.Request, want v1.Fetch) (*fetch.Permit, error) {
	if err := f.waitForAdmission(ctx, r); err != nil {
		return nil, err
	}
	return f.cfg.Fetcher.TryAcquire(want.URL)
}

// fetchAndStore downloads the image and stores it as a job.
func (f *Consumer) fetchAndStore(ctx context.Context, r intake.Request, permit *fetch.Permit) (err error) {
	if r.Image, err = permit.Fetch(ctx); err != nil {
		return err
	}
	if err := f.cfg.Intake.Inspect(ctx, r.Image); err != nil {
		return err
	}
	return f.cfg.Intake.Store(ctx, r)
}

// waitForAdmission waits until a bulk job is admitted, so that images are not downloaded
// before workers can process them. The backlog is that of all pipelines. It returns
// errNotServed immediately for a pipeline without workers, so that other pipelines do not
// wait for it.
func (f *Consumer) waitForAdmission(ctx context.Context, r intake.Request) error {
	for {
		if !f.cfg.Clock.Now().Before(r.Deadline) {
			return v1.NewProblem(v1.DeadlineExceeded, "the deadline %s passed before the picture was fetched",
				r.Deadline.UTC().Format(time.RFC3339))
		}
		err := f.cfg.Intake.Admit(ctx, r.Pipeline, r.Priority)
		if err == nil {
			return nil
		}
		var p *v1.Problem
		if errors.As(err, &p) && p.Code == v1.NoWorker {
			return errNotServed
		}
		after, _ := retry.Delay(err)
		err = retry.Sleep(ctx, min(after, intake.RetryDelay, f.cfg.Clock.Until(r.Deadline)))
		if err != nil && f.cfg.Clock.Now().Before(r.Deadline) {
			return fmt.Errorf("wait for admission: %w", err)
		}
	}
}
