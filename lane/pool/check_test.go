package pool

import (
	"errors"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

func region(b v1.Box, score float64, label string) lane.Detected {
	return lane.Detected{Width: 100, Height: 50, Regions: []lane.Region{{Box: b, Score: score, Label: label}}}
}

func landmarks(ls ...v1.Landmark) lane.Detected {
	d := region(v1.Box{Width: 1, Height: 1}, 1, "face")
	d.Regions[0].Landmarks = ls
	return d
}

func polygon(corners ...v1.Point) lane.Detected {
	d := region(v1.Box{Width: 1, Height: 1}, 1, "text")
	d.Regions[0].Polygon = corners
	return d
}

func text(s string) lane.Detected {
	d := region(v1.Box{Width: 1, Height: 1}, 1, "code")
	d.Regions[0].Text = s
	return d
}

func TestCheckDetected_NamesFieldAndValue(t *testing.T) {
	t.Parallel()
	inside := v1.Box{X: 0, Y: 0, Width: 100, Height: 50}
	for name, tt := range map[string]struct {
		found lane.Detected
		want  string // empty for a valid reply
	}{
		"valid":          {region(inside, 1, "face"), ""},
		"nothing":        {lane.Detected{Width: 1, Height: 1}, ""},
		"no size":        {lane.Detected{}, "width and height: 0 x 0"},
		"orientation":    {lane.Detected{Width: 1, Height: 1, Orientation: 9}, "orientation: 9"},
		"score":          {region(inside, 93.7, ""), "regions.0.score: 93.7"},
		"negative score": {region(inside, -0.1, ""), "regions.0.score: -0.1"},
		"no box":         {region(v1.Box{}, 1, ""), "regions.0.box: 0 x 0"},
		"box outside":    {region(v1.Box{X: 90, Width: 20, Height: 10}, 1, ""), "regions.0.box: 20 x 10 at 90, 0"},
		"box too wide":   {region(v1.Box{X: math.MaxInt, Width: math.MaxInt, Height: 1}, 1, ""), "regions.0.box"},
		"box too high":   {region(v1.Box{Y: math.MaxInt, Width: 1, Height: math.MaxInt}, 1, ""), "regions.0.box"},
		"NUL":            {region(inside, 1, "fa\x00ce"), "regions.0.label"},
		"long label":     {region(inside, 1, strings.Repeat("x", 300)), "regions.0.label"},
		"landmark":       {landmarks(v1.Landmark{Name: "nose", X: -1, Y: 51}), ""},
		"far landmark": {landmarks(v1.Landmark{Name: "nose"}, v1.Landmark{Name: "chin", Y: 101}),
			"regions.0.landmarks.1: 0, 101"},
		"no name":        {landmarks(v1.Landmark{}), "regions.0.landmarks.0.name"},
		"many landmarks": {landmarks(make([]v1.Landmark, lane.MaxLandmarks+1)...), "regions.0.landmarks: 1001 of them"},
		"polygon":        {polygon(v1.Point{X: -1}, v1.Point{X: 101, Y: 3}, v1.Point{Y: 51}), ""},
		"two corners":    {polygon(v1.Point{}, v1.Point{X: 1}), "regions.0.polygon: 2 corners"},
		"many corners":   {polygon(make([]v1.Point, lane.MaxCorners+1)...), "regions.0.polygon: 1001 corners"},
		"far corner":     {polygon(v1.Point{}, v1.Point{X: 1}, v1.Point{X: 201}), "regions.0.polygon.2: 201, 0"},
		"NUL in a text":  {text("a\x00"), "regions.0.text"},
		"long text":      {text(strings.Repeat("x", maxText+1)), "regions.0.text"},
		"crop outside": {lane.Detected{Width: 5, Height: 5,
			Crops: []lane.Crop{{}, {Source: &v1.Box{X: 5, Width: 1, Height: 1}}}}, "crops.1.source: 1 x 1 at 5, 0"},
		"too many": {lane.Detected{Width: 1, Height: 1, Regions: make([]lane.Region, 3)}, "regions: 3 of them"},
	} {
		checkProblem(t, name, checkDetected(tt.found, 2), tt.want)
	}
}

func TestCheckClassified_NamesFieldAndValue(t *testing.T) {
	t.Parallel()
	crops := []lane.Crop{{Width: 10, Height: 10, Channels: 1}}
	words := []v1.Word{{Box: v1.Box{Width: 10, Height: 10}, Text: "a", Score: 1}}
	for name, tt := range map[string]struct {
		answers []lane.CropLabel
		want    string
	}{
		"valid":       {[]lane.CropLabel{{Text: "a", Score: 1, Words: words}}, ""},
		"too few":     {nil, "answers: 0 of them"},
		"score":       {[]lane.CropLabel{{Score: 2}}, "answers.0.score: 2"},
		"label score": {[]lane.CropLabel{{Labels: []v1.Label{{Label: "a", Score: 50}}}}, "answers.0.labels.0.score: 50"},
		"word outside": {[]lane.CropLabel{{Words: []v1.Word{{Box: v1.Box{X: 5, Width: 10, Height: 1}}}}},
			"answers.0.words.0.box"},
		"embedding": {[]lane.CropLabel{{Embedding: make([]float32, lane.MaxEmbedding)}}, ""},
		"long vector": {[]lane.CropLabel{{Embedding: make([]float32, lane.MaxEmbedding+1)}},
			"answers.0.embedding: 4097 numbers"},
		"not UTF-8": {[]lane.CropLabel{{Labels: []v1.Label{{Label: "\xff"}}}}, "answers.0.labels.0.label"},
	} {
		checkProblem(t, name, checkClassified(lane.Classified{Answers: tt.answers}, crops), tt.want)
	}
}

func TestFailure_OnlyCodesOfLanesAreKept(t *testing.T) {
	t.Parallel()
	for code, want := range map[v1.Code]v1.Code{
		v1.Damaged: v1.Damaged, v1.EmptyBody: v1.EmptyBody, v1.UnsupportedType: v1.UnsupportedType,
		v1.InvalidMessage: v1.InvalidMessage, v1.Internal: v1.Internal,
		v1.Cancelled: v1.Internal, v1.DeadlineExceeded: v1.Internal, v1.NoWorker: v1.Internal,
		v1.Overloaded: v1.Internal, v1.Unavailable: v1.Internal, "own-code": v1.Internal, "": v1.Internal,
	} {
		if p := newFailureProblem(code, "why"); p.Code != want {
			t.Errorf("%q becomes %s, want %s", code, p.Code, want)
		}
	}
}

func TestFailure_DetailHasTheCodeOfTheLane(t *testing.T) {
	t.Parallel()
	for code, want := range map[v1.Code]string{
		v1.Cancelled: `the lane failed with "cancelled": why`,
		"":           "the lane failed without a code: why",
	} {
		if p := newFailureProblem(code, "why"); p.Detail != want {
			t.Errorf("%q: the detail is %q, want %q", code, p.Detail, want)
		}
	}
}

func TestFailure_DetailIsLimited(t *testing.T) {
	t.Parallel()
	long := "x" + strings.Repeat("é", 5<<20)
	for _, code := range []v1.Code{v1.Damaged, v1.Cancelled, v1.Code(long)} {
		p := newFailureProblem(code, long)
		if n := len(p.Detail); n > v1.MaxDetail || n < v1.MaxDetail-1 {
			t.Errorf("%.20q: the detail has %d bytes, want at most %d, and no less than fits", code, n, v1.MaxDetail)
		}
		if !utf8.ValidString(p.Detail) {
			t.Errorf("%.20q: the detail ends with an incomplete character", code)
		}
	}
}

func checkProblem(t *testing.T, name string, err error, want string) {
	t.Helper()
	var p *v1.Problem
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want != "" && !errors.As(err, &p):
		t.Errorf("%s: %v, want a problem", name, err)
	case want != "" && !strings.Contains(p.Detail, want):
		t.Errorf("%s: %q, want %q in it", name, p.Detail, want)
	}
}
