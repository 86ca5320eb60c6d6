package intake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// RetryDelay is the retry delay after a transient problem of the mesh of unknown duration.
const RetryDelay = 5 * time.Second

// A ServerError is an error of the mesh, not of a request. Problem is for the client. Err
// is the reason, for the log. Unwrap returns Problem only, so that the reason is not
// mistaken for an error of the request, such as a timeout of the NATS server for a timeout
// of the request.
type ServerError struct {
	Problem *v1.Problem
	Err     error
}

// Error returns the text of the reason.
func (e *ServerError) Error() string { return e.Err.Error() }

// Unwrap returns the problem.
func (e *ServerError) Unwrap() error { return e.Problem }

// StoreError returns the error for the client when something could not be stored because
// of err: a [*retry.Error] with a [*ServerError]. It returns err itself when err is a
// problem, or when ctx has ended because the client has disconnected.
func StoreError(ctx context.Context, err error) error {
	var p *v1.Problem
	if err == nil || ctx.Err() != nil || errors.As(err, &p) {
		return err
	}
	p = v1.NewProblem(v1.Unavailable, "what you sent could not be stored")
	if errors.Is(err, bus.ErrFull) {
		p = v1.NewProblem(v1.Overloaded, "the queue is full")
	}
	return retry.After(&ServerError{Problem: p, Err: err}, RetryDelay)
}

// UnknownError returns the error for the client when err leaves unknown whether the job or
// report id was stored: a [*retry.Error] with a [*ServerError] whose problem has the ID.
// The client can look up the job or report at address. Other errors are handled by
// [StoreError].
func UnknownError(ctx context.Context, err error, id, address string) error {
	if ctx.Err() != nil || !errors.Is(err, streams.ErrUnknown) {
		return StoreError(ctx, err)
	}
	p := v1.NewProblem(v1.Unavailable, "%s may have been accepted: its acknowledgement did not come. "+
		"GET %s before you send it again", id, address)
	p.Job = id
	return retry.After(&ServerError{Problem: p, Err: err}, RetryDelay)
}

// JobError returns the error for the client when its image is, or may be, the job id: the
// problem of err with the ID. An error without a problem becomes [v1.Unavailable] after a
// timeout, because the outcome of the job is unknown, and otherwise a [*ServerError] with
// [v1.Internal]. JobError returns err itself when the client has disconnected.
func JobError(err error, id string) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = v1.NewProblem(v1.Unavailable, "no outcome came in time: look it up later")
	}
	return changeProblem(err, func(p *v1.Problem) { p.Job = id })
}

// DrawError returns the error for the client when a job is done but its image was not
// drawn because of err. It is like [JobError], with a detail that says so, and with
// [v1.DeadlineExceeded] after a timeout.
func DrawError(err error, id string) error {
	return changeProblem(err, func(p *v1.Problem) {
		p.Job = id
		p.Detail = fmt.Sprintf(
			"the job is done, and GET /v1/images/%s has its result, but its image was not drawn: %s", id, p.Detail)
	})
}

// ImagesError returns the error for the client when a report was not accepted because of
// err, but some of its images are jobs, or may be: the problem of err as in [JobError],
// with these images. It returns err itself when there are none.
func ImagesError(err error, images []v1.ProblemImage) error {
	if len(images) == 0 {
		return err
	}
	return changeProblem(err, func(p *v1.Problem) {
		p.Images = images
		p.Detail += fmt.Sprintf(". %d images of the report were accepted, or may have been: "+
			"look up each of them before you send it again", len(images))
	})
}

// changeProblem returns err with a copy of its problem that change has modified.
func changeProblem(err error, change func(*v1.Problem)) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var p *v1.Problem
	var s *ServerError
	var reason error
	switch {
	case errors.As(err, &s):
		p, reason = s.Problem, s.Err
	case errors.As(err, &p):
	case errors.Is(err, context.DeadlineExceeded):
		p = v1.NewProblem(v1.DeadlineExceeded, "no drawn image came in time")
	default:
		p, reason = v1.NewProblem(v1.Internal, "the log has the reason under this trace id"), err
	}
	changed := *p
	change(&changed)
	var out error = &changed
	if reason != nil {
		out = &ServerError{Problem: &changed, Err: reason}
	}
	if after, ok := retry.Delay(err); ok {
		out = retry.After(out, after)
	}
	return out
}
