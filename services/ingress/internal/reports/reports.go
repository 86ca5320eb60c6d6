// Package reports takes reports, many images that are one job, and tells how
// they are. What a report asks for and every outcome is in the stream REPORTS;
// nothing here outlives a call.
package reports

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/outcomes"
)

// Reports stores and reads reports.
type Reports struct {
	js        jetstream.JetStream
	publisher *bus.Publisher
}

// New returns reports over js.
func New(js jetstream.JetStream, p *bus.Publisher) *Reports { return &Reports{js: js, publisher: p} }

// Store stores what a report asks for. From here on it is a job that ends,
// whatever dies; a second report of the same id adds nothing.
func (r *Reports) Store(ctx context.Context, m v1.Manifest) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode report %s: %w", m.ID, err)
	}
	return r.publisher.Publish(ctx, bus.Message{
		Subject: subject.Report(m.ID), Stream: streams.Reports, ID: v1.MsgID(m.ID, "reports"), Body: body,
	})
}

// Backlog is how many images of all reports wait to be fetched.
func (r *Reports) Backlog(ctx context.Context) (int, error) {
	s, err := r.js.Stream(ctx, streams.Fetches)
	if err != nil {
		return 0, fmt.Errorf("read the backlog of reports: %w", err)
	}
	return int(s.CachedInfo().State.Msgs), nil
}

// Summary says how a report is, without its images. The error is a
// [*v1.Problem] when there is no such report.
func (r *Reports) Summary(ctx context.Context, id string) (v1.Report, error) {
	report, _, _, err := r.read(ctx, id)
	return report, err
}

// Read says how a report is, and gives each of its images in order, with its
// outcome where there is one.
func (r *Reports) Read(ctx context.Context, id string, begin func(v1.Report) error, each func(v1.ReportImage) error) error {
	report, m, outcomes, err := r.read(ctx, id)
	if err != nil {
		return err
	}
	if err := begin(report); err != nil {
		return err
	}
	for i, source := range m.Images {
		image := v1.ReportImage{ReportSource: source, ID: v1.ReportItem{Report: id, N: i}.Job(), Status: v1.Queued}
		if status, ok := outcomes[i]; ok {
			image.Status, image.Result = status, new(v1.Result)
			if _, err := bus.Last(ctx, r.js, streams.Reports, subject.ReportOutcome(id, string(status), i), image.Result); err != nil {
				return err
			}
		}
		if err := each(image); err != nil {
			return err
		}
	}
	return nil
}

// read gives a report, what it asks for, and the outcomes there are.
func (r *Reports) read(ctx context.Context, id string) (v1.Report, v1.Manifest, map[int]v1.Status, error) {
	var report v1.Report
	var m v1.Manifest
	if !subject.ValidJob(id) {
		return report, m, nil, unknown(id)
	}
	found, err := bus.Last(ctx, r.js, streams.Reports, subject.Report(id), &m)
	if err == nil && !found {
		err = unknown(id)
	}
	if err != nil {
		return report, m, nil, err
	}
	stored, err := outcomes.Read(ctx, r.js, id)
	if err != nil {
		return report, m, nil, err
	}
	report = v1.Report{
		ID: id, Pipeline: m.Pipeline, Status: v1.Running, Accepted: m.Accepted, Metadata: m.Metadata,
		Counts: stored.Counts(len(m.Images)),
	}
	if report.Counts.Done+report.Counts.Failed == report.Counts.Total {
		report.Status = v1.Done
	}
	if m.Callback != "" {
		report.Callback = &v1.Callback{State: v1.CallbackPending}
		if _, err := bus.Last(ctx, r.js, streams.Jobs, subject.CallbackState(id), report.Callback); err != nil {
			return report, m, nil, err
		}
	}
	return report, m, stored, nil
}

func unknown(id string) *v1.Problem {
	return v1.NewProblem(v1.UnknownReport, "no report %.64s: it never was, or it is no longer kept", id)
}
