// Package reportprogress takes reports to their end: it queues the images that a
// report wants fetched, stores the outcome of each, and says when all of them
// are there.
//
// It holds nothing in memory. Every step is stored under a message id or a
// subject of its own, so that it can be repeated after whatever died. What
// follows from a step is returned, for the message loop to store.
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

// Keeper keeps reports.
type Keeper struct {
	conn      *nats.Conn
	js        jetstream.JetStream
	publisher *bus.Publisher
	clock     *clock.Clock
	tracer    trace.Tracer
}

// New returns a keeper that publishes through p.
func New(conn *nats.Conn, js jetstream.JetStream, p *bus.Publisher, c *clock.Clock, t trace.Tracer) *Keeper {
	return &Keeper{conn: conn, js: js, publisher: p, clock: c, tracer: t}
}

// Expand returns the messages that queue every image of a report that has a
// URL. header carries the trace of the request that brought the report. A
// report without such images may be finished; what follows from that is
// returned then.
func (k *Keeper) Expand(ctx context.Context, m v1.Manifest, header nats.Header) ([]bus.Message, error) {
	var msgs []bus.Message
	for i, image := range m.Images {
		if image.URL == "" {
			continue // it was uploaded, and is a job already
		}
		item := v1.ReportItem{Report: m.ID, N: i, Total: len(m.Images)}
		body, err := json.Marshal(v1.Fetch{URL: image.URL, Deadline: m.Deadline})
		if err != nil {
			return nil, fmt.Errorf("expand report %s: %w", m.ID, err)
		}
		h := bus.Travel(header)
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

// Outcome stores the outcome of one image, unless it has one. When it is the
// last of its report, the messages that finish the report are returned. result
// is the body of the image's RESULTS message.
func (k *Keeper) Outcome(ctx context.Context, item v1.ReportItem, status v1.Status, result []byte) ([]bus.Message, error) {
	if first, err := k.hasOtherOutcome(ctx, item, status); first || err != nil {
		return nil, err
	}
	err := k.publisher.Publish(ctx, bus.Message{
		Subject: subject.ReportOutcome(item.Report, string(status), item.N), Stream: streams.Reports,
		ID: v1.MsgID(item.Job(), v1.MsgReports), Body: result, Once: true,
	})
	if err != nil {
		return nil, fmt.Errorf("keep outcome %s: %w", item, err)
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
	// Before the end is told, or who watches would miss the last image.
	if err := bus.Tell(k.conn, v1.Event{
		ID: item.Report, Event: v1.EventImage, At: k.clock.Now().UTC(), Image: &item.N, Status: status, Counts: &counts,
	}); err != nil {
		return nil, err
	}
	return k.finishIfComplete(m, header, stored)
}

// hasOtherOutcome reports whether an image has the other outcome than this one. Each has
// a subject of its own, and the first that was stored stays.
func (k *Keeper) hasOtherOutcome(ctx context.Context, item v1.ReportItem, status v1.Status) (bool, error) {
	other := v1.Failed
	if status == v1.Failed {
		other = v1.Done
	}
	var r v1.Result
	return bus.Last(ctx, k.js, streams.Reports, subject.ReportOutcome(item.Report, string(other), item.N), &r)
}

// manifest reads what a report asks for, and the header of the message that says it.
func (k *Keeper) manifest(ctx context.Context, report string) (m v1.Manifest, h nats.Header, found bool, err error) {
	h, err = bus.LastHeader(ctx, k.js, streams.Reports, subject.Report(report), &m)
	return m, h, h != nil, err
}

const (
	// sweepGrace is how long after the deadline of a report its images may take
	// to end by themselves.
	sweepGrace = 10 * time.Second
	// sweepPause is the time between two looks at a report before its deadline.
	sweepPause = time.Minute
)

// Sweep finishes a report whose images all have outcomes, which may have gone
// unnoticed: a leader that is new can have counted without the last one. Past
// the deadline of the report, each image without an outcome gets one through
// end, which is called for the job of the image. Sweep returns when the report
// is to be looked at again.
func (k *Keeper) Sweep(ctx context.Context, id string, now time.Time,
	end func(context.Context, subject.Job, nats.Header) error,
) (again time.Time, err error) {
	m, header, found, err := k.manifest(ctx, id)
	if err != nil || !found {
		return now, err
	}
	over := m.Deadline.Add(sweepGrace)
	if now.Before(m.Accepted.Add(sweepPause)) && now.Before(over) { // its images are on their way
		return earlier(m.Accepted.Add(sweepPause), over), nil
	}
	stored, err := reportoutcomes.Read(ctx, k.js, id)
	if err != nil {
		return now, err
	}
	again = earlier(now.Add(sweepPause), over)
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

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// sweepImages sees to each image without an outcome.
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

// sweepImage stores the outcome of an image whose job has a result, or has the
// job end.
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

// finishIfComplete returns the messages that say that a report is done, when all of its
// images have an outcome. How many there are is what the report says, and not
// the header of a result. header is that of the message that brought the report.
func (k *Keeper) finishIfComplete(m v1.Manifest, header nats.Header, stored reportoutcomes.Outcomes) ([]bus.Message, error) {
	counts := stored.Counts(len(m.Images))
	if counts.Done+counts.Failed < counts.Total {
		return nil, nil
	}
	return k.finishMessages(m, header, counts)
}

// finishMessages returns the callback and the end of a report, and publishes the event.
func (k *Keeper) finishMessages(m v1.Manifest, header nats.Header, counts v1.Counts) ([]bus.Message, error) {
	now := k.clock.Now().UTC()
	r := v1.Report{ID: m.ID, Pipeline: m.Pipeline, Status: v1.Done, Accepted: m.Accepted, Counts: counts, Metadata: m.Metadata}
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
		Subject: subject.ReportFinished(m.ID), Stream: streams.Reports, ID: v1.MsgID(m.ID, v1.MsgFinished), Body: body, Once: true,
		Stored: func() { k.trace(m, header, counts, now) },
	})
	return msgs, bus.Tell(k.conn, v1.Event{ID: m.ID, Event: v1.EventDone, At: now, Status: v1.Done, Counts: &counts})
}

// trace records a report from its acceptance to its end, as a span in the trace of
// the request that brought it. That request was answered long before.
func (k *Keeper) trace(m v1.Manifest, header nats.Header, counts v1.Counts, end time.Time) {
	_, span := k.tracer.Start(telemetry.Extract(context.Background(), header), "report",
		trace.WithTimestamp(m.Accepted), trace.WithAttributes(
			telemetry.AttrReport.String(m.ID), telemetry.AttrPipeline.String(m.Pipeline),
			telemetry.AttrPriority.String(string(subject.Bulk)), telemetry.AttrOutcome.String(string(v1.Done)),
			telemetry.AttrImages.Int(counts.Total), telemetry.AttrFailed.Int(counts.Failed)))
	span.End(trace.WithTimestamp(end))
}
