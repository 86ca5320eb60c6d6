package results

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/outcome"
	"github.com/sightmesh/sightmesh/services/internal/requestfields"
)

// canceller cancels jobs. It stores the failure as the outcome of the job, with the
// message ID of every outcome of the job, so that the job has one outcome. It deletes the
// messages of the job from the streams, and publishes the cancellation to the workers,
// which drop the messages that they have already pulled.
type canceller struct {
	conn      *nats.Conn
	lookup    *lookup
	publisher *bus.Publisher
	jobs      *prometheus.CounterVec
}

func newCanceller(nc *nats.Conn, l *lookup, p *bus.Publisher, f promauto.Factory) *canceller {
	return &canceller{conn: nc, lookup: l, publisher: p, jobs: f.NewCounterVec(prometheus.CounterOpts{
		Name: "sightmesh_cancelled_jobs_total", Help: "Jobs that were cancelled, by state before: queued or running.",
	}, []string{"was"})}
}

func (c *canceller) register(svc *bus.Service) error {
	cancel := func(ctx context.Context, m *nats.Msg) ([]byte, error) {
		job, err := subject.ParseCancel(m.Subject)
		if err != nil {
			return nil, newInvalidJobProblem()
		}
		if err := requestfields.CheckHeaders(m.Header, nil); err != nil {
			return nil, err
		}
		return c.cancelJob(ctx, job)
	}
	return c.lookup.serve(svc, "cancel", subject.AllCancel(), "cancellation", cancel)
}

func (c *canceller) cancelJob(ctx context.Context, job string) ([]byte, error) {
	current, err := c.state(ctx, job)
	if err != nil {
		return nil, err
	}
	outcome := current
	if !current.Final() {
		if outcome, err = c.end(ctx, current); err != nil {
			return nil, err
		}
	}
	if outcome.Problem == nil || outcome.Problem.Code != v1.Cancelled {
		return nil, v1.NewProblem(v1.JobFinished, "job %s was done before it could be cancelled", job)
	}
	if err := c.conn.Publish(subject.Cancelled(job), nil); err != nil {
		return nil, fmt.Errorf("cancel %s: publish to the workers: %w", job, err)
	}
	if err := c.remove(ctx, job); err != nil {
		return nil, err
	}
	return json.Marshal(v1.Cancellation{ID: job, Was: current.Status, Status: outcome.Status})
}

func (c *canceller) state(ctx context.Context, job string) (v1.Result, error) {
	var r v1.Result
	body, err := c.lookup.find(ctx, job)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("cancel %s: decode its state: %w", job, err)
	}
	return r, nil
}

// end stores the failure as the outcome of a job in the state was, and returns the
// outcome that the stream has kept. A read after a write can return older data, so end
// reads only when another outcome was first.
func (c *canceller) end(ctx context.Context, current v1.Result) (v1.Result, error) {
	h, r, err := c.awaitHeader(ctx, current.ID)
	if err != nil || r.Final() {
		return r, err
	}
	r = outcome.NewFailed(subject.Job{Pipeline: current.Pipeline, ID: current.ID},
		v1.NewProblem(v1.Cancelled, "the job was cancelled when it was %s", current.Status))
	m, err := outcome.Message(ctx, h, r)
	if err != nil {
		return current, err
	}
	first, err := c.publisher.PublishFirst(ctx, m)
	if err != nil {
		return current, err
	}
	if !first {
		return c.awaitOutcome(ctx, current.ID)
	}
	c.jobs.WithLabelValues(string(current.Status)).Inc()
	return r, nil
}

// awaitOutcome returns the outcome of a job that has one. A new leader of RESULTS may not
// have it yet, and then the job seems to be running or unknown. awaitOutcome retries until
// ctx ends.
func (c *canceller) awaitOutcome(ctx context.Context, job string) (v1.Result, error) {
	for attempt := 1; ; attempt++ {
		r, err := c.stateIfKnown(ctx, job)
		if err != nil || r.Final() {
			return r, err
		}
		if err := retry.Sleep(ctx, bus.InFlightBackoff.Delay(attempt)); err != nil {
			return r, fmt.Errorf("cancel %s: wait for the outcome that was first: %w", job, err)
		}
	}
}

// stateIfKnown returns the state of a job. The status is empty when the job is
// unknown.
func (c *canceller) stateIfKnown(ctx context.Context, job string) (v1.Result, error) {
	r, err := c.state(ctx, job)
	var p *v1.Problem
	if errors.As(err, &p) && p.Code == v1.UnknownJob {
		return v1.Result{}, nil
	}
	return r, err
}

// awaitHeader returns the header of a message of a running job, so that the outcome
// reaches the client that waits for it. When the job has ended meanwhile, awaitHeader
// returns its outcome instead. A new leader may have neither yet, so awaitHeader retries
// until ctx ends.
func (c *canceller) awaitHeader(ctx context.Context, job string) (nats.Header, v1.Result, error) {
	for attempt := 1; ; attempt++ {
		m, err := c.findMessage(ctx, job)
		if err != nil {
			return nil, v1.Result{}, err
		}
		if m != nil {
			return m.Header, v1.Result{}, nil
		}
		r, err := c.stateIfKnown(ctx, job)
		if err != nil || r.Final() {
			return nil, r, err
		}
		if err := retry.Sleep(ctx, bus.InFlightBackoff.Delay(attempt)); err != nil {
			return nil, r, fmt.Errorf("cancel %s: look for its message: %w", job, err)
		}
	}
}

// findMessage returns a message of a job from one of the streams, or nil.
func (c *canceller) findMessage(ctx context.Context, job string) (*jetstream.RawStreamMsg, error) {
	for _, p := range jobQueues(job) {
		s, err := c.lookup.js.Stream(ctx, p.stream)
		if err != nil {
			return nil, fmt.Errorf("cancel %s: %w", job, err)
		}
		m, err := s.GetLastMsgForSubject(ctx, p.subjects)
		if err == nil {
			return m, nil
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, fmt.Errorf("cancel %s: %w", job, err)
		}
	}
	return nil, nil
}

// remove deletes the messages of a job from the streams, one by one. A purge by subject
// would make the server forget messages of other jobs that are delivered and not yet
// acknowledged.
func (c *canceller) remove(ctx context.Context, job string) error {
	for _, p := range jobQueues(job) {
		s, err := c.lookup.js.Stream(ctx, p.stream)
		if err != nil {
			return fmt.Errorf("cancel %s: remove it from %s: %w", job, p.stream, err)
		}
		for {
			m, err := s.GetLastMsgForSubject(ctx, p.subjects)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				break
			}
			if err == nil {
				err = s.DeleteMsg(ctx, m.Sequence)
			}
			if err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
				return fmt.Errorf("cancel %s: remove it from %s: %w", job, p.stream, err)
			}
		}
	}
	return nil
}
