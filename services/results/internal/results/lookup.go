package results

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/regionfilter"
	"github.com/sightmesh/sightmesh/services/internal/requestfields"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// lookup returns the state or the result of a job on request.
type lookup struct {
	js  jetstream.JetStream
	log *slog.Logger
	// requests are served concurrently, because an endpoint gets one at a time.
	requests errgroup.Group
}

const (
	maxLookups    = 64
	lookupTimeout = 3 * time.Second
)

// lookupHeaders lists the headers of a look-up, without those of its trace.
var lookupHeaders = slices.Sorted(maps.Keys(regionfilter.Headers()))

func newLookup(js jetstream.JetStream, log *slog.Logger) *lookup {
	l := &lookup{js: js, log: log}
	l.requests.SetLimit(maxLookups)
	return l
}

func (l *lookup) register(svc *bus.Service) error {
	return l.serve(svc, "lookup", subject.AllLookup(), "result", func(ctx context.Context, m *nats.Msg) ([]byte, error) {
		job, err := subject.ParseLookup(m.Subject)
		if err != nil {
			return nil, newInvalidJobProblem()
		}
		if err := requestfields.CheckHeaders(m.Header, lookupHeaders); err != nil {
			return nil, err
		}
		filter, err := regionfilter.ParseHeader(m.Header)
		if err != nil {
			return nil, err
		}
		body, err := l.find(ctx, job)
		if err != nil || filter.IsZero() {
			return body, err
		}
		var r v1.Result
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, fmt.Errorf("filter the result: %w", err)
		}
		return json.Marshal(filter.Apply(r))
	})
}

func newInvalidJobProblem() *v1.Problem {
	return v1.NewProblem(v1.UnknownJob, "a job is named by 1 to 64 of A-Z, a-z, 0-9, '_' and '-'")
}

// serve adds an endpoint that replies with what f returns. schema is that of the
// replies.
func (l *lookup) serve(
	svc *bus.Service, name, subj, schema string, f func(context.Context, *nats.Msg) ([]byte, error),
) error {
	return svc.AddEndpoint(bus.Endpoint{
		Name: name, Subject: subj,
		Metadata: map[string]string{
			"response_schema": v1.SchemaID(schema), "problem_schema": v1.SchemaID("problem"),
			"requests": strconv.Itoa(maxLookups),
		},
		Handle: func(r *bus.Request) {
			l.requests.Go(func() error {
				if err := respond(r, f); err != nil {
					l.log.Warn("cannot reply", "subject", r.Msg.Subject, "error", err)
				}
				return nil
			})
		},
	})
}

// wait returns when no request is in progress.
func (l *lookup) wait() { _ = l.requests.Wait() } // its functions return no errors

func respond(r *bus.Request, f func(context.Context, *nats.Msg) ([]byte, error)) error {
	ctx, cancel := context.WithTimeout(telemetry.Extract(context.Background(), r.Msg.Header), lookupTimeout)
	defer cancel()
	body, err := f(ctx, r.Msg)
	var p *v1.Problem
	switch {
	case errors.As(err, &p):
		return r.RespondProblem(p, nil)
	case err != nil:
		return errors.Join(err, r.RespondProblem(
			v1.NewProblem(v1.Unavailable, "the state of the job cannot be read now"), nil))
	}
	return r.Respond(body, nil)
}

// queue is a stream, and the subjects in it, where messages of a job can wait.
type queue struct{ stream, subjects string }

// jobQueues returns the queues in the order in which a job passes them.
func jobQueues(job string) []queue {
	return []queue{
		{streams.Fetches, subject.FetchesOfJob(job)},
		{streams.Images, subject.ImagesOfJob(job)},
		{streams.Crops, subject.CropsOfJob(job)},
		{streams.Parts, subject.PartsOfJob(job)},
	}
}

// find returns the result of a job, or its state while it has none. A job only moves
// forward, so find reads the streams in the order in which a job passes them. It reads
// RESULTS first, because most requests come after the end of the job, and once more at the
// end.
func (l *lookup) find(ctx context.Context, job string) ([]byte, error) {
	body, err := l.readResult(ctx, job)
	if body != nil || err != nil {
		return body, err
	}
	for _, p := range jobQueues(job) {
		r, err := l.stateInStream(ctx, p.stream, p.subjects, job)
		if err != nil {
			return nil, err
		}
		if r != nil {
			return json.Marshal(r)
		}
	}
	if body, err = l.readResult(ctx, job); body != nil || err != nil {
		return body, err
	}
	return nil, v1.NewProblem(v1.UnknownJob, "no job %s: it never was, or its answer is no longer kept", job)
}

func (l *lookup) readResult(ctx context.Context, job string) ([]byte, error) {
	s, err := l.js.Stream(ctx, streams.Results)
	if err != nil {
		return nil, fmt.Errorf("look up result: %w", err)
	}
	m, err := s.GetLastMsgForSubject(ctx, subject.Results("*", job))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look up result: %w", err)
	case m.Header.Get(v1.HeaderMarker) != "":
		return nil, v1.NewProblem(v1.JobExpired, "the answer of job %s was kept for its time", job)
	case m.Header.Get(v1.HeaderCallback) == "":
		return m.Data, nil
	}
	var r v1.Result
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return nil, fmt.Errorf("look up result: %w", err)
	}
	if r.Callback, err = l.webhookState(ctx, job); err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// webhookState returns the state of the webhook of a job.
func (l *lookup) webhookState(ctx context.Context, job string) (*v1.Callback, error) {
	c := &v1.Callback{State: v1.WebhookPending}
	_, err := bus.ReadLast(ctx, l.js, streams.Jobs, subject.CallbackState(job), c)
	return c, err
}

// stateInStream returns the state of a job, queued or running, when the stream has a
// message of the job, or else nil.
func (l *lookup) stateInStream(ctx context.Context, stream, filter, job string) (*v1.Result, error) {
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
		if stream == streams.Fetches {
			j, err := subject.ParseFetches(name)
			r.Pipeline, r.Status = j.Pipeline, v1.Queued
			return r, err
		}
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
		waiting, err := l.isQueued(ctx, s, j, name)
		if waiting {
			r.Status = v1.Queued
		}
		return r, err
	}
	return nil, nil
}

// isQueued reports whether an image is not yet delivered to a worker. An image without a
// consumer, for example of a pipeline that is not set up, is queued.
func (l *lookup) isQueued(ctx context.Context, s jetstream.Stream, j subject.Job, name string) (bool, error) {
	c, err := s.Consumer(ctx, streams.WorkConsumer(subject.Detect, j.Pipeline, j.Priority))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up state: %w", err)
	}
	info := c.CachedInfo()
	if info.NumPending > 0 && info.NumAckPending == 0 {
		return true, nil
	}
	// The number of pending messages lags behind the stream: it can be 0 when a message
	// was stored a moment ago.
	m, err := s.GetLastMsgForSubject(ctx, name)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil // it has just been processed
	}
	if err != nil {
		return false, fmt.Errorf("look up state: %w", err)
	}
	return m.Sequence > info.Delivered.Stream, nil
}
