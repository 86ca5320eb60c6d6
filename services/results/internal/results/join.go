package results

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/outcome"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// join returns the result of a job when the delivery is of the part that
// completes it.
//
// The process that handles the part which was stored last sees all of them, so
// that one replica at least finds the job complete. When two do, the stream
// keeps the result that was first. What both miss, because a new leader of the
// stream was asked that had not seen the last part yet, the sweeper finds.
func (s *Service) join(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	var part v1.Part
	if err := json.Unmarshal(d.Body, &part); err != nil {
		return nil, consume.Drop(fmt.Errorf("decode part: %w", err))
	}
	if d.Job.Part >= part.Parts {
		return nil, consume.Drop(fmt.Errorf("part %d says that there are %d", d.Job.Part, part.Parts))
	}
	stream, err := s.js.Stream(ctx, streams.Parts)
	if err != nil {
		return nil, fmt.Errorf("count parts: %w", err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subject.PartsOf(d.Job)))
	if err != nil {
		return nil, fmt.Errorf("count parts: %w", err)
	}
	if len(info.State.Subjects) < part.Parts {
		return nil, nil // a later part completes the job, or it is joined already
	}
	parts, complete, err := readParts(ctx, stream, d.Job, part.Parts)
	if err != nil || !complete {
		return nil, err
	}
	m, err := s.joinResult(ctx, d.Job, d.Header, parts)
	if err != nil {
		return nil, err
	}
	d.Then(func(ctx context.Context) { s.deleteParts(ctx, stream, parts.sequences) })
	return []bus.Message{m}, nil
}

// joinResult returns the result of a job from all of its parts. h is the header of
// one of them.
func (s *Service) joinResult(ctx context.Context, job subject.Job, h nats.Header, parts storedParts) (bus.Message, error) {
	p, ok := s.pipelines[job.Pipeline]
	if !ok {
		p = pipeline.Pipeline{Name: job.Pipeline}
	}
	result := outcome.Join(job.ID, p, parts.parts)
	joinTime := time.Since(parts.first)
	result.Timings.Join = max(0, v1.Milliseconds(joinTime))
	telemetry.Observe(ctx, s.joins, joinTime.Seconds())
	return outcome.Message(ctx, h, result)
}

// failJoin returns the result of a job whose parts cannot be joined.
func failJoin(ctx context.Context, d *consume.Delivery, p *v1.Problem) ([]bus.Message, error) {
	m, err := outcome.Message(ctx, d.Header, outcome.Failed(d.Job, p))
	return []bus.Message{m}, err
}

// storedParts are the parts of a job as they are stored.
type storedParts struct {
	parts     []v1.Part
	sequences []uint64
	header    nats.Header // of one of them
	first     time.Time   // when the first of them was stored
}

// readParts reads the n parts of a job. They are complete if all are there, as
// they are until a replica has joined them, and are of one detection.
//
// An image that is delivered again is detected again. When the model of detect
// changed between the two deliveries, as in a rolling update, the regions differ,
// and so may the number of parts. If the first worker died before it had stored
// all crops, those that it stored remain, because the crops of the second have
// the same message IDs, and the other crops are those of the second. Joined,
// they would be a result that no model gave. Such a job has until its deadline: a
// part that is stored again after the dedupe window may still complete the set.
func readParts(ctx context.Context, stream jetstream.Stream, job subject.Job, n int) (
	out storedParts, complete bool, err error,
) {
	out.parts, out.sequences = make([]v1.Part, n), make([]uint64, n)
	var sha256 string
	for i := range n {
		job.Part = i
		raw, err := stream.GetLastMsgForSubject(ctx, subject.Parts(job))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return out, false, nil
		}
		if err != nil {
			return out, false, fmt.Errorf("read part %d: %w", i, err)
		}
		part := &out.parts[i]
		if json.Unmarshal(raw.Data, part) != nil {
			return out, false, nil //nolint:nilerr // it is no part, and will be none
		}
		sha256 = cmp.Or(sha256, part.Image.SHA256)
		if part.Parts != n || cmp.Or(part.Image.SHA256, sha256) != sha256 {
			return out, false, nil
		}
		out.sequences[i], out.header = raw.Sequence, raw.Header
		if out.first.IsZero() || raw.Time.Before(out.first) {
			out.first = raw.Time
		}
	}
	return out, true, nil
}

// deleteParts deletes the parts of a job whose result is stored, one by one:
// a purge by subject makes the server forget messages of other jobs that have
// been delivered and not yet acknowledged. Parts that cannot be deleted end by
// their age.
func (s *Service) deleteParts(ctx context.Context, stream jetstream.Stream, sequences []uint64) {
	for _, seq := range sequences {
		if err := stream.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
			s.log.WarnContext(ctx, "cannot delete a joined part", "sequence", seq, "error", err)
			return
		}
	}
}
