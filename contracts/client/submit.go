package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// retryDelay is how long to wait after a temporary problem.
const retryDelay = 5 * time.Second

// Submit stores an image as a new job and returns when the server has acknowledged it.
// It does not use ingress, so the image is not checked and the job is not rejected when
// the queue is long; Submit is for bulk work. The limits of an ingress for metadata
// and webhooks do not apply. When the headers of the job have more than 32 KiB, the mesh
// leaves out the longest. Errors are those of [Client.SubmitJob]. The ID is empty when
// nothing was accepted.
func (c *Client) Submit(
	ctx context.Context, pipeline string, priority subject.Priority, image []byte, opts ...SubmitOption,
) (id string, err error) {
	job := subject.Job{Pipeline: pipeline, Priority: priority, ID: rand.Text()}
	err = c.SubmitJob(ctx, job, image, opts...)
	var p *v1.Problem
	if err != nil && (!errors.As(err, &p) || p.Job == "") {
		return "", err
	}
	return job.ID, err
}

// SubmitJob is Submit for a job with an ID of the caller. A job that is submitted again
// within two minutes, such as after a crash of the caller, stays one job. SubmitJob
// ignores job.Part.
//
// Until it has an acknowledgement, SubmitJob publishes the image again with the same ID,
// as ingress does: it waits 1.5 s for each acknowledgement, and 6 s in total or until
// ctx ends. If it is then unknown whether the image is stored, the error wraps a
// [*v1.Problem] with the ID of the job, which may have been accepted. An error without
// an ID is returned immediately and means that nothing was accepted.
func (c *Client) SubmitJob(ctx context.Context, job subject.Job, image []byte, opts ...SubmitOption) error {
	h, err := newSubmitHeader(opts)
	switch {
	case err != nil:
		return err
	case !subject.ValidJob(job.ID):
		return newInvalidIDProblem()
	case ctx.Err() != nil:
		return fmt.Errorf("submit %s: nothing was accepted: %w", job.ID, ctx.Err())
	case c.nc.IsClosed():
		return newRejectedError(nats.ErrConnectionClosed)
	}
	h.Set(v1.HeaderAccepted, time.Now().UTC().Format(time.RFC3339Nano))
	injectTrace(ctx, h)
	m := &nats.Msg{Subject: subject.Images(job), Header: h, Data: image}
	err = streams.RetryUnknown(ctx, streams.IsUnknown, func(ctx context.Context) error {
		_, err := c.js.PublishMsg(ctx, m,
			jetstream.WithMsgID(v1.MsgID(job.ID, v1.MsgImages)), jetstream.WithExpectStream(streams.Images))
		return err //nolint:wrapcheck // it is wrapped below
	})
	switch {
	case errors.Is(err, streams.ErrUnknown):
		return newUnknownError(job.ID, err)
	case err != nil:
		return newRejectedError(err)
	}
	return nil
}

// newRejectedError returns the error of an image that was not stored because of err.
func newRejectedError(err error) error {
	switch {
	case streams.IsTooLarge(err):
		return v1.NewProblem(v1.TooLarge, "the image is larger than a message may be: nothing was accepted")
	case streams.IsFull(err):
		return retry.After(v1.NewProblem(v1.Overloaded, "the queue is full: nothing was accepted"), retryDelay)
	}
	return retry.After(fmt.Errorf("%w: %w", v1.NewProblem(v1.Unavailable, "nothing was accepted"), err), retryDelay)
}

// newUnknownError returns the error of a job whose acknowledgement did not come because
// of err.
func newUnknownError(id string, err error) error {
	p := v1.NewProblem(v1.Unavailable, "%s may have been accepted: its acknowledgement did not come. "+
		"Look it up before you send it again", id)
	p.Job = id
	return retry.After(fmt.Errorf("%w: %w", p, err), retryDelay)
}
