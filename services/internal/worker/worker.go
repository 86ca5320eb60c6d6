package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/lanes"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Handler is what a service does with its messages.
type Handler interface {
	// Work gives what follows from a delivery. An error that wraps a
	// [*v1.Problem] makes the job fail with it.
	Work(ctx context.Context, lane *lanes.Lane, d Delivery) ([]bus.Message, error)
	// Failed gives the message that ends the job, or the part, with p.
	Failed(ctx context.Context, d Delivery, p *v1.Problem) (bus.Message, error)
}

// Config of a worker. All fields are needed.
type Config struct {
	Stage     subject.Stage
	Pipelines []pipeline.Pipeline
	Handler   Handler
	Pool      *lanes.Pool
	Conn      *nats.Conn
	Publisher *bus.Publisher
	Tracers   trace.TracerProvider
	Logger    *slog.Logger
	Metrics   prometheus.Registerer
}

// Worker runs a stage.
type Worker struct {
	cfg       Config
	tracer    trace.Tracer
	pipelines map[string]pipeline.Pipeline
	sources   []*source
	metrics   metrics
	cancelled cancelled

	mu     sync.Mutex
	inHand map[*nats.Msg]struct{}
}

const (
	keepAlive  = time.Second     // how often the server hears of a message in hand
	pullWait   = 2 * time.Second // how long a pull request waits at the server
	retryDelay = time.Second     // before a message is delivered again
	// worthTelling is how long work lasts before whoever watches hears of it.
	worthTelling = 5 * time.Millisecond
	// perLane is how many goroutines take turns with a lane: one has it while
	// another stores the outcome before.
	perLane = 2
	// endBudget is how long the message that ends a job may take to be
	// stored, whatever the job's deadline.
	endBudget = 10 * time.Second
)

// New makes a worker; Run starts it.
func New(cfg Config) *Worker {
	byName := map[string]pipeline.Pipeline{}
	var names []string
	for _, p := range cfg.Pipelines {
		byName[p.Name] = p
		names = append(names, p.Name)
	}
	return &Worker{
		cfg:       cfg,
		tracer:    cfg.Tracers.Tracer("github.com/sightmesh/sightmesh/services/internal/worker"),
		pipelines: byName,
		sources:   newSources(cfg.Stage, names),
		metrics:   newMetrics(cfg.Metrics),
		inHand:    map[*nats.Msg]struct{}{},
	}
}

// Run takes and does work until ctx ends, then finishes what is in hand until
// hard ends, and returns when its lanes have ended too.
func (w *Worker) Run(ctx, hard context.Context) error {
	cancels, err := w.cancelled.listen(w.cfg.Conn)
	if err != nil {
		return err
	}
	defer cancels.Unsubscribe() //nolint:errcheck // fails only when the connection is gone

	poolCtx, endPool := context.WithCancel(context.WithoutCancel(ctx))
	defer endPool()
	var pool errgroup.Group
	pool.Go(func() error { return w.cfg.Pool.Run(poolCtx) })

	keeperCtx, endKeeper := context.WithCancel(context.WithoutCancel(ctx))
	defer endKeeper()
	var keeper sync.WaitGroup
	keeper.Go(func() { w.keepAlive(keeperCtx) })

	var work errgroup.Group
	for range w.cfg.Pool.Lanes() * perLane {
		work.Go(func() error { return w.takeWork(ctx, hard) })
	}
	workErr := work.Wait()
	endKeeper()
	keeper.Wait()
	endPool()
	if err := errors.Join(workErr, pool.Wait()); err != nil {
		return fmt.Errorf("run %s: %w", w.cfg.Stage, err)
	}
	return nil
}

// takeWork does one message after the other in whichever lane is free.
func (w *Worker) takeWork(ctx, hard context.Context) error {
	puller, err := newPuller(w.cfg.Conn, w.sources, pullWait)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		lane, err := w.cfg.Pool.Acquire(ctx)
		if err != nil {
			break // stopping
		}
		serves := map[string]bool{}
		for _, p := range lane.Pipelines() {
			serves[p] = true
		}
		msg, src, err := puller.next(ctx, func(p string) bool { return serves[p] })
		switch {
		case err == nil:
			w.see(hard, lane, src, msg)
			continue // see has released the lane
		case errors.Is(err, errNothing), ctx.Err() != nil:
		default:
			w.cfg.Logger.Warn("cannot take work", "error", err)
			pause(ctx, retryDelay)
		}
		lane.Release()
	}
	return puller.close()
}

