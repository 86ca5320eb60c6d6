// Package admission decides whether a job can be accepted: whether a worker
// serves its pipeline, whether the work ahead of it will be done in time, and
// whether its result can be stored.
//
// It asks the workers and the results service for their status and JetStream for
// the backlogs, a few times a second, and decides from the last answers. Refusing is exact enough
// when it is honest: the wait is backlog × measured service time ÷ lanes.
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

// MaxWait is how long a job of each priority may have to wait before it is
// refused.
type MaxWait map[subject.Priority]time.Duration

// Admission knows the state of the mesh.
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
	statusAt map[subject.Stage]time.Time // when the workers said their status
	results  resultsState
	storage  storage
	backlog  map[queue]int
	missing  map[queue]bool // whether the consumer was not there at the last look
}

// queue is what one consumer works on.
type queue struct {
	stage    subject.Stage
	pipeline string
	priority subject.Priority
}

func (q queue) consumer() string { return streams.WorkConsumer(q.stage, q.pipeline, q.priority) }

const (
	pollInterval   = 500 * time.Millisecond // between two looks at the mesh
	requestTimeout = 2 * time.Second        // of a request to JetStream
	// firstReplyTimeout is how long a worker may take to say its status: a
	// millisecond, but more on a machine that is busy. With no worker at all
	// NATS says so at once.
	firstReplyTimeout = time.Second
	// replyGap is the silence after a reply that says it was the last.
	replyGap = 80 * time.Millisecond
	// absentAfter is for how long a stage may not answer before its workers are
	// taken for gone. That none is running is known at once.
	absentAfter = 10 * time.Second
	// maxStatusAge is how old a status may be that says that a pipeline is ready.
	maxStatusAge = 5 * time.Second
)

// New returns an Admission that knows nothing yet; see Run.
func New(conn *nats.Conn, js jetstream.JetStream, pipelines []pipeline.Pipeline, maxWait MaxWait, log *slog.Logger, reg prometheus.Registerer) *Admission {
	return &Admission{
		conn: conn, js: js, pipelines: pipelines, maxWait: maxWait, log: log,
		backlogs: promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{
			Name: "sightmesh_backlog", Help: "Number of messages that wait for a worker or are being processed.",
		}, []string{"stage", "pipeline", "priority"}),
		workers:  map[subject.Stage][]v1.WorkerStatus{},
		statusAt: map[subject.Stage]time.Time{},
		backlog:  map[queue]int{},
		missing:  map[queue]bool{},
		storage:  storage{read: time.Now()}, // the process has checked the streams before
	}
}

// Run looks at the mesh until ctx ends. What does not answer delays only the
// looks of its own kind.
func (a *Admission) Run(ctx context.Context) {
	var loops sync.WaitGroup
	for _, look := range []func(context.Context){a.pollWorkers, a.pollResults, a.pollImages} {
		loops.Go(func() { repeat(ctx, look) })
	}
	loops.Wait()
}

// pollWorkers asks for the workers and the backlogs.
func (a *Admission) pollWorkers(ctx context.Context) {
	for _, stage := range []subject.Stage{subject.Detect, subject.Classify} {
		if err := a.readWorkers(ctx, stage); err != nil && ctx.Err() == nil {
			a.log.Warn("cannot ask the workers for their status", "stage", stage, "error", err)
		}
	}
	if err := a.readBacklogs(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("cannot read the backlogs", "error", err)
	}
}

