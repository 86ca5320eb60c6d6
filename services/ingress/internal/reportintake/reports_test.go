package reportintake

import (
	"testing"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestReports_SummaryCountsAnImageWithTwoOutcomesOnce(t *testing.T) {
	r := newBench(t)
	manifest := v1.Manifest{ID: "R1", Pipeline: "text", Images: make([]v1.ReportSource, 2)}
	if err := r.store(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	put := func(status string, n int) {
		if _, err := r.js.Publish(t.Context(), subject.ReportOutcome("R1", status, n), []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	put("failed", 0)
	check := func(status v1.Status, done int) {
		t.Helper()
		s, err := r.Summary(t.Context(), "R1")
		if err != nil {
			t.Fatal(err)
		}
		if s.Status != status {
			t.Errorf("the report is %s, want %s", s.Status, status)
		}
		if want := (v1.Counts{Total: 2, Done: done}); s.Counts != want {
			t.Errorf("the counts are %+v, want %+v", s.Counts, want)
		}
	}
	put("done", 0) // the same job again, after the duplicate window of two minutes
	check(v1.Running, 1)
	put("done", 1)
	check(v1.Done, 2)
}
