package results

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/outcome"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// sweeper checks all streams with accepted work, and stores an outcome for jobs that
// would otherwise get none: jobs that are past their deadline, and jobs whose parts are
// complete and were not joined. It does so until [streams.DeadlineMargin] after the deadline of a
// job. It also finishes reports that are past their deadline.
//
// Every replica sweeps. The sweeper publishes each outcome once, so that an earlier
// outcome is kept. It deletes nothing: a message is removed by its acknowledgement or by
// its time to live.
//
// The sweeper compares the time of the server with the times at which the server stored
// the messages.
type sweeper struct {
	s      *Service
	period retry.Backoff
	queue  []*sweptQueue
	// joined has the jobs that are complete in PARTS and have a result.
	joined  map[string]bool
	waiting map[string]int // number of sweeps that found a job in PARTS
	reports map[string]time.Time
	swept   *prometheus.CounterVec
}

// sweptQueue is a subject of a stream, and the position of the sweeper in it.
type sweptQueue struct {
	stream string
	filter string
	parse  func(string) (subject.Job, error)
	// shortest is the shortest deadline of a job in this queue, counted from when its
	// message was stored. Younger messages are not read, because they may be large.
	shortest time.Duration
	next     uint64 // sequence of the first message that was not read yet
	// later has the messages that were read before their deadline.
	later map[uint64]laterMessage
}

// laterMessage is a message that was read before its deadline.
type laterMessage struct {
	deadline time.Time
	missing  bool // the last sweep did not find it
}

// sweepTimeout limits each step of a sweep. A request whose reply was lost takes this
// long. The next sweep continues where a step ended.
const sweepTimeout = 10 * time.Second

func newSweeper(s *Service, period time.Duration, f promauto.Factory) *sweeper {
	shortest := func(prio subject.Priority) time.Duration {
		d := pipeline.DefaultBulkDeadline
		for _, p := range s.pipelines {
			d = min(d, p.JobDeadline(prio))
		}
		return d
	}
	interactive, bulk := shortest(subject.Interactive), shortest(subject.Bulk)
	queue := func(stream, filter string, parse func(string) (subject.Job, error), d time.Duration) *sweptQueue {
		return &sweptQueue{stream: stream, filter: filter, parse: parse, shortest: d, later: map[uint64]laterMessage{}}
	}
	return &sweeper{
		s: s, period: retry.Backoff{period},
		joined: map[string]bool{}, waiting: map[string]int{}, reports: map[string]time.Time{},
		queue: []*sweptQueue{
			queue(streams.Images, subject.ImagesOfPriority(subject.Interactive), subject.ParseImages, interactive),
			queue(streams.Images, subject.ImagesOfPriority(subject.Bulk), subject.ParseImages, bulk),
			queue(streams.Crops, subject.CropsOfPriority(subject.Interactive), subject.ParseCrops, interactive),
			queue(streams.Crops, subject.CropsOfPriority(subject.Bulk), subject.ParseCrops, bulk),
			queue(streams.Parts, subject.AllParts(), subject.ParseParts, interactive),
			queue(streams.Fetches, subject.AllFetches(), subject.ParseFetches, bulk),
		},
		swept: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_swept_total",
			Help: "Outcomes that the sweeper stored, by outcome: expired (the deadline passed) or joined.",
		}, []string{"outcome"}),
	}
}

// run sweeps until ctx ends.
func (w *sweeper) run(ctx context.Context) {
	for retry.Sleep(ctx, w.period.Delay(1)) == nil {
		if err := w.sweep(ctx); err != nil && ctx.Err() == nil {
			w.s.log.WarnContext(ctx, "cannot sweep", "error", err)
		}
	}
}

func (w *sweeper) sweep(ctx context.Context) error {
	steps := []func(context.Context) error{w.joinComplete, w.finishReports}
	for _, name := range []string{streams.Images, streams.Crops, streams.Parts, streams.Fetches} {
		steps = append(steps, func(ctx context.Context) error { return w.expireIn(ctx, name) })
	}
	var errs []error
	for _, step := range steps {
		stepCtx, cancel := context.WithTimeout(ctx, sweepTimeout)
		errs = append(errs, step(stepCtx))
		cancel()
	}
	return errors.Join(errs...)
}

// expireIn stores the outcome deadline-exceeded for the jobs in the queues of a stream
// that are past their deadline.
func (w *sweeper) expireIn(ctx context.Context, name string) error {
	stream, err := w.s.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("sweep %s: %w", name, err)
	}
	var errs []error
	for _, q := range w.queue {
		if q.stream == name {
			errs = append(errs, w.expire(ctx, stream, q))
		}
	}
	return errors.Join(errs...)
}

