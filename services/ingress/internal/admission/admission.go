// Package admission decides whether a job can be accepted: whether a worker serves its
// pipeline, whether the backlog is short enough, and whether its result can be stored.
//
// It polls the status of the workers and the results service, and the backlogs of
// JetStream, twice a second, and decides from the last values. It estimates the wait as
// backlog × measured service time ÷ lanes.
package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
)

// MaxWait is the longest wait of a job, by priority. A job that would wait longer is rejected.
type MaxWait map[subject.Priority]time.Duration

// Admission tracks the state of the mesh, and decides whether jobs are admitted.
type Admission struct {
	conn      *nats.Conn
	js        jetstream.JetStream
	pipelines []pipeline.Pipeline
	maxWait   MaxWait
	log       *slog.Logger
	backlogs  *prometheus.GaugeVec
	refresh   singleflight.Group

	mu       sync.Mutex
	workers  map[subject.Stage][]v1.WorkerStatus
	statusAt map[subject.Stage]time.Time // when the status was read
	results  resultsState
	storage  storage
	backlog  map[queue]int
	missing  map[queue]bool // whether the consumer was missing at the last poll
}

// queue identifies the queue of one consumer.
type queue struct {
	stage    subject.Stage
	pipeline string
	priority subject.Priority
}

func (q queue) consumer() string { return streams.WorkConsumer(q.stage, q.pipeline, q.priority) }

const (
	pollInterval   = 500 * time.Millisecond // between two polls of the mesh
	requestTimeout = 2 * time.Second        // of a request to JetStream
	// firstReplyTimeout is the time limit for the first status. It usually takes a millisecond, but longer on
	// a busy machine. Without any worker, NATS reports no responders immediately.
	firstReplyTimeout = time.Second
	// replyGap is the time without another reply after which a stage has no more workers.
	replyGap = 80 * time.Millisecond
	// absentAfter is the time without a status after which the workers of a stage are absent. No responders
	// means absent immediately.
	absentAfter = 10 * time.Second
	// maxStatusAge is the maximum age of a status that makes a pipeline ready.
	maxStatusAge = 5 * time.Second
)

// New returns an Admission without any state. The caller calls Run.
func New(
	conn *nats.Conn, js jetstream.JetStream, pipelines []pipeline.Pipeline, maxWait MaxWait, log *slog.Logger,
	reg prometheus.Registerer,
) *Admission {
	return &Admission{
		conn: conn, js: js, pipelines: pipelines, maxWait: maxWait, log: log,
		backlogs: promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{
			Name: "sightmesh_backlog", Help: "Number of messages that wait for a worker or are being processed.",
		}, []string{"stage", "pipeline", "priority"}),
		workers:  map[subject.Stage][]v1.WorkerStatus{},
		statusAt: map[subject.Stage]time.Time{},
		backlog:  map[queue]int{},
		missing:  map[queue]bool{},
		storage:  storage{read: time.Now()}, // the process has already checked the streams
	}
}

// Run polls the mesh until ctx ends. Separate loops poll workers, results and images, so that one does not
// delay the others.
func (a *Admission) Run(ctx context.Context) {
	var loops sync.WaitGroup
	for _, poll := range []func(context.Context){a.pollWorkers, a.pollResults, a.pollImages} {
		loops.Go(func() { repeat(ctx, poll) })
	}
	loops.Wait()
}

// pollWorkers reads the status of the workers and the backlogs.
func (a *Admission) pollWorkers(ctx context.Context) {
	for _, stage := range []subject.Stage{subject.Detect, subject.Classify} {
		if err := a.readWorkers(ctx, stage); err != nil && ctx.Err() == nil {
			a.log.Warn("cannot read the status of the workers", "stage", stage, "error", err)
		}
	}
	if err := a.readBacklogs(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("cannot read the backlogs", "error", err)
	}
}

