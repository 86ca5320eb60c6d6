// Package reportprogress processes reports: it queues the images that have to be
// fetched, stores the outcome of each image, and finishes a report when all its images
// have outcomes.
//
// It has no state in memory. Every step is stored with its own message ID or subject, so
// that it can be repeated after a crash. Each step returns the messages that follow, and
// the message loop stores them.
package reportprogress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/reportoutcomes"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
	"github.com/sightmesh/sightmesh/services/results/internal/webhookmessage"
)

// Keeper stores the progress of reports.
type Keeper struct {
	conn      *nats.Conn
	js        jetstream.JetStream
	publisher *bus.Publisher
	clock     *clock.Clock
	tracer    trace.Tracer
}

// New returns a Keeper that publishes with p.
func New(conn *nats.Conn, js jetstream.JetStream, p *bus.Publisher, c *clock.Clock, t trace.Tracer) *Keeper {
	return &Keeper{conn: conn, js: js, publisher: p, clock: c, tracer: t}
}

// Expand returns the messages that queue every image of a report that has a URL. header
// has the trace of the request that submitted the report. When a report has no such
// images and all its images have outcomes, Expand returns the messages that finish the
// report.
func (k *Keeper) Expand(ctx context.Context, m v1.Manifest, header nats.Header) ([]bus.Message, error) {
	var msgs []bus.Message
	for i, image := range m.Images {
		if image.URL == "" {
			continue // it was uploaded, and is already a job
		}
		item := v1.ReportItem{Report: m.ID, N: i, Total: len(m.Images)}
		body, err := json.Marshal(v1.Fetch{URL: image.URL, Deadline: m.Deadline})
		if err != nil {
			return nil, fmt.Errorf("expand report %s: %w", m.ID, err)
		}
		h := bus.CopyHeaders(header)
		h.Set(v1.HeaderReport, item.String())
		h.Set(v1.HeaderAccepted, m.Accepted.Format(time.RFC3339Nano))
		h.Set(v1.HeaderDeadline, m.Deadline.Format(time.RFC3339Nano))
		if len(image.Metadata) > 0 {
			meta, err := json.Marshal(image.Metadata)
			if err != nil {
				return nil, fmt.Errorf("expand report %s: %w", m.ID, err)
			}
			h.Set(v1.HeaderMetadata, string(meta))
		}
		msgs = append(msgs, bus.Message{
			Subject: subject.Fetches(m.Pipeline, item.Job()), Stream: streams.Fetches,
			ID: v1.MsgID(item.Job(), v1.MsgFetches), Header: h, Body: body, Deadline: m.Deadline, NewTrace: true,
		})
	}
	if len(msgs) > 0 {
		return msgs, nil
	}
	// Uploaded images may all have had their outcomes before the report was
	// stored.
	stored, err := reportoutcomes.Read(ctx, k.js, m.ID)
	if err != nil {
		return nil, err
	}
	return k.finishIfComplete(m, header, stored)
}

// Outcome stores the outcome of one image, unless it has one. When it is the last image
// of its report, Outcome returns the messages that finish the report. result is the body
// of the RESULTS message of the image.
func (k *Keeper) Outcome(
	ctx context.Context, item v1.ReportItem, status v1.Status, result []byte,
) ([]bus.Message, error) {
	if first, err := k.hasOtherOutcome(ctx, item, status); first || err != nil {
		return nil, err
	}
	err := k.publisher.Publish(ctx, bus.Message{
		Subject: subject.ReportOutcome(item.Report, string(status), item.N), Stream: streams.Reports,
		ID: v1.MsgID(item.Job(), v1.MsgReports), Body: result, Once: true,
	})
	if err != nil {
		return nil, fmt.Errorf("store outcome %s: %w", item, err)
	}
	stored, err := reportoutcomes.Read(ctx, k.js, item.Report)
	if err != nil {
		return nil, err
	}
	m, header, found, err := k.manifest(ctx, item.Report)
	if err != nil || !found {
		return nil, err // not found: it is still being uploaded
	}
	counts := stored.Counts(len(m.Images))
	// Published before the end of the report, so that a client that watches gets the
	// event of the last image.
	if err := bus.PublishEvent(k.conn, v1.Event{
		ID: item.Report, Event: v1.EventImage, At: k.clock.Now().UTC(), Image: &item.N, Status: status, Counts: &counts,
	}); err != nil {
		return nil, err
	}
	return k.finishIfComplete(m, header, stored)
}

// hasOtherOutcome reports whether an image already has the opposite outcome. Done and
// failed have different subjects, and the first outcome is kept.
func (k *Keeper) hasOtherOutcome(ctx context.Context, item v1.ReportItem, status v1.Status) (bool, error) {
	other := v1.Failed
	if status == v1.Failed {
		other = v1.Done
	}
	var r v1.Result
	return bus.ReadLast(ctx, k.js, streams.Reports, subject.ReportOutcome(item.Report, string(other), item.N), &r)
}

// manifest reads the manifest of a report and the header of its message.
func (k *Keeper) manifest(ctx context.Context, report string) (m v1.Manifest, h nats.Header, found bool, err error) {
	h, err = bus.ReadLastHeader(ctx, k.js, streams.Reports, subject.Report(report), &m)
	return m, h, h != nil, err
}

const (
	// sweepGrace is how long after the deadline of a report its images have time to end
	// without the sweeper.
	sweepGrace = 10 * time.Second
	// sweepPause is the time between two checks of a report before its deadline.
	sweepPause = time.Minute
)