// expire stores the outcome deadline-exceeded for the jobs in one queue that are past
// their deadline. It uses the information in stream, which is from its lookup.
func (w *sweeper) expire(ctx context.Context, stream jetstream.Stream, q *sweptQueue) error {
	info := stream.CachedInfo()
	now := info.TimeStamp
	if q.next > info.State.LastSeq+1 { // the stream was created again
		q.next = 0
		clear(q.later)
	}
	var errs []error // of messages; an error does not stop the others
	for seq, l := range q.later {
		if seq < info.State.FirstSeq {
			delete(q.later, seq)
			continue
		}
		if now.Before(l.deadline) {
			continue
		}
		m, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) && !l.missing {
			// A new leader of the stream may not have it yet.
			q.later[seq] = laterMessage{l.deadline, true}
			continue
		}
		if err == nil {
			err = w.expireMessage(ctx, q, m, l.deadline, now)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("sweep %s: %w", q.stream, err)
		}
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			errs = append(errs, fmt.Errorf("sweep %s: message %d: %w", q.stream, seq, err))
			continue // retried in the next sweep
		}
		delete(q.later, seq)
	}
	for q.next = max(q.next, info.State.FirstSeq); q.next <= info.State.LastSeq; q.next++ {
		m, err := stream.GetMsg(ctx, q.next, jetstream.WithGetMsgSubject(q.filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("sweep %s: %w", q.stream, err))...)
		}
		if m.Time.Add(q.shortest).After(now) {
			break // all later messages are younger
		}
		q.next = m.Sequence
		deadline := w.deadline(q, m)
		if !now.Before(deadline) {
			err := w.expireMessage(ctx, q, m, deadline, now)
			if err == nil {
				continue
			}
			if ctx.Err() != nil {
				return fmt.Errorf("sweep %s: %w", q.stream, err)
			}
			errs = append(errs, fmt.Errorf("sweep %s: message %d: %w", q.stream, m.Sequence, err))
		}
		q.later[m.Sequence] = laterMessage{deadline: deadline}
	}
	return errors.Join(errs...)
}

// deadline returns the deadline of the job of a message. A client may publish an image
// that is past its deadline. Then the deadline is when the message was stored.
func (w *sweeper) deadline(q *sweptQueue, m *jetstream.RawStreamMsg) time.Time {
	job, _ := q.parse(m.Subject) // a message without a job gets no outcome
	deadline := w.jobDeadline(job, m.Header, m.Time)
	if q.stream == streams.Images && deadline.Before(m.Time) {
		return m.Time
	}
	return deadline
}

// jobDeadline returns the deadline of a job as a worker would read it from a message.
// When the header is invalid, a worker would fail the job immediately. When no worker
// reads the message, the deadline of the pipeline applies.
func (w *sweeper) jobDeadline(job subject.Job, h nats.Header, stored time.Time) time.Time {
	after := pipeline.DefaultBulkDeadline
	if p, ok := w.s.pipelines[job.Pipeline]; ok && job.Priority.Valid() {
		after = p.JobDeadline(job.Priority)
	}
	deadline, _ := consume.JobDeadline(h, stored, after)
	return deadline
}

// isPastMargin reports whether the deadline of a job is so long ago that the sweeper no
// longer stores an outcome for it. Its outcome, and the marker of its outcome, may already
// be deleted, so that a second outcome would be stored. Messages that the mesh publishes
// are deleted by then. Messages that a client published have no time to live.
func isPastMargin(deadline, now time.Time) bool {
	return now.After(deadline.Add(streams.DeadlineMargin))
}

// expireMessage stores the outcome deadline-exceeded for the job of a message, unless the
// job has an outcome.
func (w *sweeper) expireMessage(
	ctx context.Context, q *sweptQueue, m *jetstream.RawStreamMsg, deadline, now time.Time,
) error {
	job, err := q.parse(m.Subject)
	if err != nil {
		return nil //nolint:nilerr // it has no job, and is deleted at its maximum age
	}
	if isPastMargin(deadline, now) {
		return nil
	}
	return w.endJob(ctx, job, m.Header)
}

func (w *sweeper) endJob(ctx context.Context, job subject.Job, h nats.Header) error {
	if has, err := w.hasResult(ctx, job); has || err != nil {
		return err
	}
	ctx = telemetry.WithJob(telemetry.Extract(ctx, h), job.ID)
	if err := w.storeFailure(ctx, job, h, v1.NewProblem(v1.DeadlineExceeded,
		"the deadline passed before the job had a result")); err != nil {
		return err
	}
	w.swept.WithLabelValues("expired").Inc()
	w.s.log.WarnContext(ctx, "job was past its deadline and had no result", "pipeline", job.Pipeline)
	return nil
}

// storeFailure stores p as the outcome of a job.
func (w *sweeper) storeFailure(ctx context.Context, job subject.Job, h nats.Header, p *v1.Problem) error {
	p.Job = job.ID
	m, err := outcome.Message(ctx, h, outcome.NewFailed(job, p))
	if err != nil {
		return err
	}
	return w.s.publisher.Publish(ctx, m)
}

