package main

import (
	"context"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/bench"
)

// TestMedianOf_ComparesTheSameRound checks that the ratio does not depend on rounds that are slow for both contestants.
func TestMedianOf_ComparesTheSameRound(t *testing.T) {
	t.Parallel()
	var mesh, alone []turn
	for _, speed := range []float64{100, 10, 50} {
		alone = append(alone, turn{Report: bench.Report{PerSecond: speed}})
		mesh = append(mesh, turn{Report: bench.Report{PerSecond: speed * 0.9}})
	}
	if got := medianOf(mesh, alone, ratio(perSecond)); got != 0.9 {
		t.Errorf("the ratio is %v, want 0.9", got)
	}
	if got := median(alone, perSecond); got != 50 {
		t.Errorf("the median is %v, want 50", got)
	}
}

// TestCompare_CountsTheSameRegions checks that regions with another label, text or place are different, and that spaces
// in the text do not count.
func TestCompare_CountsTheSameRegions(t *testing.T) {
	t.Parallel()
	region := func(x int, label, text string) v1.Region {
		return v1.Region{Box: v1.Box{X: x, Width: 10, Height: 10}, Label: label, Text: text}
	}
	sender := func(regions ...v1.Region) bench.Sender {
		return func(context.Context, bench.Image) (v1.Result, error) { return v1.Result{Regions: regions}, nil }
	}
	row := networkRow{}
	err := row.compare(t.Context(), contestants{
		mesh:     sender(region(0, "text", "a b"), region(20, "cat", ""), region(40, "text", "c"), region(60, "dog", "")),
		litServe: sender(region(66, "dog", ""), region(40, "text", "d"), region(20, "dog", ""), region(1, "text", "ab")),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if row.regions != 4 {
		t.Errorf("%d regions, want 4", row.regions)
	}
	if row.same != 1 {
		t.Errorf("%d are the same, want 1", row.same)
	}
}
