package results

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// lookup answers what became of a job.
type lookup struct {
	js  jetstream.JetStream
	log *slog.Logger
	// requests are answered side by side: the service framework calls its
	// handlers one at a time.
	requests errgroup.Group
}

const (
	maxLookups    = 64
	lookupTimeout = 3 * time.Second
)

func newLookup(js jetstream.JetStream, log *slog.Logger) *lookup {
	l := &lookup{js: js, log: log}
	l.requests.SetLimit(maxLookups)
	return l
}

func (l *lookup) register(svc micro.Service) error {
	err := svc.AddEndpoint("lookup", micro.HandlerFunc(func(r micro.Request) {
		l.requests.Go(func() error {
			if err := l.answer(r); err != nil {
				l.log.Warn("cannot answer a lookup", "subject", r.Subject(), "error", err)
			}
			return nil
		})
	}), micro.WithEndpointSubject(subject.Lookup("*")))
	if err != nil {
		return fmt.Errorf("serve lookup: %w", err)
	}
	return nil
}

// wait returns when no request is under way.
func (l *lookup) wait() { _ = l.requests.Wait() } // its functions return no errors

func (l *lookup) answer(r micro.Request) error {
	job, err := subject.ParseLookup(r.Subject())
	if err != nil {
		return bus.RespondProblem(r, v1.NewProblem(v1.UnknownJob, "a job is named by 1 to 64 of A-Z, a-z, 0-9, '_' and '-'"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	body, err := l.find(ctx, job)
	var p *v1.Problem
	switch {
	case errors.As(err, &p):
		return bus.RespondProblem(r, p)
	case err != nil:
		return errors.Join(err, bus.RespondProblem(r, v1.NewProblem(v1.Unavailable, "the state of the job cannot be read now")))
	}
	if err := r.Respond(body); err != nil {
		return fmt.Errorf("respond: %w", err)
	}
	return nil
}

// find gives the answer of a job, or its state while it has none. A job only
// moves forward, so the streams are asked in the order in which it passes
// them, and RESULTS, which is asked first because most questions come late, is
// asked once more at the end.
func (l *lookup) find(ctx context.Context, job string) ([]byte, error) {
	body, err := l.stored(ctx, job)
	if body != nil || err != nil {
		return body, err
	}
	for _, step := range []struct{ stream, subjects string }{
		{streams.Images, subject.Prefix + "images.*.*." + job},
		{streams.Crops, subject.Prefix + "crops.*.*." + job + ".*"},
		{streams.Parts, subject.Prefix + "parts.*." + job + ".*"},
	} {
		r, err := l.inStream(ctx, step.stream, step.subjects, job)
		if err != nil {
			return nil, err
		}
		if r != nil {
			return json.Marshal(r)
		}
	}
	if body, err = l.stored(ctx, job); body != nil || err != nil {
		return body, err
	}
	return nil, v1.NewProblem(v1.UnknownJob, "no job %s: it never was, or its answer is no longer kept", job)
}

func (l *lookup) stored(ctx context.Context, job string) ([]byte, error) {
	s, err := l.js.Stream(ctx, streams.Results)
	if err != nil {
		return nil, fmt.Errorf("look up answer: %w", err)
	}
	m, err := s.GetLastMsgForSubject(ctx, subject.Results("*", job))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up answer: %w", err)
	}
	return m.Data, nil
}

// inStream says whether something of the job waits in a stream, and then
// whether it is queued or being worked on.
func (l *lookup) inStream(ctx context.Context, stream, filter, job string) (*v1.Result, error) {
	s, err := l.js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("look up state: %w", err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return nil, fmt.Errorf("look up state: %w", err)
	}
	for name := range info.State.Subjects {
		r := &v1.Result{ID: job, Status: v1.Running}
		if stream == streams.Parts {
			j, err := subject.ParseParts(name)
			r.Pipeline = j.Pipeline
			return r, err
		}
		if stream == streams.Crops {
			j, err := subject.ParseCrops(name)
			r.Pipeline = j.Pipeline
			return r, err
		}
		j, err := subject.ParseImages(name)
		if err != nil {
			return nil, err
		}
		r.Pipeline = j.Pipeline
		waiting, err := l.waiting(ctx, s, j, name)
		if waiting {
			r.Status = v1.Queued
		}
		return r, err
	}
	return nil, nil
}

// waiting reports whether a picture was not yet taken by a worker.
func (l *lookup) waiting(ctx context.Context, s jetstream.Stream, j subject.Job, name string) (bool, error) {
	c, err := s.Consumer(ctx, streams.WorkConsumer(subject.Detect, j.Pipeline, j.Priority))
	if err != nil {
		return false, fmt.Errorf("look up state: %w", err)
	}
	info := c.CachedInfo()
	switch {
	case info.NumPending == 0:
		return false, nil
	case info.NumAckPending == 0:
		return true, nil
	}
	m, err := s.GetLastMsgForSubject(ctx, name)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil // it was done in this moment
	}
	if err != nil {
		return false, fmt.Errorf("look up state: %w", err)
	}
	return m.Sequence > info.Delivered.Stream, nil
}