// hasResult reports whether a job has a result, or had one that was deleted.
func (w *sweeper) hasResult(ctx context.Context, job subject.Job) (bool, error) {
	stream, err := w.s.js.Stream(ctx, streams.Results)
	if err != nil {
		return false, fmt.Errorf("look for a result: %w", err)
	}
	_, err = stream.GetLastMsgForSubject(ctx, subject.Results(job.Pipeline, job.ID))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a result: %w", err)
	}
	return true, nil
}

// joinComplete joins the jobs whose parts are complete and have been stored for several
// sweeps.
func (w *sweeper) joinComplete(ctx context.Context) error {
	stream, err := w.s.js.Stream(ctx, streams.Parts)
	if err != nil {
		return fmt.Errorf("sweep parts: %w", err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subject.AllParts()))
	if err != nil {
		return fmt.Errorf("sweep parts: %w", err)
	}
	stored := map[string]partSet{}
	for subj := range info.State.Subjects {
		if job, err := subject.ParseParts(subj); err == nil {
			set := stored[job.ID]
			stored[job.ID] = partSet{subject.Job{Pipeline: job.Pipeline, ID: job.ID}, set.stored + 1}
		}
	}
	isGone := func(id string) bool { _, ok := stored[id]; return !ok }
	maps.DeleteFunc(w.joined, func(id string, _ bool) bool { return isGone(id) })
	maps.DeleteFunc(w.waiting, func(id string, _ int) bool { return isGone(id) })
	var errs []error // of jobs; an error does not stop the others
	for id, set := range stored {
		const sweepsBeforeJoin = 2 // in which the consumer can join them
		if w.waiting[id]++; w.waiting[id] <= sweepsBeforeJoin || w.joined[id] {
			continue
		}
		if err := w.joinIfComplete(ctx, stream, set, info.TimeStamp); err != nil {
			errs = append(errs, fmt.Errorf("sweep parts of %s: %w", id, err))
			if ctx.Err() != nil {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// partSet has the number of stored parts of a job.
type partSet struct {
	job    subject.Job
	stored int
}

func (w *sweeper) joinIfComplete(ctx context.Context, stream jetstream.Stream, set partSet, now time.Time) error {
	parts, complete, err := readParts(ctx, stream, set.job, set.stored)
	if err != nil || !complete {
		return err
	}
	if isPastMargin(w.jobDeadline(set.job, parts.header, parts.first), now) {
		return nil
	}
	has, err := w.hasResult(ctx, set.job)
	if has || err != nil {
		w.joined[set.job.ID] = has
		return err
	}
	ctx = telemetry.Extract(ctx, parts.header)
	m, err := w.s.joinResult(ctx, set.job, parts.header, parts)
	if err == nil {
		err = w.s.publisher.Publish(ctx, m)
	}
	var never *v1.Problem
	if errors.As(err, &never) { // such as a result that is too large
		err = w.storeFailure(ctx, set.job, parts.header, never)
	}
	if err != nil {
		return err
	}
	w.joined[set.job.ID] = true
	w.swept.WithLabelValues("joined").Inc()
	w.s.log.WarnContext(ctx, "job was complete and had not been joined", "job", set.job.ID, "pipeline", set.job.Pipeline)
	return nil
}

// finishReports finishes the reports whose images all have outcomes. It stores an outcome
// for every image without one in the reports that are past their deadline.
func (w *sweeper) finishReports(ctx context.Context) error {
	stream, err := w.s.js.Stream(ctx, streams.Reports)
	if err != nil {
		return fmt.Errorf("sweep reports: %w", err)
	}
	open, now, err := unfinishedReports(ctx, stream)
	if err != nil {
		return fmt.Errorf("sweep reports: %w", err)
	}
	maps.DeleteFunc(w.reports, func(id string, _ time.Time) bool { return !open[id] })
	var errs []error
	for id := range open {
		again, known := w.reports[id]
		if known && now.Before(again) {
			continue
		}
		if w.reports[id], err = w.s.reports.Sweep(ctx, id, now, w.endJob); err != nil {
			errs = append(errs, fmt.Errorf("sweep report %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// unfinishedReports returns the reports that are not finished, and the time of the
// server.
func unfinishedReports(ctx context.Context, stream jetstream.Stream) (map[string]bool, time.Time, error) {
	open := map[string]bool{}
	manifests, err := stream.Info(ctx, jetstream.WithSubjectFilter(subject.AllManifests()))
	if err != nil {
		return nil, time.Time{}, err
	}
	for subj := range manifests.State.Subjects {
		if id, err := subject.ParseReport(subj); err == nil {
			open[id] = true
		}
	}
	ends, err := stream.Info(ctx, jetstream.WithSubjectFilter(subject.AllFinished()))
	if err != nil {
		return nil, time.Time{}, err
	}
	for subj := range ends.State.Subjects {
		if id, err := subject.ParseFinished(subj); err == nil {
			delete(open, id)
		}
	}
	return open, manifests.TimeStamp, nil
}