// repeat calls look every period until ctx ends.
func repeat(ctx context.Context, look func(context.Context)) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// readWorkers collects the status of every instance of a stage.
func (a *Admission) readWorkers(ctx context.Context, stage subject.Stage) error {
	inbox := a.conn.NewInbox()
	sub, err := a.conn.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("ask %s for status: %w", stage, err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // it can only say that the connection is gone
	if err := a.conn.PublishRequest(subject.Status(string(stage)), inbox, nil); err != nil {
		return fmt.Errorf("ask %s for status: %w", stage, err)
	}
	found := []v1.WorkerStatus{}
	for wait := firstReplyTimeout; ; wait = replyGap {
		m, err := nextMsg(ctx, wait, sub)
		if errors.Is(err, context.DeadlineExceeded) && len(found) == 0 && a.keepStatus(stage) {
			return nil // the workers are slow, or the connection is
		}
		if err != nil {
			// No responders, or no more of them in time.
			if !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("ask %s for status: %w", stage, err)
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

// keepStatus reports whether the last status of a stage is new enough to stay
// when no worker answers in time.
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

// readBacklogs reads all of them at the same time: a consumer without a leader
// does not answer, and hides no other.
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

// readBacklog reads how much waits in a queue, and whether its consumer is
// there at all.
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
			a.log.Info("the consumer is there again", "consumer", q.consumer())
		}
	}
	return nil
}

// noWorkerDelay is how long a client should wait for a worker of its pipeline.
const noWorkerDelay = 5 * time.Second

// Admit returns nil when a job can be accepted. Otherwise it returns a
// [*retry.Error] with a [*v1.Problem], unavailable, no-worker or overloaded, that
// says after how many whole seconds to try again.
func (a *Admission) Admit(ctx context.Context, p pipeline.Pipeline, prio subject.Priority) error {
	if err := a.AdmitLater(ctx, p); err != nil {
		return err
	}
	wait := a.estimateWait(p.Name, prio)
	if limit := a.maxWait[prio]; wait > limit {
		problem := v1.NewProblem(v1.Overloaded, "the work ahead takes about %.0f s, a %s job may wait %.0f s",
			wait.Seconds(), prio, limit.Seconds())
		return retry.After(problem, roundUp(wait-limit))
	}
	return nil
}

// AdmitLater is Admit for work that waits until the work ahead is done, however
// long that takes.
func (a *Admission) AdmitLater(ctx context.Context, p pipeline.Pipeline) error {
	a.mu.Lock()
	results := a.results
	a.mu.Unlock()
	if err := results.problem(); err != nil {
		return err
	}
	for _, stage := range pipelineStages(p) {
		state, reason := a.pipelineState(stage, p)
		if !accepts(state, p) { // ask again rather than reject because of an old status, for all requests that wait for it
			asking := context.WithoutCancel(ctx)
			ask := func() (any, error) { return nil, a.readWorkers(asking, stage) }
			a.refresh.Do(string(stage), ask) //nolint:errcheck // the old status stays
			state, reason = a.pipelineState(stage, p)
		}
		if !accepts(state, p) {
			problem := v1.NewProblem(v1.NoWorker, "no %s worker is ready for pipeline %s: %s", stage, p.Name, reason)
			return retry.After(problem, noWorkerDelay)
		}
	}
	return nil
}

// roundUp returns d in whole seconds, as Retry-After has them.
func roundUp(d time.Duration) time.Duration { return (d + time.Second - 1).Truncate(time.Second) }

func pipelineStages(p pipeline.Pipeline) []subject.Stage {
	if p.Classify == nil {
		return []subject.Stage{subject.Detect}
	}
	return []subject.Stage{subject.Detect, subject.Classify}
}

// pipelineState returns how a stage serves the pipeline, and why it is not ready. The best of
// its instances counts.
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

// accepts reports whether images of the pipeline are accepted in a state of a stage.
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

// estimateWait estimates how long a job of a pipeline that came now would wait: the lanes of the
// workers that serve it work on all pipelines that these workers serve, and bulk work
// waits for interactive work too.
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

// serviceMS is the mean of what the instances measured.
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

// isCurrent reports whether the status of a stage is new enough to be told to
// clients.
func (a *Admission) isCurrent(stage subject.Stage) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.statusAt[stage]) < maxStatusAge
}

// Pipelines says of every pipeline whether it is served, and by which models.
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
