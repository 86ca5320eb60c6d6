package reports

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
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
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// FetchesConfig is what a [Fetches] needs; all of it.
type FetchesConfig struct {
	JetStream jetstream.JetStream
	Fetcher   *fetch.Fetcher
	Intake    *intake.Intake
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
	return f
}

// maxAttempts is how often an image is fetched when the failures are of the
// kind that passes.
const maxAttempts = 5

// pause is how long to wait after attempt n, counted from 1.
func pause(n int, retryAfter time.Duration) time.Duration {
	d := time.Second << (2 * (n - 1))                          // 1, 4, 16, 64 s
	return max(d+rand.N(d/4), min(retryAfter, 10*time.Minute)) //nolint:gosec // not a secret
}

// Do takes one message through: the picture is a job afterwards, or its
// failure the outcome, or the message comes back. Work ends with ctx; then the
// message comes back too.
func (f *Fetches) Do(ctx context.Context, m jetstream.Msg) {
	meta, err := m.Metadata()
	job, err2 := subject.ParseFetches(m.Subject())
	item, err3 := v1.ParseReportItem(m.Headers().Get(v1.HeaderReport))
	var want v1.Fetch
	if err := errors.Join(err, err2, err3, json.Unmarshal(m.Data(), &want)); err != nil {
		f.Logger.Error("drop a message that is not of a report", "subject", m.Subject(), "error", err)
		f.last(m, m.TermWithReason("not of a report"))
		return
	}
	ctx = telemetry.WithJob(telemetry.Extract(ctx, m.Headers()), job.ID)
	slot, err := f.enter(ctx, f.byName[job.Pipeline], want)
	switch {
	case err == nil:
		defer slot.Leave()
	case errors.Is(err, fetch.ErrBusy):
		f.putOff(ctx, m, min(time.Duration(meta.NumDelivered)*time.Second, intake.RetryDelay))
		return
	case errors.Is(err, errNotServed):
		f.putOff(ctx, m, unserved)
		return
	}
	ctx, span := f.tracer.Start(ctx, "fetch", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		telemetry.AttrJob.String(job.ID), telemetry.AttrPipeline.String(job.Pipeline), attribute.Int64("messaging.nats.deliveries", int64(meta.NumDelivered))))
	defer span.End()
	req := intake.Request{ID: job.ID, Pipeline: f.byName[job.Pipeline], Priority: subject.Bulk, Report: &item, Deadline: want.Deadline}
	if meta := m.Headers().Get(v1.HeaderMetadata); meta != "" {
		if err := json.Unmarshal([]byte(meta), &req.Metadata); err != nil {
			f.Logger.WarnContext(ctx, "cannot read the metadata of an image", "error", err)
		}
	}
	if err == nil {
		err = f.store(ctx, req, slot)
	}
	var p *v1.Problem
	if after, ok := retry.Delay(err); ok {
		n, countErr := f.attempt(ctx, job.ID, meta.NumDelivered)
		if countErr != nil {
			f.again(ctx, m, intake.RetryDelay, countErr)
			return
		}
		if n < maxAttempts {
			f.again(ctx, m, pause(n, after), err)
			return
		}
	}
	switch {
	case err == nil:
		f.done.WithLabelValues("done").Inc()
		f.last(m, m.Ack())
		return
	case errors.As(err, &p): // the outcome of the image
		span.SetStatus(codes.Error, p.Error())
		end := *p
		end.Job = job.ID
		req.Pipeline.Name = job.Pipeline
		if err = f.Intake.Fail(ctx, req, &end); err == nil {
			f.done.WithLabelValues(string(p.Code)).Inc()
			f.last(m, m.TermWithReason(string(p.Code)))
			return
		}
	}
	f.again(ctx, m, intake.RetryDelay, err)
}

// errNotServed says that the pipeline of an image has no worker now.
var errNotServed = errors.New("no worker is ready for the pipeline")

// unserved is about how long an image waits that is of a pipeline without a
// worker.
const unserved = 20 * time.Second

// putOff lets a message come back that could not be tried now. Nothing is held
// meanwhile, so that a slow host or a pipeline without workers takes nothing
// from the images of others.
func (f *Fetches) putOff(ctx context.Context, m jetstream.Msg, d time.Duration) {
	if ctx.Err() != nil {
		f.last(m, m.Nak())
		return
	}
	f.last(m, m.NakWithDelay(d/2+rand.N(d/2))) //nolint:gosec // not a secret
}

// attempt counts a fetch of an image that failed in a way that passes, and
// gives how many there were. Deliveries do not tell: an image may have been put
// off before.
func (f *Fetches) attempt(ctx context.Context, job string, deliveries uint64) (int, error) {
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

// enter takes a slot of the host of an image, once there is room for the
// picture.
func (f *Fetches) enter(ctx context.Context, p pipeline.Pipeline, want v1.Fetch) (*fetch.Slot, error) {
	if p.Name == "" {
		return nil, v1.NewProblem(v1.UnknownPipeline, "this ingress does not know the pipeline")
	}
	if err := f.admit(ctx, p, want.Deadline); err != nil {
		return nil, err
	}
	return f.Fetcher.TryEnter(want.URL)
}

// store fetches the picture and makes a job of it.
func (f *Fetches) store(ctx context.Context, r intake.Request, slot *fetch.Slot) error {
	var err error
	if r.Image, err = slot.Fetch(ctx); err != nil {
		return err
	}
	if _, err := picture.Inspect(r.Image, f.Limits); err != nil {
		return err
	}
	return f.Intake.Store(ctx, r)
}

// admit waits, as every bulk job does, until the work ahead is little enough:
// pictures are not fetched to wait somewhere else. The work ahead is that of
// all pipelines; one that nobody serves has no others wait for it.
func (f *Fetches) admit(ctx context.Context, p pipeline.Pipeline, deadline time.Time) error {
	for {
		if !time.Now().Before(deadline) {
			return v1.NewProblem(v1.DeadlineExceeded, "the deadline %s passed before the picture was fetched", deadline.UTC().Format(time.RFC3339))
		}
		err := f.Admission.Admit(ctx, p, subject.Bulk)
		if err == nil {
			return nil
		}
		var problem *v1.Problem
		if errors.As(err, &problem) && problem.Code == v1.NoWorker {
			return errNotServed // others are
		}
		after, _ := retry.Delay(err)
		t := time.NewTimer(min(after, intake.RetryDelay, time.Until(deadline)))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("wait until there is room: %w", ctx.Err())
		}
	}
}

func (f *Fetches) again(ctx context.Context, m jetstream.Msg, d time.Duration, why error) {
	f.done.WithLabelValues("retried").Inc()
	if ctx.Err() != nil {
		f.last(m, m.Nak()) // this instance stops: another one goes on at once
		return
	}
	f.Logger.InfoContext(ctx, "image will be fetched again", "after", d.String(), "error", why)
	f.last(m, m.NakWithDelay(d))
}

// last sends the last word on a message. When it is lost the message comes
// again, and what is stored then is dropped as a duplicate.
func (f *Fetches) last(m jetstream.Msg, err error) {
	if err != nil {
		f.Logger.Warn("cannot acknowledge", "subject", m.Subject(), "error", err)
	}
}
