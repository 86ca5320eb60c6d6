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

// Store stores an image for whose result no request waits, such as an image of a report.
// The request has an ID and an image that the caller has inspected and admitted.
// [StoreError] converts the errors of Store for clients.
func (i *Intake) Store(ctx context.Context, r Request) error { return i.publish(ctx, &r, r.ID, "") }

// publish publishes the job id of a request. reply is the subject for the result; "" means
// none.
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

// NewFailure returns the message with the failed result of an image that cannot be a job.
// The request has an ID.
func NewFailure(ctx context.Context, r Request, p *v1.Problem) (bus.Message, error) {
	h, err := r.headers()
	if err != nil {
		return bus.Message{}, err
	}
	return outcome.Message(ctx, h, outcome.NewFailed(subject.Job{Pipeline: r.Pipeline.Name, ID: r.ID}, p))
}

// StoreFailure stores the failed result of an image that cannot be a job.
func (i *Intake) StoreFailure(ctx context.Context, r Request, p *v1.Problem) error {
	m, err := NewFailure(ctx, r, p)
	if err != nil {
		return err
	}
	return i.Publish(ctx, m)
}

// Publish stores m. When the acknowledgement is missing, Publish stores m again for some
// seconds; the stream keeps one message for each ID. The error wraps [streams.ErrUnknown]
// when it remains unknown whether m is stored. After any other error m is not stored.
func (i *Intake) Publish(ctx context.Context, m bus.Message) error {
	err := streams.RetryUnknown(ctx, bus.IsUnknown,
		func(ctx context.Context) error { return i.cfg.Publisher.Publish(ctx, m) })
	if err == nil || ctx.Err() == nil {
		i.cfg.Admission.RecordPublish(err)
	}
	return err
}

// headers returns the headers for metadata, webhook and report.
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
