package outcome

import (
	"errors"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
)

func TestMessage_RejectsAnAnswerThatIsTooLarge(t *testing.T) {
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
		{Part: 1, Parts: 2, Regions: []v1.PartRegion{region(3, "three"), region(2, "two")}, Models: []v1.Model{a, b}, Timings: v1.Timings{Queue: 1, Classify: 9}},
		{Part: 0, Parts: 2, Regions: []v1.PartRegion{region(0, "zero"), region(1, "")}, Models: []v1.Model{a}, Timings: v1.Timings{Queue: 5, Classify: 2}, Image: v1.Image{Width: 7}},
	}
	r := Join("job", pipeline.Pipeline{Name: "p", Text: true}, parts)
	if r.Status != v1.Done || r.ID != "job" || r.Pipeline != "p" || r.Image.Width != 7 || len(r.Regions) != 4 || len(r.Models) != 2 || *r.Text != "zero\ntwo\nthree\n" {
		t.Errorf("got %+v %q", r, *r.Text)
	}
	if r.Timings.Queue != 5 || r.Timings.Classify != 9 {
		t.Errorf("timings %+v", r.Timings)
	}
	if r := Join("job", pipeline.Pipeline{}, []v1.Part{{Parts: 1}}); r.Text != nil || r.Regions == nil || len(r.Regions) != 0 {
		t.Errorf("nothing found: %+v", r)
	}
	parts[0].Problem = v1.NewProblem(v1.LaneDied, "")
	if r := Join("job", pipeline.Pipeline{}, parts); r.Status != v1.Failed || r.Problem.Code != v1.LaneDied {
		t.Errorf("a failed part: %+v", r)
	}
}

func TestFailed_CutsALongDetail(t *testing.T) {
	t.Parallel()
	r := Failed(subject.Job{ID: "j", Pipeline: "text"}, v1.NewProblem(v1.Internal, "%s", strings.Repeat("é", 9<<20)))
	if n := len(r.Problem.Detail); n > maxDetail {
		t.Errorf("the detail has %d bytes, want %d at most", n, maxDetail)
	}
	if _, err := Message(t.Context(), nil, r); err != nil {
		t.Errorf("the outcome cannot be stored: %v", err)
	}
}