// see takes one message through to its outcome. It releases the lane as soon
// as that has done its part: while the outcome is being stored, another message
// can be in it.
func (w *Worker) see(ctx context.Context, lane *lanes.Lane, src *source, msg *nats.Msg) {
	release := sync.OnceFunc(lane.Release)
	defer release()
	defer w.hold(msg)()
	d, err := newDelivery(w.cfg.Stage, msg, time.Now())
	if err != nil {
		// Without a job there is no answer to give.
		w.cfg.Logger.Error("drop a message that is not of a job", "subject", msg.Subject, "error", err)
		w.end(msg, "+TERM not of a job")
		return
	}
	ctx, span := bus.StartProcess(ctx, w.tracer, bus.Taken{
		Stream: streams.WorkStream(w.cfg.Stage), Consumer: src.consumer, Header: msg.Header,
		Job: d.Job, Stored: d.Stored, Received: d.Received, Deliveries: d.Deliveries,
	})
	defer span.End()

	telemetry.Observe(ctx, w.metrics.queueWait.WithLabelValues(d.Job.Pipeline, string(d.Job.Priority)), d.Received.Sub(d.Stored).Seconds())
	w.metrics.bytes.WithLabelValues("in").Add(float64(len(d.Body)))
	if d.Deliveries > 1 {
		w.metrics.redeliveries.Inc()
	}
	outcome := w.do(ctx, lane, release, &d)
	if outcome != "done" {
		span.SetStatus(codes.Error, outcome)
		span.SetAttributes(telemetry.AttrProblem.String(outcome))
	}
	w.metrics.messages.WithLabelValues(d.Job.Pipeline, string(d.Job.Priority), outcome).Inc()
	telemetry.Observe(ctx, w.metrics.process.WithLabelValues(d.Job.Pipeline), time.Since(d.Received).Seconds())
}

// do works on a delivery, publishes what follows and ends the message. It
// returns "done", the code of the problem, or what else became of it.
func (w *Worker) do(ctx context.Context, lane *lanes.Lane, release func(), d *Delivery) (outcome string) {
	msgs, err := w.work(ctx, lane, d)
	release()
	if err == nil && w.cancelled.has(d.Job.ID) {
		err = errCancelled()
	}
	if err == nil {
		err = w.publish(ctx, d.Deadline, msgs)
	}
	if err == nil {
		w.end(d.msg, "+ACK")
		return "done"
	}
	act, problem := actionFor(err)
	if act == fail || act == quarantine {
		if err = w.fail(ctx, *d, act, problem); err == nil {
			w.cfg.Logger.WarnContext(ctx, "job failed", "pipeline", d.Job.Pipeline, "part", d.Job.Part, "code", problem.Code, "detail", problem.Detail)
			w.end(d.msg, "+TERM "+string(problem.Code))
			return string(problem.Code)
		}
		act, _ = actionFor(err)
	}
	if act == handBack {
		w.end(d.msg, "-NAK")
		return "handed-back"
	}
	w.cfg.Logger.WarnContext(ctx, "job will be tried again", "pipeline", d.Job.Pipeline, "part", d.Job.Part, "deliveries", d.Deliveries, "error", err)
	w.end(d.msg, fmt.Sprintf(`-NAK {"delay": %d}`, retryDelay))
	return "retried"
}

// stageEvents says what a stage is doing.
var stageEvents = map[subject.Stage]v1.EventName{subject.Detect: v1.EventDetecting, subject.Classify: v1.EventClassifying}

func errCancelled() *v1.Problem { return v1.NewProblem(v1.Cancelled, "the job was cancelled") }

