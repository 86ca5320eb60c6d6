package worker

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/consume"
)

// jobs returns the configuration of the stream JOBS.
func (m mesh) jobs(t *testing.T) jetstream.StreamConfig {
	t.Helper()
	s, err := m.js.Stream(t.Context(), streams.Jobs)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}

// TestAttempts_FailedRequestIsNoAttempt: while the count cannot be read or
// stored, a message is delivered again and again, and is processed after that.
func TestAttempts_FailedRequestIsNoAttempt(t *testing.T) {
	for name, fail := range map[string]func(*testing.T, mesh) error{
		"read": func(t *testing.T, m mesh) error { return m.js.DeleteStream(t.Context(), streams.Jobs) },
		"write": func(t *testing.T, m mesh) error {
			cfg := m.jobs(t)
			cfg.MaxMsgSize = 1
			_, err := m.js.UpdateStream(t.Context(), cfg)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			healthy := m.jobs(t)
			a := attempts{js: m.js, stage: subject.Detect}
			d := &consume.Delivery{Job: interactive("job"), Deliveries: 1}
			if err := fail(t, m); err != nil {
				t.Fatal(err)
			}
			for range streams.MaxAttempts {
				d.Deliveries++
				err := a.begin(t.Context(), d)
				if err == nil {
					t.Fatalf("delivery %d: an attempt began that was not counted", d.Deliveries)
				}
				var p *v1.Problem
				if errors.As(err, &p) {
					t.Fatalf("delivery %d ends the job: %v", d.Deliveries, err)
				}
			}
			if _, err := m.js.CreateOrUpdateStream(t.Context(), healthy); err != nil {
				t.Fatal(err)
			}
			d.Deliveries++
			if err := a.begin(t.Context(), d); err != nil {
				t.Errorf("with a healthy stream: %v", err)
			}
			var made struct{ Attempts int }
			attempts := subject.Attempts(subject.Detect, d.Job)
			if _, err := bus.ReadLast(t.Context(), m.js, streams.Jobs, attempts, &made); err != nil {
				t.Fatal(err)
			}
			if made.Attempts != 2 {
				t.Errorf("%d attempts are counted, want 2", made.Attempts)
			}
		})
	}
}

// TestAttempts_CountedByStageJobAndPart: one part that cannot be processed ends
// no other.
func TestAttempts_CountedByStageJobAndPart(t *testing.T) {
	m := newMesh(t)
	tried := subject.Job{Pipeline: "a", Priority: subject.Bulk, ID: "job", Part: 1}
	classify := attempts{js: m.js, stage: subject.Classify}
	for n := 2; n <= streams.MaxAttempts; n++ {
		if err := classify.begin(t.Context(), &consume.Delivery{Job: tried, Deliveries: n}); err != nil {
			t.Fatalf("attempt %d: %v", n, err)
		}
	}
	var p *v1.Problem
	err := classify.begin(t.Context(), &consume.Delivery{Job: tried, Deliveries: 2})
	if !errors.As(err, &p) || p.Code != v1.TooManyDeliveries {
		t.Errorf("one attempt more: %v, want %s", err, v1.TooManyDeliveries)
	}
	part, pipeline, job := tried, tried, tried
	part.Part, pipeline.Pipeline, job.ID = 2, "b", "other"
	for _, other := range []subject.Job{part, pipeline, job} {
		if err := classify.begin(t.Context(), &consume.Delivery{Job: other, Deliveries: 2}); err != nil {
			t.Errorf("%+v: %v", other, err)
		}
	}
	detect := attempts{js: m.js, stage: subject.Detect}
	if err := detect.begin(t.Context(), &consume.Delivery{Job: tried, Deliveries: 2}); err != nil {
		t.Errorf("another stage: %v", err)
	}
}

// TestWorker_FirstDeliveryIsNotCounted: it needs no stream but its own.
func TestWorker_FirstDeliveryIsNotCounted(t *testing.T) {
	m := newMesh(t)
	if err := m.js.DeleteStream(t.Context(), streams.Jobs); err != nil {
		t.Fatal(err)
	}
	startWorker(t, m.Server, 1, nil)
	m.send(t, interactive("first"), order{})
	if r := m.result(t, "a", "first"); r.Status != v1.Done {
		t.Errorf("got %+v, want it done", r)
	}
}
