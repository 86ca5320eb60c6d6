package lanes

import (
	"errors"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/lane"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func region(b v1.Box, score float64, label string) lane.Detected {
	return lane.Detected{Width: 100, Height: 50, Regions: []lane.Region{{Box: b, Score: score, Label: label}}}
}

func TestCheckDetected_NamesFieldAndValue(t *testing.T) {
	t.Parallel()
	inside := v1.Box{X: 0, Y: 0, Width: 100, Height: 50}
	for name, tt := range map[string]struct {
		found lane.Detected
		want  string // empty for an answer that is right
	}{
		"right":          {region(inside, 1, "face"), ""},
		"nothing":        {lane.Detected{Width: 1, Height: 1}, ""},
		"no size":        {lane.Detected{}, "width and height: 0 x 0"},
		"orientation":    {lane.Detected{Width: 1, Height: 1, Orientation: 9}, "orientation: 9"},
		"score":          {region(inside, 93.7, ""), "regions.0.score: 93.7"},
		"negative score": {region(inside, -0.1, ""), "regions.0.score: -0.1"},
		"no box":         {region(v1.Box{}, 1, ""), "regions.0.box: 0 x 0"},
		"box outside":    {region(v1.Box{X: 90, Width: 20, Height: 10}, 1, ""), "regions.0.box: 20 x 10 at 90, 0"},
		"long label":     {region(inside, 1, strings.Repeat("x", 300)), "regions.0.label"},
		"too many":       {lane.Detected{Width: 1, Height: 1, Regions: make([]lane.Region, 3)}, "regions: 3 of them"},
	} {
		checkProblem(t, name, checkDetected(tt.found, 2), tt.want)
	}
}

func TestCheckClassified_NamesFieldAndValue(t *testing.T) {
	t.Parallel()
	crops := []lane.Crop{{Width: 10, Height: 10, Channels: 1}}
	for name, tt := range map[string]struct {
		answers []lane.CropLabel
		want    string
	}{
		"right":        {[]lane.CropLabel{{Text: "a", Score: 1, Words: []v1.Word{{Box: v1.Box{Width: 10, Height: 10}, Text: "a", Score: 1}}}}, ""},
		"too few":      {nil, "answers: 0 of them"},
		"score":        {[]lane.CropLabel{{Score: 2}}, "answers.0.score: 2"},
		"label score":  {[]lane.CropLabel{{Labels: []v1.Label{{Label: "a", Score: 50}}}}, "answers.0.labels.0.score: 50"},
		"word outside": {[]lane.CropLabel{{Words: []v1.Word{{Box: v1.Box{X: 5, Width: 10, Height: 1}}}}}, "answers.0.words.0.box"},
		"not UTF-8":    {[]lane.CropLabel{{Text: "\xff"}}, "answers.0.text"},
	} {
		checkProblem(t, name, checkClassified(lane.Classified{Answers: tt.answers}, crops), tt.want)
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