// repeat calls poll every pollInterval until ctx ends.
func repeat(ctx context.Context, poll func(context.Context)) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		poll(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// readWorkers reads the status of every worker of a stage.
func (a *Admission) readWorkers(ctx context.Context, stage subject.Stage) error {
	inbox := a.conn.NewInbox()
	sub, err := a.conn.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("request the status of %s: %w", stage, err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // it can only say that the connection is gone
	if err := a.conn.PublishRequest(subject.Status(string(stage)), inbox, nil); err != nil {
		return fmt.Errorf("request the status of %s: %w", stage, err)
	}
	found := []v1.WorkerStatus{}
	for wait := firstReplyTimeout; ; wait = replyGap {
		m, err := nextMsg(ctx, wait, sub)
		if errors.Is(err, context.DeadlineExceeded) && len(found) == 0 && a.keepStatus(stage) {
			return nil // the workers or the connection are slow
		}
		if err != nil {
			// No responders, or no further reply in time.
			if !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("request the status of %s: %w", stage, err)
			}
			break
		}
		var s v1.WorkerStatus
		if err := json.Unmarshal(m.Data, &s); err != nil {
			return fmt.Errorf("read status of %s: %w", stage, err)
		}
		found = append(found, s)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.workers[stage] = found
	a.statusAt[stage] = time.Now()
	return nil
}

// keepStatus reports whether the last status of a stage is recent enough to keep it when no worker replies in
// time.
func (a *Admission) keepStatus(stage subject.Stage) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.statusAt[stage]) < absentAfter
}

func nextMsg(ctx context.Context, d time.Duration, sub *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return sub.NextMsgWithContext(ctx)
}

// readBacklogs reads all backlogs concurrently, so that a consumer without a leader, which does not reply,
// does not hide others.
func (a *Admission) readBacklogs(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var reads errgroup.Group
	for _, p := range a.pipelines {
		for _, stage := range []subject.Stage{subject.Detect, subject.Classify} {
			for _, prio := range subject.Priorities() {
				q := queue{stage, p.Name, prio}
				reads.Go(func() error {
					if err := a.readBacklog(ctx, q); err != nil {
						return fmt.Errorf("read backlog of %s: %w", q.consumer(), err)
					}
					return nil
				})
			}
		}
	}
	return reads.Wait()
}

// readBacklog reads the number of messages in a queue, and whether its consumer exists.
func (a *Admission) readBacklog(ctx context.Context, q queue) error {
	c, err := a.js.Consumer(ctx, streams.WorkStream(q.stage), q.consumer())
	missing := errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
	if err != nil && !missing {
		return err
	}
	n := 0
	if !missing {
		info := c.CachedInfo()
		n = int(info.NumPending) + info.NumAckPending
	}
	a.backlogs.WithLabelValues(string(q.stage), q.pipeline, string(q.priority)).Set(float64(n))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.backlog[q] = n
	if missing != a.missing[q] {
		a.missing[q] = missing
		if missing {
			a.log.Error("a consumer is missing: run sightmesh setup", "consumer", q.consumer())
		} else {
			a.log.Info("the consumer exists again", "consumer", q.consumer())
		}
	}
	return nil
}

// noWorkerDelay is the retry delay when a pipeline has no worker.
const noWorkerDelay = 5 * time.Second

// Admit returns nil when a job can be accepted. Otherwise it returns a [*retry.Error] with an unavailable,
// no-worker or overloaded problem. Its delay is in whole seconds.
func (a *Admission) Admit(ctx context.Context, p pipeline.Pipeline, prio subject.Priority) error {
	if err := a.AdmitLater(ctx, p); err != nil {
		return err
	}
	wait := a.estimateWait(p.Name, prio)
	if limit := a.maxWait[prio]; wait > limit {
		problem := v1.NewProblem(v1.Overloaded, "the expected queue wait of %s jobs is %.0f s, the limit is %.0f s",
			prio, wait.Seconds(), limit.Seconds())
		return retry.After(problem, roundUp(wait-limit))
	}
	return nil
}

// AdmitLater is like Admit, but ignores the backlog, for jobs that may wait for it.
func (a *Admission) AdmitLater(ctx context.Context, p pipeline.Pipeline) error {
	a.mu.Lock()
	results := a.results
	a.mu.Unlock()
	if err := results.problem(); err != nil {
		return err
	}
	for _, stage := range pipelineStages(p) {
		state, reason := a.pipelineState(stage, p)
		if !accepts(state, p) { // read the status again before rejecting, once for all waiting requests
			shared := context.WithoutCancel(ctx)
			read := func() (any, error) { return nil, a.readWorkers(shared, stage) }
			a.refresh.Do(string(stage), read) //nolint:errcheck // the old status stays
			state, reason = a.pipelineState(stage, p)
		}
		if !accepts(state, p) {
			problem := v1.NewProblem(v1.NoWorker, "no %s worker is ready for pipeline %s: %s", stage, p.Name, reason)
			return retry.After(problem, noWorkerDelay)
		}
	}
	return nil
}

// roundUp rounds d up to whole seconds, for Retry-After.
func roundUp(d time.Duration) time.Duration { return (d + time.Second - 1).Truncate(time.Second) }

