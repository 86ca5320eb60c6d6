// Package reportintake accepts reports, which are jobs over many images, and reads
// their state. The stream REPORTS stores the manifest and all outcomes of a report. The
// package keeps no state between calls.
//
// Every accepted report ends, even when processes die: when [Reports.Submit] returns,
// each image is a job, is a stored failure, or is in FETCHES for package reportfetch.
// Errors follow the rules of package intake.
package reportintake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/reportoutcomes"
)

// Config is the configuration of [Reports]. All fields are required.
type Config struct {
	JetStream jetstream.JetStream
	Clock     *clock.Clock
	Intake    *intake.Intake
	// MaxImages is the maximum of images in a report.
	MaxImages int
	// MaxBacklog is the maximum of images of all reports that wait to be fetched. A
	// report that exceeds it is rejected.
	MaxBacklog int
}

// Reports accepts and reads reports. It is safe for concurrent use by multiple
// goroutines.
type Reports struct {
	cfg     Config
	backlog sync.Mutex // held from the check of the backlog until the report is stored
}

// New returns a Reports.
func New(cfg Config) *Reports { return &Reports{cfg: cfg} }

// Summary returns the state of a report without its images.
func (r *Reports) Summary(ctx context.Context, id string) (v1.Report, error) {
	report, _, _, err := r.read(ctx, id)
	return report, readError(err)
}

// Read calls begin with the state of a report, and then each for every image in order.
// An image has its outcome, if there is one.
func (r *Reports) Read(
	ctx context.Context, id string, begin func(v1.Report) error, each func(v1.ReportImage) error,
) error {
	report, m, stored, err := r.read(ctx, id)
	if err != nil {
		return readError(err)
	}
	if err := begin(report); err != nil {
		return err
	}
	return r.readImages(ctx, id, m.Images, stored, each)
}

// readAhead is how many results of a report are read at a time and kept in memory.
const readAhead = 50

// readImages calls each with every image in order.
func (r *Reports) readImages(
	ctx context.Context, id string, sources []v1.ReportSource, stored reportoutcomes.Outcomes,
	each func(v1.ReportImage) error,
) error {
	stream, err := r.cfg.JetStream.Stream(ctx, streams.Reports)
	if err != nil {
		return readError(err)
	}
	for from := 0; from < len(sources); from += readAhead {
		to := min(from+readAhead, len(sources))
		results, err := stored.Results(ctx, stream, id, from, to)
		if err != nil {
			return readError(err)
		}
		for n := from; n < to; n++ {
			image := v1.ReportImage{ReportSource: sources[n], ID: v1.ReportItem{Report: id, N: n}.Job(), Status: v1.Queued}
			if body, ok := results[n]; ok {
				image.Status, image.Result = stored[n], new(v1.Result)
				if err := json.Unmarshal(body, image.Result); err != nil {
					return readError(fmt.Errorf("read outcome %d of report %s: decode: %w", n, id, err))
				}
			}
			if err := each(image); err != nil {
				return err
			}
		}
	}
	return nil
}

// readError returns the error for the client when a report cannot be read.
func readError(err error) error {
	var p *v1.Problem
	if err == nil || errors.As(err, &p) || errors.Is(err, context.Canceled) {
		return err
	}
	p = v1.NewProblem(v1.Unavailable, "the report cannot be read now")
	return retry.After(&intake.ServerError{Problem: p, Err: err}, intake.RetryDelay)
}

// read returns a report, its manifest, and its outcomes so far.
func (r *Reports) read(ctx context.Context, id string) (v1.Report, v1.Manifest, reportoutcomes.Outcomes, error) {
	var report v1.Report
	var m v1.Manifest
	if err := CheckID(id); err != nil {
		return report, m, nil, err
	}
	found, err := bus.ReadLast(ctx, r.cfg.JetStream, streams.Reports, subject.Report(id), &m)
	if err == nil && !found {
		err = unknownReport(id)
	}
	if err != nil {
		return report, m, nil, err
	}
	stored, err := reportoutcomes.Read(ctx, r.cfg.JetStream, id)
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
		report.Callback = &v1.Callback{State: v1.WebhookPending}
		subj := subject.CallbackState(id)
		if _, err := bus.ReadLast(ctx, r.cfg.JetStream, streams.Jobs, subj, report.Callback); err != nil {
			return report, m, nil, err
		}
	}
	return report, m, stored, nil
}

// CheckID returns the problem of an ID that no report can have.
func CheckID(id string) error {
	if subject.ValidJob(id) {
		return nil
	}
	return unknownReport(id)
}

func unknownReport(id string) *v1.Problem {
	return v1.NewProblem(v1.UnknownReport, "no report %.64s: it never was, or it is no longer kept", id)
}
