package results

import (
	"context"
	"encoding/json"
	"fmt"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/results/internal/webhookmessage"
)

// follow stores the outcome of an image of a report. When the image completes the
// report, follow returns the messages that finish the report.
func (s *Service) follow(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	status, err := readStatus(d.Body)
	if err != nil {
		return nil, err
	}
	d.OnStored(func(ctx context.Context) { s.publishEvent(ctx, d.Job.ID, status) })
	of := d.Header.Get(v1.HeaderReport)
	if of == "" {
		return nil, nil
	}
	item, err := v1.ParseReportItem(of)
	if err != nil || item.Job() != d.Job.ID { // a client that publishes images can set any header
		s.log.WarnContext(ctx, "the report header of a result does not match its job", "subject", d.Subject, "header", of,
			"error", err)
		return nil, nil
	}
	return s.reports.Outcome(ctx, item, status, d.Body)
}

// notify returns the webhook message of a job. It has its own consumer, so that only
// webhooks wait while CALLBACKS is full.
func (s *Service) notify(_ context.Context, d *consume.Delivery) ([]bus.Message, error) {
	url := d.Header.Get(v1.HeaderCallback)
	if url == "" {
		return nil, nil
	}
	status, err := readStatus(d.Body)
	if err != nil {
		return nil, err
	}
	m, err := webhookmessage.JobMessage(d.Job.ID, status, url, d.Stored.UTC(), d.Body)
	if err != nil {
		return nil, err
	}
	return []bus.Message{m}, nil
}

// readStatus returns the status of a result.
func readStatus(body []byte) (v1.Status, error) {
	var r struct{ Status v1.Status }
	if err := json.Unmarshal(body, &r); err != nil {
		return "", consume.Drop(fmt.Errorf("decode result: %w", err))
	}
	return r.Status, nil
}

// publishEvent publishes the end of a job to the clients that watch it.
func (s *Service) publishEvent(ctx context.Context, job string, status v1.Status) {
	e := v1.Event{ID: job, Event: v1.EventName(status), At: s.clock.Now().UTC(), Status: status}
	if err := bus.PublishEvent(s.conn, e); err != nil {
		s.log.DebugContext(ctx, "cannot publish an event", "error", err)
	}
}

// expand returns the messages that queue the images of a report.
func (s *Service) expand(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	var m v1.Manifest
	if err := json.Unmarshal(d.Body, &m); err != nil {
		return nil, consume.Drop(fmt.Errorf("decode report: %w", err))
	}
	d.Deadline = m.Deadline // a report with many images takes long to store
	return s.reports.Expand(ctx, m, d.Header)
}