func pipelineStages(p pipeline.Pipeline) []subject.Stage {
	if p.Classify == nil {
		return []subject.Stage{subject.Detect}
	}
	return []subject.Stage{subject.Detect, subject.Classify}
}

// pipelineState returns the state of a pipeline in a stage, and the reason when it is not ready. The best
// state of all workers counts.
func (a *Admission) pipelineState(stage subject.Stage, p pipeline.Pipeline) (state v1.PipelineState, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, prio := range subject.Priorities() {
		if q := (queue{stage, p.Name, prio}); a.missing[q] {
			return v1.PipelineFailed, fmt.Sprintf("the consumer %s is missing", q.consumer())
		}
	}
	state, reason = v1.PipelineUnserved, "none is running"
	if p.ScaleFromZero {
		state = v1.PipelineCold
	}
	for _, w := range a.workers[stage] {
		s, known := w.Pipelines[p.Name]
		switch {
		case s.Ready:
			return v1.PipelineReady, ""
		case s.Starting:
			state, reason = v1.PipelineStarting, s.Reason
		case known && state != v1.PipelineStarting:
			state, reason = v1.PipelineFailed, s.Reason
		}
	}
	return state, reason
}

// accepts reports whether images of a pipeline are accepted in a state.
func accepts(state v1.PipelineState, p pipeline.Pipeline) bool {
	switch state {
	case v1.PipelineReady, v1.PipelineCold:
		return true
	case v1.PipelineStarting:
		return p.ScaleFromZero
	case v1.PipelineUnserved, v1.PipelineFailed:
	}
	return false
}

// estimateWait estimates how long a new job of a pipeline waits. The lanes of the workers that serve the
// pipeline process all pipelines of these workers. Bulk jobs also wait for interactive jobs.
func (a *Admission) estimateWait(name string, prio subject.Priority) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	total := 0.0
	for stage, all := range a.workers {
		lanes := 0
		var workers []v1.WorkerStatus
		for _, w := range all {
			if serves(w, name) {
				workers = append(workers, w)
				lanes += w.Lanes
			}
		}
		if lanes == 0 {
			continue
		}
		ms := 0.0
		for q, n := range a.backlog {
			shared := slices.ContainsFunc(workers, func(w v1.WorkerStatus) bool { return serves(w, q.pipeline) })
			if q.stage == stage && shared && (q.priority == subject.Interactive || prio == subject.Bulk) {
				ms += float64(n) * serviceMS(workers, q.pipeline)
			}
		}
		total += ms / float64(lanes)
	}
	return time.Duration(total * float64(time.Millisecond))
}

func serves(w v1.WorkerStatus, name string) bool {
	_, ok := w.Pipelines[name]
	return ok
}

// serviceMS returns the mean service time that the workers have measured.
func serviceMS(workers []v1.WorkerStatus, name string) float64 {
	sum, n := 0.0, 0
	for _, w := range workers {
		if ms := w.Pipelines[name].ServiceMS; ms > 0 {
			sum, n = sum+ms, n+1
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

// isCurrent reports whether the status of a stage is recent enough for clients.
func (a *Admission) isCurrent(stage subject.Stage) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.statusAt[stage]) < maxStatusAge
}

// Pipelines returns the state and the models of every pipeline.
func (a *Admission) Pipelines() []v1.Pipeline {
	out := make([]v1.Pipeline, 0, len(a.pipelines))
	for _, p := range a.pipelines {
		e := v1.Pipeline{
			Name: p.Name, Description: p.Description, Ready: true, State: v1.PipelineReady,
			DeadlineMS: p.JobDeadline(p.Priority).Milliseconds(), MaxRegions: p.MaxRegions,
		}
		for _, stage := range pipelineStages(p) {
			state, reason := a.pipelineState(stage, p)
			if state == v1.PipelineReady && !a.isCurrent(stage) {
				state, reason = v1.PipelineUnserved, fmt.Sprintf("no status came in the last %.0f s", maxStatusAge.Seconds())
			}
			if state != v1.PipelineReady && (e.Ready || !accepts(state, p)) {
				e.State, e.Reason = state, fmt.Sprintf("%s: %s", stage, reason)
			}
			e.Ready = e.Ready && accepts(state, p)
			e.Models = append(e.Models, a.models(stage, p.Name)...)
		}
		out = append(out, e)
	}
	return out
}

func (a *Admission) models(stage subject.Stage, name string) []v1.Model {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers[stage] {
		if m := w.Pipelines[name].Models; len(m) > 0 {
			return m
		}
	}
	return nil
}
