package reportintake

import (
	"testing"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestReports_SummaryCountsAnImageWithTwoOutcomesOnce(t *testing.T) {
	r := newBench(t)
	if err := r.store(t.Context(), v1.Manifest{ID: "R1", Pipeline: "text", Images: make([]v1.ReportSource, 2)}); err != nil {
		t.Fatal(err)
	}
	put := func(status string, n int) {
		if _, err := r.js.Publish(t.Context(), subject.ReportOutcome("R1", status, n), []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	put("failed", 0)
	put("done", 0) // the same job again, more than the two minutes of the dedupe window later
	if s, err := r.Summary(t.Context(), "R1"); err != nil || s.Status == v1.Done {
		t.Errorf("%+v, %v although image 1 has no outcome", s, err)
	}
	put("done", 1)
	if s, err := r.Summary(t.Context(), "R1"); err != nil || s.Status != v1.Done || s.Counts != (v1.Counts{Total: 2, Done: 2}) {
		t.Errorf("%+v, %v, want that both are done", s, err)
	}
}
