package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/consume"
)

// Handler processes the messages of a stage.
type Handler interface {
	// Process returns the messages that follow from a delivery. An error that
	// wraps a [*v1.Problem] makes the job fail with it.
	Process(ctx context.Context, lane *pool.Lane, d *consume.Delivery) ([]bus.Message, error)
	// Fail returns the message that ends the job, or the part, with p.
	Fail(ctx context.Context, d *consume.Delivery, p *v1.Problem) (bus.Message, error)
}

// Config configures a Worker. All fields are required.
type Config struct {
	Stage     subject.Stage
	Pipelines []pipeline.Pipeline
	Handler   Handler
	Pool      *pool.Pool
	Conn      *nats.Conn
	JetStream jetstream.JetStream
	Clock     *clock.Clock
	Publisher *bus.Publisher
	Tracers   trace.TracerProvider
	Logger    *slog.Logger
	Metrics   prometheus.Registerer
}

// Worker processes the messages of a stage.
type Worker struct {
	cfg       Config
	pipelines map[string]pipeline.Pipeline
	sources   []*source
	loop      *consume.Loop
	attempts  attempts
	metrics   metrics
	cancelled cancelledJobs
}

const (
	pullWait = 2 * time.Second // how long a pull request waits at the server
	// eventDelay is how long a stage processes a job before it publishes an event. For
	// a job of 2 ms an event of each stage would be a noticeable cost.
	eventDelay = 5 * time.Millisecond
	// pullersPerLane is the number of goroutines for each lane: one uses the lane while
	// another stores the outcome of the previous message.
	pullersPerLane = 2
)

// backoff is the delay before a message is redelivered, and before the next attempt to
// pull after an error.
var backoff = retry.Exponential(time.Second, 5*time.Second, 2)

// New returns a worker; Run starts it.
func New(cfg Config) *Worker {
	w := &Worker{
		cfg: cfg, pipelines: map[string]pipeline.Pipeline{},
		attempts: attempts{js: cfg.JetStream, stage: cfg.Stage}, metrics: newMetrics(cfg.Clock, cfg.Metrics),
	}
	var names []string
	for _, p := range cfg.Pipelines {
		w.pipelines[p.Name] = p
		names = append(names, p.Name)
	}
	w.sources = newSources(cfg.Stage, names)
	w.loop = consume.NewLoop(consume.Config{
		Open: w.open, Fail: w.fail, Backoff: backoff, Clock: cfg.Clock, Publisher: cfg.Publisher,
		Tracer: cfg.Tracers.Tracer("github.com/sightmesh/sightmesh/services/internal/worker"), Logger: cfg.Logger,
		Hooks: consume.Hooks{Published: w.metrics.recordPublish, Ended: w.metrics.recordEnd},
	})
	return w
}

// Run processes messages until ctx ends, finishes the messages in progress until hard
// ends, stops the lanes, and returns.
func (w *Worker) Run(ctx, hard context.Context) error {
	cancels, err := w.cancelled.subscribe(w.cfg.Conn)
	if err != nil {
		return err
	}
	defer cancels.Unsubscribe() //nolint:errcheck // fails only when the connection is gone

	poolCtx, endPool := context.WithCancel(context.WithoutCancel(ctx))
	defer endPool()
	var pool errgroup.Group
	pool.Go(func() error { return w.cfg.Pool.Run(poolCtx) })

	var work errgroup.Group
	w.loop.SendHeartbeats(func() {
		for range w.cfg.Pool.Lanes() * pullersPerLane {
			work.Go(func() error { return w.pullAll(ctx, hard) })
		}
		err = work.Wait()
	})
	endPool()
	if err := errors.Join(err, pool.Wait()); err != nil {
		return fmt.Errorf("run %s: %w", w.cfg.Stage, err)
	}
	return nil
}

// pullAll processes one message after the other, each in a free lane.
func (w *Worker) pullAll(ctx, hard context.Context) error {
	puller, err := newPuller(w.cfg.Conn, w.sources, pullWait, w.cfg.Logger)
	if err != nil {
		return err
	}
	for failures := 0; ctx.Err() == nil; {
		lane, err := w.cfg.Pool.Acquire(ctx)
		if err != nil {
			break // stopping
		}
		served := lane.Pipelines()
		m, err := puller.next(ctx, func(p string) bool { return slices.Contains(served, p) })
		if err == nil {
			failures = 0
			release := sync.OnceFunc(lane.Release)
			w.loop.Process(hard, consume.FromNATS(w.cfg.Conn, m), w.laneHandler(lane, release))
			release() // the handler is not called for a delivery that cannot be read
			continue
		}
		lane.Release()
		if errors.Is(err, errNoMessage) || ctx.Err() != nil {
			continue
		}
		failures++
		w.cfg.Logger.Warn("cannot pull messages", "error", err)
		if retry.Sleep(ctx, backoff.Delay(failures)) != nil {
			break
		}
	}
	return puller.close()
}