// Sweep finishes a report whose images all have outcomes. That may have been missed,
// because a new leader may have counted without the last outcome. After the deadline of
// the report, Sweep calls end for the job of each image that has no result, and end stores
// an outcome. Sweep returns the time of the next check of the report.
func (k *Keeper) Sweep(ctx context.Context, id string, now time.Time,
	end func(context.Context, subject.Job, nats.Header) error,
) (again time.Time, err error) {
	m, header, found, err := k.manifest(ctx, id)
	if err != nil || !found {
		return now, err
	}
	over := m.Deadline.Add(sweepGrace)
	if now.Before(m.Accepted.Add(sweepPause)) && now.Before(over) { // its images are being processed
		return minTime(m.Accepted.Add(sweepPause), over), nil
	}
	stored, err := reportoutcomes.Read(ctx, k.js, id)
	if err != nil {
		return now, err
	}
	again = minTime(now.Add(sweepPause), over)
	if !now.Before(over) {
		again = now.Add(sweepGrace)
		if err := k.sweepImages(ctx, m, stored, end); err != nil {
			return now, err
		}
	}
	msgs, err := k.finishIfComplete(m, header, stored)
	for _, msg := range msgs {
		err = errors.Join(err, k.publisher.Publish(ctx, msg))
	}
	return again, err
}

// minTime returns the earlier of two times.
func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// sweepImages calls sweepImage for each image without an outcome.
func (k *Keeper) sweepImages(ctx context.Context, m v1.Manifest, stored reportoutcomes.Outcomes,
	end func(context.Context, subject.Job, nats.Header) error,
) error {
	for n := range m.Images {
		if _, ok := stored[n]; ok {
			continue
		}
		item := v1.ReportItem{Report: m.ID, N: n, Total: len(m.Images)}
		if err := k.sweepImage(ctx, m.Pipeline, item, end); err != nil {
			return err
		}
	}
	return nil
}

// sweepImage stores the outcome of an image whose job has a result, and otherwise calls
// end for the job.
func (k *Keeper) sweepImage(ctx context.Context, pipeline string, item v1.ReportItem,
	end func(context.Context, subject.Job, nats.Header) error,
) error {
	results, err := k.js.Stream(ctx, streams.Results)
	if err != nil {
		return fmt.Errorf("read result of %s: %w", item, err)
	}
	stored, err := results.GetLastMsgForSubject(ctx, subject.Results(pipeline, item.Job()))
	job := subject.Job{Pipeline: pipeline, ID: item.Job()}
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return end(ctx, job, nats.Header{v1.HeaderReport: {item.String()}})
	}
	if err != nil {
		return fmt.Errorf("read result of %s: %w", item, err)
	}
	r, body := v1.Result{ID: job.ID, Pipeline: pipeline, Status: v1.Failed}, stored.Data
	if stored.Header.Get(v1.HeaderMarker) != "" {
		r.Problem = v1.NewProblem(v1.JobExpired, "the result of job %s is no longer kept", job.ID)
		body, err = json.Marshal(r)
	} else {
		err = json.Unmarshal(body, &r)
	}
	if err != nil {
		return fmt.Errorf("read result of %s: %w", item, err)
	}
	msgs, err := k.Outcome(ctx, item, r.Status, body)
	for _, msg := range msgs {
		err = errors.Join(err, k.publisher.Publish(ctx, msg))
	}
	return err
}

// finishIfComplete returns the messages that finish a report when all its images have an
// outcome. The number of images is that of the manifest, not of the header of a result.
// header is that of the message of the manifest.
func (k *Keeper) finishIfComplete(
	m v1.Manifest, header nats.Header, stored reportoutcomes.Outcomes,
) ([]bus.Message, error) {
	counts := stored.Counts(len(m.Images))
	if counts.Done+counts.Failed < counts.Total {
		return nil, nil
	}
	return k.finishMessages(m, header, counts)
}

// finishMessages returns the webhook message and the end of a report, and publishes the
// event.
func (k *Keeper) finishMessages(m v1.Manifest, header nats.Header, counts v1.Counts) ([]bus.Message, error) {
	now := k.clock.Now().UTC()
	r := v1.Report{ID: m.ID, Pipeline: m.Pipeline, Status: v1.Done, Accepted: m.Accepted, Counts: counts,
		Metadata: m.Metadata}
	var msgs []bus.Message
	if m.Callback != "" {
		msg, err := webhookmessage.ReportMessage(r, m.Callback, now)
		if err != nil {
			return nil, err
		}
		msgs = append(msgs, msg)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("finish report %s: %w", m.ID, err)
	}
	msgs = append(msgs, bus.Message{
		Subject: subject.ReportFinished(m.ID), Stream: streams.Reports, ID: v1.MsgID(m.ID, v1.MsgFinished),
		Body: body, Once: true,
		Stored: func() { k.trace(m, header, counts, now) },
	})
	return msgs, bus.PublishEvent(k.conn, v1.Event{ID: m.ID, Event: v1.EventDone, At: now, Status: v1.Done,
		Counts: &counts})
}

// trace records a span of a report, from its acceptance to its end, in the trace of the
// request that submitted it. The response to that request was sent long before.
func (k *Keeper) trace(m v1.Manifest, header nats.Header, counts v1.Counts, end time.Time) {
	_, span := k.tracer.Start(telemetry.Extract(context.Background(), header), "report",
		trace.WithTimestamp(m.Accepted), trace.WithAttributes(
			telemetry.AttrReport.String(m.ID), telemetry.AttrPipeline.String(m.Pipeline),
			telemetry.AttrPriority.String(string(subject.Bulk)), telemetry.AttrOutcome.String(string(v1.Done)),
			telemetry.AttrImages.Int(counts.Total), telemetry.AttrFailed.Int(counts.Failed)))
	span.End(trace.WithTimestamp(end))
}
