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

// join returns the result of a job when the delivery has the part that completes it.
//
// The replica that processes the part that was stored last sees all parts, so that at
// least one replica finds the job complete. When two replicas do, the stream keeps the
// first result. When a new leader of the stream did not have the last part yet and no
// replica finds the job complete, the sweeper joins it.
func (s *Service) join(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	var part v1.Part
	if err := json.Unmarshal(d.Body, &part); err != nil {
		return nil, consume.Drop(fmt.Errorf("decode part: %w", err))
	}
	if d.Job.Part >= part.Parts {
		return nil, consume.Drop(fmt.Errorf("part %d has parts: %d, want more than its number", d.Job.Part, part.Parts))
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
		return nil, nil // a later part completes the job, or it is already joined
	}
	parts, complete, err := readParts(ctx, stream, d.Job, part.Parts)
	if err != nil || !complete {
		return nil, err
	}
	m, err := s.joinResult(ctx, d.Job, d.Header, parts)
	if err != nil {
		return nil, err
	}
	d.OnStored(func(ctx context.Context) { s.deleteParts(ctx, stream, parts.sequences) })
	return []bus.Message{m}, nil
}

// joinResult returns the RESULTS message of a job from all of its parts. h is the header
// of one of the parts.
func (s *Service) joinResult(
	ctx context.Context, job subject.Job, h nats.Header, parts storedParts,
) (bus.Message, error) {
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

// failJoin returns the RESULTS message of a job whose parts cannot be joined.
func failJoin(ctx context.Context, d *consume.Delivery, p *v1.Problem) ([]bus.Message, error) {
	m, err := outcome.Message(ctx, d.Header, outcome.NewFailed(d.Job, p))
	return []bus.Message{m}, err
}

// storedParts has the stored parts of a job.
type storedParts struct {
	parts     []v1.Part
	sequences []uint64
	header    nats.Header // of one of the parts
	first     time.Time   // when the first part was stored
}

// readParts reads the n parts of a job. They are complete when all parts exist and are
// of one detection. Parts exist until a replica has joined them.
//
// A redelivered image is detected again. When the model of detect changed between the
// two deliveries, for example in a rolling update, the regions and the number of parts
// may differ. When the first worker died before it had stored all crops, the stream keeps
// those crops, because the crops of the second worker have the same message IDs, and has
// the remaining crops of the second worker. To join them would give a result of no model.
// Such a job is not joined until its deadline: a part that is stored again after the
// dedupe window may still complete the set.
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
			return out, false, nil //nolint:nilerr // it is not a part, and never will be
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

// deleteParts deletes the parts of a job whose result is stored, one by one. A purge by
// subject would make the server forget messages of other jobs that are delivered and not
// yet acknowledged. The stream deletes parts that remain at their maximum age.
func (s *Service) deleteParts(ctx context.Context, stream jetstream.Stream, sequences []uint64) {
	for _, seq := range sequences {
		if err := stream.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
			s.log.WarnContext(ctx, "cannot delete a joined part", "sequence", seq, "error", err)
			return
		}
	}
}
