package results

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/answer"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// cancel ends jobs that nobody wants any more. The failure is the job's
// answer, stored under the message id that every answer of the job has, so
// that one of several outcomes counts; what waits in the streams is removed,
// and the workers are told, who drop what they have.
type cancel struct {
	conn      *nats.Conn
	lookup    *lookup
	publisher *bus.Publisher
	jobs      *prometheus.CounterVec
}

func newCancel(nc *nats.Conn, l *lookup, p *bus.Publisher, f promauto.Factory) *cancel {
	return &cancel{conn: nc, lookup: l, publisher: p, jobs: f.NewCounterVec(prometheus.CounterOpts{
		Name: "sightmesh_cancelled_jobs_total", Help: "Jobs that were cancelled, by where they were: queued or running.",
	}, []string{"was"})}
}

func (c *cancel) register(svc micro.Service) error {
	return c.lookup.serve(svc, "cancel", subject.Cancel("*"), func(ctx context.Context, s string) ([]byte, error) {
		job, err := subject.ParseCancel(s)
		if err != nil {
			return nil, errNoJob()
		}
		return c.do(ctx, job)
	})
}

func (c *cancel) do(ctx context.Context, job string) ([]byte, error) {
	was, err := c.state(ctx, job)
	if err != nil {
		return nil, err
	}
	now := was
	if !was.Final() {
		if err := c.end(ctx, was); err != nil {
			return nil, err
		}
		if now, err = c.state(ctx, job); err != nil {
			return nil, err
		}
		c.jobs.WithLabelValues(string(was.Status)).Inc()
	}
	if now.Problem == nil || now.Problem.Code != v1.Cancelled {
		return nil, v1.NewProblem(v1.JobFinished, "job %s was done before it could be cancelled", job)
	}
	if err := c.conn.Publish(subject.Cancelled(job), nil); err != nil {
		return nil, fmt.Errorf("cancel %s: tell the workers: %w", job, err)
	}
	if err := c.remove(ctx, job); err != nil {
		return nil, err
	}
	return json.Marshal(v1.Cancellation{ID: job, Was: was.Status, Status: now.Status})
}

func (c *cancel) state(ctx context.Context, job string) (v1.Result, error) {
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

// end stores the failure as the answer.
func (c *cancel) end(ctx context.Context, r v1.Result) error {
	h, err := c.header(ctx, r.ID)
	if err != nil {
		return err
	}
	m, err := answer.Message(ctx, h, answer.Failed(subject.Job{Pipeline: r.Pipeline, ID: r.ID},
		v1.NewProblem(v1.Cancelled, "the job was cancelled when it was %s", r.Status)))
	if err != nil {
		return err
	}
	return c.publisher.Publish(ctx, m)
}

// header gives what travels with the job, so that its answer reaches whoever
// waits for it.
func (c *cancel) header(ctx context.Context, job string) (nats.Header, error) {
	for _, p := range places(job) {
		s, err := c.lookup.js.Stream(ctx, p.stream)
		if err != nil {
			return nil, fmt.Errorf("cancel %s: %w", job, err)
		}
		m, err := s.GetLastMsgForSubject(ctx, p.subjects)
		if err == nil {
			return m.Header, nil
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, fmt.Errorf("cancel %s: %w", job, err)
		}
	}
	return nil, nil
}

// remove deletes what waits in the streams, message by message: a purge by
// subject makes the server forget messages of other jobs that have been
// delivered and not yet acknowledged.
func (c *cancel) remove(ctx context.Context, job string) error {
	for _, p := range places(job) {
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
