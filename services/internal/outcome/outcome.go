// Package outcome makes the result of a job, done or failed, from its parts. It is
// pure. Every stage that can end a job uses it, so that results have the same form
// wherever the job ended.
package outcome

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// Join returns the result of a job of pipeline p from all of its parts, in any order.
// A job without regions has one part without regions. When a part has failed, the
// result has status failed, the problem of the first such part, and the regions of the
// other parts.
func Join(job string, p pipeline.Pipeline, parts []v1.Part) v1.Result {
	r := v1.Result{ID: job, Pipeline: p.Name, Status: v1.Done, Timings: &v1.Timings{}}
	var regions []v1.PartRegion
	parts = slices.SortedFunc(slices.Values(parts), func(a, b v1.Part) int { return cmp.Compare(a.Part, b.Part) })
	for i, part := range parts {
		if i == 0 {
			image := part.Image
			r.Image = &image
		}
		regions = append(regions, part.Regions...)
		for _, m := range part.Models {
			if !slices.Contains(r.Models, m) {
				r.Models = append(r.Models, m)
			}
		}
		mergeTimings(r.Timings, part.Timings)
		if part.Problem != nil && r.Problem == nil {
			r.Status, r.Problem = v1.Failed, part.Problem
		}
	}
	slices.SortFunc(regions, func(a, b v1.PartRegion) int { return cmp.Compare(a.Number, b.Number) })
	r.Regions = make([]v1.Region, 0, len(regions))
	var text strings.Builder
	for _, reg := range regions {
		r.Regions = append(r.Regions, reg.Region)
		if reg.Text != "" {
			text.WriteString(reg.Text + "\n")
		}
	}
	if p.Text {
		s := text.String()
		r.Text = &s
	}
	return r
}

// mergeTimings sets each time of t to the maximum of t and of. Parts are processed
// concurrently, and the client waits for the slowest.
func mergeTimings(t *v1.Timings, of v1.Timings) {
	t.Queue = max(t.Queue, of.Queue)
	t.Decode = max(t.Decode, of.Decode)
	t.Detect = max(t.Detect, of.Detect)
	t.Classify = max(t.Classify, of.Classify)
}

// NewFailed returns the result of a job that failed with p. A detail longer than
// [v1.MaxDetail], as in a message of an earlier version, is cut.
func NewFailed(job subject.Job, p *v1.Problem) v1.Result {
	if len(p.Detail) > v1.MaxDetail {
		short := *p
		short.Detail = strings.ToValidUTF8(p.Detail[:v1.MaxDetail], "")
		p = &short
	}
	return v1.Result{ID: job.ID, Pipeline: job.Pipeline, Status: v1.Failed, Problem: p}
}

// Message returns the RESULTS message of a result. h is the header of the message
// that led to the result. The result gets the trace ID of ctx and the metadata of the
// client from h. The message is stored once: a job keeps its first outcome. The error
// is a [*v1.Problem] when the result is too large, because other messages must hold it
// too, such as a webhook.
func Message(ctx context.Context, h nats.Header, r v1.Result) (bus.Message, error) {
	r.TraceID = trace.SpanContextFromContext(ctx).TraceID().String()
	if m := h.Get(v1.HeaderMetadata); m != "" {
		if err := json.Unmarshal([]byte(m), &r.Metadata); err != nil {
			r.Metadata = nil // invalid metadata of a client does not lose the result
		}
	}
	body, err := json.Marshal(r)
	if err != nil {
		return bus.Message{}, fmt.Errorf("encode the result of %s: %w", r.ID, err)
	}
	if len(body) > streams.MaxMessage {
		return bus.Message{}, v1.NewProblem(v1.Internal, "the result of %s has %d bytes, more than a message may have",
			r.ID, len(body)).
			WithLimit(streams.MaxMessage)
	}
	return bus.Message{
		Subject: subject.Results(r.Pipeline, r.ID), Stream: streams.Results,
		ID: v1.MsgID(r.ID, v1.MsgResults), Header: bus.CopyHeaders(h), Body: body, Once: true,
	}, nil
}
