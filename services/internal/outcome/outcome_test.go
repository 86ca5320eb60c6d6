package outcome

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
)

func TestMessage_RejectsATooLargeResult(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", streams.MaxMessage)
	_, err := Message(t.Context(), nil, v1.Result{ID: "job", Text: &text})
	var p *v1.Problem
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want a problem", err)
	}
	if p.Limit != streams.MaxMessage {
		t.Errorf("the limit is %d, want %d", p.Limit, streams.MaxMessage)
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	region := func(n int, text string) v1.PartRegion { return v1.PartRegion{Number: n, Region: v1.Region{Text: text}} }
	a, b := v1.Model{Name: "a"}, v1.Model{Name: "b"}
	parts := []v1.Part{
		{Part: 1, Parts: 2, Regions: []v1.PartRegion{region(3, "three"), region(2, "two")}, Models: []v1.Model{a, b},
			Timings: v1.Timings{Queue: 1, Classify: 9}},
		{Part: 0, Parts: 2, Regions: []v1.PartRegion{region(0, "zero"), region(1, "")}, Models: []v1.Model{a},
			Timings: v1.Timings{Queue: 5, Classify: 2}, Image: v1.Image{Width: 7}},
	}
	r := Join("job", pipeline.Pipeline{Name: "p", Text: true}, parts)
	text := "zero\ntwo\nthree\n"
	want := v1.Result{
		ID: "job", Pipeline: "p", Status: v1.Done, Image: &v1.Image{Width: 7}, Models: []v1.Model{a, b}, Text: &text,
		Regions: []v1.Region{{Text: "zero"}, {}, {Text: "two"}, {Text: "three"}},
		Timings: &v1.Timings{Queue: 5, Classify: 9},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got\n%s, want\n%s", toJSON(t, r), toJSON(t, want))
	}
}

func TestJoin_WithoutRegions(t *testing.T) {
	t.Parallel()
	r := Join("job", pipeline.Pipeline{}, []v1.Part{{Parts: 1}})
	if r.Text != nil {
		t.Errorf("the text is %q, want none, because the pipeline has no text", *r.Text)
	}
	if r.Regions == nil {
		t.Error("the regions are nil, want an empty list in JSON")
	}
	if n := len(r.Regions); n != 0 {
		t.Errorf("%d regions, want none", n)
	}
}

func TestJoin_FailsWithAFailedPart(t *testing.T) {
	t.Parallel()
	p := v1.NewProblem(v1.LaneDied, "")
	r := Join("job", pipeline.Pipeline{}, []v1.Part{{Part: 0, Parts: 2}, {Part: 1, Parts: 2, Problem: p}})
	if r.Status != v1.Failed {
		t.Errorf("the status is %s, want %s", r.Status, v1.Failed)
	}
	if r.Problem != p {
		t.Errorf("the problem is %v, want that of the part", r.Problem)
	}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFailed_CutsALongDetail(t *testing.T) {
	t.Parallel()
	r := NewFailed(subject.Job{ID: "j", Pipeline: "text"}, v1.NewProblem(v1.Internal, "%s", strings.Repeat("é", 9<<20)))
	if n := len(r.Problem.Detail); n > v1.MaxDetail {
		t.Errorf("the detail has %d bytes, want %d at most", n, v1.MaxDetail)
	}
	if _, err := Message(t.Context(), nil, r); err != nil {
		t.Errorf("the outcome cannot be stored: %v", err)
	}
}