func (w *Worker) work(ctx context.Context, lane *lanes.Lane, d *Delivery) ([]bus.Message, error) {
	p, ok := w.pipelines[d.Job.Pipeline]
	if !ok {
		return nil, v1.NewProblem(v1.UnknownPipeline, "this worker knows no pipeline %q", d.Job.Pipeline)
	}
	if w.cancelled.has(d.Job.ID) {
		w.metrics.avoided.WithLabelValues("cancelled").Inc()
		return nil, errCancelled()
	}
	if err := d.setDeadline(p.JobDeadline(d.Job.Priority)); err != nil {
		return nil, err
	}
	if d.Deliveries >= streams.MaxDeliveries {
		return nil, v1.NewProblem(v1.TooManyDeliveries, "delivered %d times without an outcome", d.Deliveries-1)
	}
	if !time.Now().Before(d.Deadline) {
		w.metrics.avoided.WithLabelValues("deadline").Inc()
		return nil, v1.NewProblem(v1.DeadlineExceeded, "the deadline %s passed before a lane was free", d.Deadline.UTC().Format(time.RFC3339))
	}
	// What is over at once is told by its end alone: a message for each stage
	// of a job that takes two milliseconds would be felt.
	begun := time.Now().UTC()
	defer time.AfterFunc(worthTelling, func() {
		if err := bus.Tell(w.cfg.Conn, v1.Event{ID: d.Job.ID, Event: stageEvents[w.cfg.Stage], At: begun, Part: d.Job.Part}); err != nil {
			w.cfg.Logger.DebugContext(ctx, "cannot tell what happens", "error", err)
		}
	}).Stop()
	ctx, cancel := context.WithDeadline(ctx, d.Deadline)
	defer cancel()
	return w.cfg.Handler.Work(ctx, lane, *d)
}

// publish stores msgs in order. What was computed is kept while a stream is
// full or away: it is tried again until the job's deadline.
func (w *Worker) publish(ctx context.Context, deadline time.Time, msgs []bus.Message) error {
	ctx, cancel := context.WithDeadline(ctx, later(deadline, time.Now().Add(endBudget)))
	defer cancel()
	for _, m := range msgs {
		for delay := 50 * time.Millisecond; ; delay = min(2*delay, time.Second) {
			err := w.cfg.Publisher.Publish(ctx, m)
			if err == nil {
				w.metrics.bytes.WithLabelValues("out").Add(float64(len(m.Body)))
				break
			}
			if !pause(ctx, delay) {
				return err
			}
			w.metrics.publishRetries.Inc()
		}
	}
	return nil
}

// fail stores the failure as the answer and, where it says so, the message
// itself in quarantine.
func (w *Worker) fail(ctx context.Context, d Delivery, act action, p *v1.Problem) error {
	p.Job, p.TraceID = d.Job.ID, trace.SpanContextFromContext(ctx).TraceID().String()
	end, err := w.cfg.Handler.Failed(ctx, d, p)
	if err != nil {
		return err
	}
	msgs := []bus.Message{end}
	if act == quarantine {
		h := bus.Travel(d.Header)
		h.Set(v1.HeaderReason, string(p.Code))
		h.Set(v1.HeaderDetail, p.Detail)
		h.Set(v1.HeaderSubject, d.msg.Subject)
		msgs = append([]bus.Message{{
			Subject: subject.Quarantine(w.cfg.Stage, d.Job.Pipeline, d.Job.ID), Stream: streams.Quarantine,
			ID:     v1.MsgID(d.Job.ID, fmt.Sprintf("quarantine.%s.%d", w.cfg.Stage, d.Job.Part)),
			Header: h, Body: d.Body,
		}}, msgs...)
	}
	return w.publish(ctx, time.Time{}, msgs)
}

// end sends the last word on a message. When it is lost the message comes
// again, and what is published then is dropped as a duplicate.
func (w *Worker) end(m *nats.Msg, word string) {
	if err := w.cfg.Conn.Publish(m.Reply, []byte(word)); err != nil {
		w.cfg.Logger.Warn("cannot acknowledge", "subject", m.Subject, "word", word, "error", err)
	}
}

// hold keeps the message from being delivered to somebody else until the
// function it returns is called.
func (w *Worker) hold(m *nats.Msg) (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inHand[m] = struct{}{}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.inHand, m)
	}
}

func (w *Worker) keepAlive(ctx context.Context) {
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.mu.Lock()
		for m := range w.inHand {
			if err := m.InProgress(); err != nil && !errors.Is(err, nats.ErrMsgAlreadyAckd) {
				w.cfg.Logger.Warn("cannot say that work is in progress", "subject", m.Subject, "error", err)
			}
		}
		w.mu.Unlock()
	}
}

// Status is what the instance says of itself on its status subject.
func (w *Worker) Status(service, instance, version string) v1.WorkerStatus {
	return v1.WorkerStatus{
		Service: service, Instance: instance, Version: version,
		Lanes: w.cfg.Pool.Lanes(), Busy: w.cfg.Pool.Busy(), Pipelines: w.cfg.Pool.Status(),
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// pause waits for d; false means that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
