package reportintake

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// storeDone stores a report, and an outcome for each image in reverse order.
func (b bench) storeDone(t testing.TB, id string, images int) {
	t.Helper()
	m := v1.Manifest{ID: id, Pipeline: "text", Images: make([]v1.ReportSource, images)}
	if err := b.store(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	var acks []jetstream.PubAckFuture
	for n := images - 1; n >= 0; n-- {
		body, err := json.Marshal(v1.Result{ID: fmt.Sprint(id, "-", n), Pipeline: "text", Status: v1.Done})
		if err != nil {
			t.Fatal(err)
		}
		ack, err := b.js.PublishAsync(subject.ReportOutcome(id, string(v1.Done), n), body)
		if err != nil {
			t.Fatal(err)
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			t.Fatal(err)
		case <-time.After(time.Minute):
			t.Fatal("an outcome is not stored")
		}
	}
}

// countDone reads a report, and returns how many of its images have their own outcome.
func (b bench) countDone(t testing.TB, id string) (n int) {
	t.Helper()
	err := b.Read(t.Context(), id, func(v1.Report) error { return nil }, func(image v1.ReportImage) error {
		if image.Result == nil {
			return fmt.Errorf("image %d has no result", n)
		}
		if want := fmt.Sprint(id, "-", n); image.Result.ID != want {
			return fmt.Errorf("image %d has the result of job %s, want %s", n, image.Result.ID, want)
		}
		n++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestReports_ReadBatchesRequests also checks the outcome of each image: done, failed, both,
// none, and few in one batch.
func TestReports_ReadBatchesRequests(t *testing.T) {
	t.Parallel()
	const images, done = 120, 102
	s := bustest.Start(t, "text")
	b := newBenchOn(t, s, s)
	m := v1.Manifest{ID: "R1", Pipeline: "text", Images: make([]v1.ReportSource, images)}
	if err := b.store(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	want := make([]v1.Status, images)
	for n := range want {
		want[n] = v1.Queued
		if n < done && n%7 != 0 {
			want[n] = v1.Done
			b.storeOutcome(t, "R1", n, v1.Done)
		}
		if n%5 == 0 && n < done { // done wins over failed
			b.storeOutcome(t, "R1", n, v1.Failed)
			if want[n] != v1.Done {
				want[n] = v1.Failed
			}
		}
	}
	before, n := s.ReceivedCount(t), 0
	err := b.Read(t.Context(), "R1", func(v1.Report) error { return nil }, func(image v1.ReportImage) error {
		if image.Status != want[n] {
			t.Errorf("image %d is %s, want %s", n, image.Status, want[n])
		}
		if id := fmt.Sprint("R1-", n); image.ID != id {
			t.Errorf("image %d has the id %s", n, image.ID)
		}
		switch {
		case want[n] == v1.Queued:
			if image.Result != nil {
				t.Errorf("image %d has the result %+v and no outcome", n, image.Result)
			}
		case image.Result == nil:
			t.Errorf("image %d has no result", n)
		default:
			if image.Result.ID != image.ID {
				t.Errorf("image %d has the result of %s, want %s", n, image.Result.ID, image.ID)
			}
			if image.Result.Status != want[n] {
				t.Errorf("image %d is %s, want %s", n, image.Result.Status, want[n])
			}
		}
		n++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n != images {
		t.Errorf("read %d images, want %d", n, images)
	}
	if requests := s.ReceivedCount(t) - before; requests > images/5 {
		t.Errorf("%d requests for %d images", requests, images)
	}
	stream, err := b.js.Stream(t.Context(), streams.Reports)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Consumers; n != 1 {
		t.Errorf("REPORTS has %d consumers, want the one of results", n)
	}
}

// TestReports_ReadOnReplicatedStreams checks that Read returns the newest outcomes through
// every server.
func TestReports_ReadOnReplicatedStreams(t *testing.T) {
	t.Parallel()
	const images = 20
	servers := bustest.StartCluster(t, 3, "text").Servers
	for i := range 2 * len(servers) {
		s, id := servers[i%len(servers)], fmt.Sprint("R", i)
		b := newBenchOn(t, s, s)
		b.storeDone(t, id, images)
		if n := b.countDone(t, id); n != images {
			t.Errorf("%s: read %d images, want %d", id, n, images)
		}
	}
}

func (b bench) storeOutcome(t *testing.T, id string, n int, status v1.Status) {
	t.Helper()
	body, err := json.Marshal(v1.Result{ID: fmt.Sprint(id, "-", n), Pipeline: "text", Status: status})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.js.Publish(t.Context(), subject.ReportOutcome(id, string(status), n), body); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkReports_Read reads the largest report, and reports how many requests to the
// server one read needs.
func BenchmarkReports_Read(b *testing.B) {
	const images = 1000
	s := bustest.Start(b, "text")
	r := newBenchOn(b, s, s)
	r.storeDone(b, "R1", images)
	before := s.ReceivedCount(b)
	for b.Loop() {
		if n := r.countDone(b, "R1"); n != images {
			b.Fatalf("read %d images, want %d", n, images)
		}
	}
	b.ReportMetric(float64(s.ReceivedCount(b)-before)/float64(b.N), "requests/op")
}
