package results

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/codes"

	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/answer"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// join publishes the answer of a job when m is the part that completes it.
//
// Whoever handles the part that was stored last sees all of them, so that one
// replica at least finds the job complete. When two do, both publish the same
// answer with the same message id, and the stream keeps one.
func (s *Service) join(ctx context.Context, m jetstream.Msg) {
	taken, err := take(m, subject.ParseParts)
	if err != nil {
		s.drop(m, err)
		return
	}
	var part v1.Part
	if err := json.Unmarshal(m.Data(), &part); err != nil {
		s.drop(m, fmt.Errorf("decode part: %w", err))
		return
	}
	ctx, span := bus.StartProcess(ctx, s.tracer, taken)
	defer span.End()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := s.complete(ctx, taken.Job, part.Parts, m.Headers()); err != nil {
		span.SetStatus(codes.Error, err.Error())
		s.log.WarnContext(ctx, "cannot join yet", "error", err)
		s.again(m)
		return
	}
	s.done(m)
}

func (s *Service) complete(ctx context.Context, job subject.Job, want int, h nats.Header) error {
	stream, err := s.js.Stream(ctx, streams.Parts)
	if err != nil {
		return fmt.Errorf("count parts: %w", err)
	}
	all := subject.Parts(subject.Job{Pipeline: job.Pipeline, ID: job.ID})
	all = all[:len(all)-1] + "*"
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(all))
	if err != nil {
		return fmt.Errorf("count parts: %w", err)
	}
	if len(info.State.Subjects) < want {
		return nil // a later part completes the job, or it is joined already
	}
	parts, first, err := fetch(ctx, stream, job, want)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil // another replica has joined them meanwhile
	}
	if err != nil {
		return err
	}
	p, ok := s.pipelines[job.Pipeline]
	if !ok {
		p = pipeline.Pipeline{Name: job.Pipeline}
	}
	result := answer.Join(job.ID, p, parts)
	took := time.Since(first)
	result.Timings.Join = max(0, v1.Milliseconds(took))
	msg, err := answer.Message(ctx, h, result)
	if err != nil {
		return err
	}
	if err := s.publisher.Publish(ctx, msg); err != nil {
		return err
	}
	telemetry.Observe(ctx, s.joins, took.Seconds())
	// What is left behind when this fails ends by its age.
	if err := stream.Purge(ctx, jetstream.WithPurgeSubject(all)); err != nil {
		s.log.WarnContext(ctx, "cannot remove joined parts", "error", err)
	}
	return nil
}

// fetch reads the parts of a job and says when the first was stored.
func fetch(ctx context.Context, stream jetstream.Stream, job subject.Job, n int) ([]v1.Part, time.Time, error) {
	parts := make([]v1.Part, n)
	var first time.Time
	for i := range parts {
		job.Part = i
		raw, err := stream.GetLastMsgForSubject(ctx, subject.Parts(job))
		if err != nil {
			return nil, first, fmt.Errorf("read part %d: %w", i, err)
		}
		if err := json.Unmarshal(raw.Data, &parts[i]); err != nil {
			return nil, first, fmt.Errorf("decode part %d: %w", i, err)
		}
		if first.IsZero() || raw.Time.Before(first) {
			first = raw.Time
		}
	}
	return parts, first, nil
}
