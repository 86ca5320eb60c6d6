package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// A Job is an accepted image.
type Job struct {
	ID string
	// Pipeline is the name of its pipeline.
	Pipeline string
	// Status is the status of the job when it was submitted or found.
	Status v1.Status

	intake *Intake
	// reply receives the result. It is nil for a job that another request has submitted.
	reply <-chan *nats.Msg
	// hasOtherReference is whether a key or a webhook gives access to the job, so that it
	// is useful without the waiting client.
	hasOtherReference bool
	// unknown is the error when the job may not be stored; nil for a stored job.
	unknown error
}

// Unknown returns nil for an accepted job. When it is unknown whether the job was accepted,
// Unknown returns the error of [UnknownError], which is for the client unless the job is
// found later.
func (j *Job) Unknown() error { return j.unknown }

// Close stops receiving the reply of the job. The job continues.
func (j *Job) Close() {
	if j.reply != nil {
		j.intake.inbox.unregister(j.ID)
	}
}

// abandonTimeout is the time limit for the results service to cancel a job.
const abandonTimeout = 5 * time.Second

// Abandon cancels the job of a client that disconnected before it got the ID of the job,
// even when ctx has ended. A job with a key or a webhook continues, because clients can
// still get its result. When the process stops, every job continues, because then the
// connection may have ended for another reason.
func (j *Job) Abandon(ctx context.Context) {
	if j.hasOtherReference || j.intake.cfg.Stopping.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
	defer cancel()
	var p *v1.Problem
	// A problem means that there is nothing to cancel, such as a job that is done.
	if _, err := j.intake.cfg.Client.Cancel(ctx, j.ID); err != nil && !errors.As(err, &p) {
		j.intake.cfg.Logger.WarnContext(ctx, "cannot cancel the job of a client that has disconnected", "error", err)
	}
}

// Wait returns the result of the job. When ctx ends first, Wait returns the state of the
// job and the error of ctx, or the error of [Job.Unknown] when the job may not have been
// accepted and is not found. Every problem, of a result or of an error, has the ID of the
// job.
func (j *Job) Wait(ctx context.Context) (v1.Result, error) {
	r, err := j.wait(ctx)
	trace.SpanFromContext(ctx).SetAttributes(resultAttributes(r)...)
	if r.Problem != nil {
		r.Problem.Job = j.ID
	}
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		err = JobError(err, j.ID)
	}
	return r, err
}

// attributes returns the attributes of the job for the span of its request.
func (j *Job) attributes() []attribute.KeyValue {
	return []attribute.KeyValue{telemetry.AttrJob.String(j.ID), telemetry.AttrOutcome.String(string(j.Status))}
}

// resultAttributes returns the attributes of r for the span of its request.
func resultAttributes(r v1.Result) (attrs []attribute.KeyValue) {
	if r.Status != "" {
		attrs = append(attrs, telemetry.AttrOutcome.String(string(r.Status)))
	}
	if r.Status == v1.Done {
		attrs = append(attrs, telemetry.AttrRegions.Int(len(r.Regions)))
	}
	return attrs
}

// decodeReply decodes the result in a reply, in a span that is linked to the span of the
// results service.
func decodeReply(ctx context.Context, m *nats.Msg) (v1.Result, error) {
	sent := trace.LinkFromContext(telemetry.Extract(context.WithoutCancel(ctx), m.Header))
	_, span := telemetry.StartChild(ctx, "process reply",
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(sent),
		trace.WithAttributes(bus.ReplyAttributes("process", semconv.MessagingOperationTypeProcess, m.Data)...))
	defer span.End()
	r, err := decodeResult(m.Data, m.Header.Get(v1.HeaderStored))
	if err != nil {
		telemetry.Fail(span, err)
	}
	return r, err
}

func (j *Job) wait(ctx context.Context) (v1.Result, error) {
	if j.reply == nil {
		return j.intake.cfg.Client.Await(ctx, j.ID)
	}
	// Polls run in goroutines, so that a slow poll does not delay the reply.
	var polls sync.WaitGroup
	defer polls.Wait()
	pollCtx, stopPolling := context.WithCancel(ctx)
	defer stopPolling()
	found, notFound := make(chan v1.Result, 1), make(chan struct{}, 1)
	timer := time.NewTimer(client.LookupBackoff.Delay(1))
	defer timer.Stop()
	for n := 2; ; {
		select {
		case m := <-j.reply:
			return decodeReply(ctx, m)
		case <-timer.C:
			polls.Go(func() {
				if r, ok := j.storedResult(pollCtx); ok {
					found <- r
				} else {
					notFound <- struct{}{}
				}
			})
		case r := <-found:
			return r, nil
		case <-notFound:
			timer.Reset(client.LookupBackoff.Delay(n))
			n++
		case <-ctx.Done():
			// The reply may have been lost, so that the job is done.
			r, err := j.intake.cfg.Client.LookupNow(ctx, j.ID)
			switch {
			case err == nil && r.Final():
				return r, nil
			case err == nil:
				return r, ctx.Err()
			case j.unknown != nil:
				return v1.Result{}, j.unknown
			}
			return v1.Result{ID: j.ID, Pipeline: j.Pipeline, Status: v1.Queued}, ctx.Err()
		}
	}
}

// storedResult returns the stored result, if there is one. An error of the read does not
// end the wait.
func (j *Job) storedResult(ctx context.Context) (v1.Result, bool) {
	ctx, cancel := context.WithTimeout(ctx, bus.RequestTimeout)
	defer cancel()
	m, err := j.intake.results.GetLastMsgForSubject(ctx, subject.Results(j.Pipeline, j.ID))
	if err != nil || m.Header.Get(v1.HeaderMarker) != "" {
		return v1.Result{}, false
	}
	r, err := decodeResult(m.Data, m.Time.Format(time.RFC3339Nano))
	return r, err == nil
}

func decodeResult(body []byte, stored string) (v1.Result, error) {
	var r v1.Result
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("decode result: %w", err)
	}
	if at, err := time.Parse(time.RFC3339Nano, stored); err == nil && r.Timings != nil {
		r.Timings.Reply = max(0, v1.Milliseconds(time.Since(at)))
	}
	return r, nil
}
