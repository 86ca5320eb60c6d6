package intake

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/outcome"
)

// Store stores an image for whose result no request waits, such as one of a
// report. The request has an ID and an image, which the caller has inspected
// and admitted. [StoreError] makes an error for a client of those of Store.
func (i *Intake) Store(ctx context.Context, r Request) error { return i.publish(ctx, &r, r.ID, "") }

// publish makes the job with this ID of a request. reply is where to send the
// result; empty for nowhere.
func (i *Intake) publish(ctx context.Context, r *Request, id, reply string) error {
	h, err := r.headers()
	if err != nil {
		return err
	}
	now := i.cfg.Clock.Now().UTC()
	deadline := r.Deadline
	if deadline.IsZero() {
		deadline = now.Add(r.Pipeline.JobDeadline(r.priority()))
	}
	h.Set(v1.HeaderAccepted, now.Format(time.RFC3339Nano))
	h.Set(v1.HeaderDeadline, deadline.UTC().Format(time.RFC3339Nano))
	if reply != "" {
		h.Set(v1.HeaderReply, reply)
	}
	return i.Publish(ctx, bus.Message{
		Subject: subject.Images(subject.Job{Pipeline: r.Pipeline.Name, Priority: r.priority(), ID: id}),
		Stream:  streams.Images, ID: v1.MsgID(id, v1.MsgImages), Header: h, Body: r.Image, Deadline: deadline,
	})
}

// NewFailure returns the result of an image that cannot be a job: that of the job
// that it would have been. The request has an ID.
func NewFailure(ctx context.Context, r Request, p *v1.Problem) (bus.Message, error) {
	h, err := r.headers()
	if err != nil {
		return bus.Message{}, err
	}
	return outcome.Message(ctx, h, outcome.Failed(subject.Job{Pipeline: r.Pipeline.Name, ID: r.ID}, p))
}

// StoreFailure stores the result of an image that cannot be a job.
func (i *Intake) StoreFailure(ctx context.Context, r Request, p *v1.Problem) error {
	m, err := NewFailure(ctx, r, p)
	if err != nil {
		return err
	}
	return i.Publish(ctx, m)
}

// Publish stores m. While the acknowledgement does not come, Publish stores m
// again, for some seconds: the stream keeps one message of its ID. The error
// wraps [streams.ErrUnknown] when it stays unknown whether m is stored; another
// error says that it is not.
func (i *Intake) Publish(ctx context.Context, m bus.Message) error {
	err := streams.RetryUnknown(ctx, bus.IsUnknown, func(ctx context.Context) error { return i.cfg.Publisher.Publish(ctx, m) })
	if err == nil || ctx.Err() == nil {
		i.cfg.Admission.RecordPublish(err)
	}
	return err
}

// headers returns the headers that say what the client wants besides the
// result.
func (r *Request) headers() (nats.Header, error) {
	h := nats.Header{}
	if len(r.Metadata) > 0 {
		m, err := json.Marshal(r.Metadata)
		if err != nil {
			return nil, fmt.Errorf("encode metadata: %w", err)
		}
		h.Set(v1.HeaderMetadata, string(m))
	}
	if r.WebhookURL != "" {
		h.Set(v1.HeaderCallback, r.WebhookURL)
	}
	if r.Report != nil {
		h.Set(v1.HeaderReport, r.Report.String())
	}
	return h, nil
}