// laneHandler returns the handler of one message. The handler releases the lane before
// the outcome is stored.
func (w *Worker) laneHandler(lane *pool.Lane, release func()) consume.Handler {
	return func(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
		defer release()
		return w.process(ctx, lane, d)
	}
}

// open sets the job and the deadline of a delivery.
func (w *Worker) open(d *consume.Delivery) (err error) {
	parse := subject.ParseImages
	if w.cfg.Stage == subject.Classify {
		parse = subject.ParseCrops
	}
	if d.Job, err = parse(d.Subject); err != nil {
		return fmt.Errorf("read delivery: %w", err)
	}
	p, ok := w.pipelines[d.Job.Pipeline]
	if !ok {
		return v1.NewProblem(v1.UnknownPipeline, "this worker knows no pipeline %q", d.Job.Pipeline)
	}
	return d.ReadDeadline(p.JobDeadline(d.Job.Priority))
}

// process calls the handler of the service unless the job has ended already.
func (w *Worker) process(ctx context.Context, lane *pool.Lane, d *consume.Delivery) ([]bus.Message, error) {
	w.metrics.recordStart(ctx, d)
	if err := w.checkEnded(d); err != nil {
		return nil, err
	}
	if err := w.attempts.begin(ctx, d); err != nil {
		return nil, err
	}
	begin := w.cfg.Clock.Now().UTC()
	defer time.AfterFunc(eventDelay, func() { w.publishEvent(ctx, d.Job, begin) }).Stop()
	msgs, err := w.cfg.Handler.Process(ctx, lane, d)
	if err == nil && w.cancelled.has(d.Job.ID) {
		return nil, cancelledProblem()
	}
	return msgs, err
}

// checkEnded returns a problem when the job of a delivery was cancelled or is past its
// deadline.
func (w *Worker) checkEnded(d *consume.Delivery) error {
	switch {
	case w.cancelled.has(d.Job.ID):
		w.metrics.avoided.WithLabelValues("cancelled").Inc()
		return cancelledProblem()
	case !w.cfg.Clock.Now().Before(d.Deadline):
		w.metrics.avoided.WithLabelValues("deadline").Inc()
		return v1.NewProblem(v1.DeadlineExceeded, "the deadline %s passed before a lane was free",
			d.Deadline.UTC().Format(time.RFC3339))
	}
	return nil
}

func cancelledProblem() *v1.Problem { return v1.NewProblem(v1.Cancelled, "the job was cancelled") }

// stageEvents has the event that each stage publishes.
var stageEvents = map[subject.Stage]v1.EventName{
	subject.Detect: v1.EventDetecting, subject.Classify: v1.EventClassifying,
}

// publishEvent publishes that the stage is processing a job.
func (w *Worker) publishEvent(ctx context.Context, job subject.Job, begin time.Time) {
	e := v1.Event{ID: job.ID, Event: stageEvents[w.cfg.Stage], At: begin, Part: job.Part}
	if err := bus.PublishEvent(w.cfg.Conn, e); err != nil {
		w.cfg.Logger.DebugContext(ctx, "cannot publish an event", "error", err)
	}
}

// quarantineCodes are the problems whose messages are quarantined, so that an operator
// can examine them.
var quarantineCodes = []v1.Code{v1.LaneDied, v1.TooSlow, v1.TooMuchMemory, v1.TooManyDeliveries, v1.InvalidMessage}

// fail returns the outcome of a job that failed with p and, for the problems in
// quarantineCodes, the message itself for QUARANTINE.
func (w *Worker) fail(ctx context.Context, d *consume.Delivery, p *v1.Problem) ([]bus.Message, error) {
	outcome, err := w.cfg.Handler.Fail(ctx, d, p)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(quarantineCodes, p.Code) {
		return []bus.Message{outcome}, nil
	}
	h := bus.CopyHeaders(d.Header)
	h.Set(v1.HeaderReason, string(p.Code))
	h.Set(v1.HeaderDetail, p.Detail)
	h.Set(v1.HeaderSubject, d.Subject)
	return []bus.Message{outcome, {
		Subject: subject.Quarantine(w.cfg.Stage, d.Job.Pipeline, d.Job.ID), Stream: streams.Quarantine,
		ID:     v1.MsgID(d.Job.ID, v1.MsgQuarantine+"."+string(w.cfg.Stage), d.Job.Part),
		Header: h, Body: d.Body,
	}}, nil
}

// Status returns the reply of this instance on the status subject.
func (w *Worker) Status(service, instance, version string) v1.WorkerStatus {
	busy := w.cfg.Pool.Busy()
	return v1.WorkerStatus{
		Service: service, Instance: instance, Version: version, Lanes: w.cfg.Pool.Lanes(),
		Busy: len(busy), BusyLanes: busy, Pipelines: w.cfg.Pool.Status(),
	}
}
