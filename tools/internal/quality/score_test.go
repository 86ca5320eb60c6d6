package quality

import (
	"encoding/json"
	"reflect"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// parseExpected parses an expectation as from a file.
func parseExpected(t *testing.T, text string) Expected {
	t.Helper()
	var e Expected
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func region(label string, x, y, width, height int) v1.Region {
	return v1.Region{Label: label, Box: v1.Box{X: x, Y: y, Width: width, Height: height}}
}

// newRegions returns regions with labels and without boxes.
func newRegions(labels ...string) []v1.Region {
	var rs []v1.Region
	for _, l := range labels {
		rs = append(rs, v1.Region{Label: l})
	}
	return rs
}

func TestMatch(t *testing.T) {
	t.Parallel()
	two := []box{{0, 0, 100, 100}, {200, 0, 300, 100}}
	for name, tt := range map[string]struct {
		want    []box
		found   []v1.Box
		matched int
		left    int
	}{
		"exact":                    {two, []v1.Box{{X: 200, Width: 100, Height: 100}, {Width: 100, Height: 100}}, 2, 0},
		"overlaps by two fifths":   {two[:1], []v1.Box{{X: 41, Width: 100, Height: 100}}, 1, 0},
		"centre inside, and small": {two[:1], []v1.Box{{X: 90, Y: 90, Width: 10, Height: 10}}, 1, 0},
		"beside":                   {two[:1], []v1.Box{{X: 99, Width: 100, Height: 100}}, 0, 1},
		"two on one":               {two, []v1.Box{{Width: 100, Height: 100}, {X: 5, Width: 100, Height: 100}}, 1, 1},
		"nothing":                  {two, nil, 0, 0},
	} {
		matched, left := match(tt.want, tt.found)
		if matched != tt.matched {
			t.Errorf("%s: %d matched, want %d", name, matched, tt.matched)
		}
		if len(left) != tt.left {
			t.Errorf("%s: %d left, want %d", name, len(left), tt.left)
		}
	}
}

func TestScoreFaces(t *testing.T) {
	t.Parallel()
	face := region(labelFace, 10, 10, 80, 80)
	for name, tt := range map[string]struct {
		expected string
		regions  []v1.Region
		want     Score
		unscored bool
	}{
		"found": {`{"faces": {"count": 1, "boxes": [[0, 0, 100, 100]]}}`, []v1.Region{face},
			Score{Expected: 1, Found: 1}, false},
		"missed": {`{"faces": {"count": 1, "boxes": [[0, 0, 100, 100]]}}`, nil, Score{Expected: 1}, false},
		"another label": {`{"faces": {"count": 1, "boxes": [[0, 0, 100, 100]]}}`, newRegions("nose"),
			Score{Expected: 1}, false},
		"false":            {`{"faces": {"count": 0, "boxes": []}}`, []v1.Region{face}, Score{False: 1}, false},
		"no face expected": {`{}`, []v1.Region{face}, Score{False: 1}, false},
		"of a dog":         {`{"counts": {"dog": 1}}`, []v1.Region{face}, Score{False: 1, AnimalFaces: 1}, false},
		"not of a dog": {`{"counts": {"dog": 1}, "objects": [{"label": "dog", "box": [200, 0, 300, 100]}]}`,
			[]v1.Region{face}, Score{False: 1}, false},
		"persons without one": {`{"counts": {"person": 1}}`, []v1.Region{face}, Score{}, true},
	} {
		got, scored := scoreFaces(parseExpected(t, tt.expected), tt.regions)
		if scored == tt.unscored {
			t.Errorf("%s: scored is %v, want %v", name, scored, !tt.unscored)
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestScoreObjects(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		expected string
		labels   []string
		want     Score
	}{
		"all": {`{"counts": {"dog": 2, "cat": 1}}`, []string{"dog", "cat", "dog"},
			Score{Expected: 3, Found: 3}},
		"one of two": {`{"counts": {"dog": 2}}`, []string{"dog"}, Score{Expected: 2, Found: 1}},
		"a label missed": {`{"counts": {"dog": 1, "cat": 1}}`, []string{"cat"},
			Score{Expected: 2, Found: 1, Missed: []string{"x: dog"}}},
		"more than counted": {`{"counts": {"dog": 1}}`, []string{"dog", "dog"}, Score{Expected: 1, Found: 1, False: 1}},
		"at least": {`{"at_least": {"person": 2}}`, []string{"person", "person", "person"},
			Score{Expected: 2, Found: 2}},
		"may be there": {`{"counts": {"dog": 1}, "at_least": {"chair": 0}}`, []string{"dog", "chair"},
			Score{Expected: 1, Found: 1}},
		"unlisted": {`{"counts": {"dog": 1}}`, []string{"dog", "chair"}, Score{Expected: 1, Found: 1, False: 1}},
		"as fair": {`{"counts": {"truck": 1}, "alternatives": {"truck": ["car"]}}`, []string{"car"},
			Score{Expected: 1, Found: 1}},
		"as fair, and itself": {
			`{"counts": {"truck": 1, "car": 1}, "alternatives": {"truck": ["car"]}}`, []string{"car", "truck"},
			Score{Expected: 2, Found: 2},
		},
		"as fair, but it is the car": {
			`{"counts": {"truck": 1, "car": 1}, "alternatives": {"truck": ["car"]}}`, []string{"car"},
			Score{Expected: 2, Found: 1, Missed: []string{"x: truck"}},
		},
	} {
		got, scored := scoreObjects("x", parseExpected(t, tt.expected), newRegions(tt.labels...))
		if !scored {
			t.Errorf("%s: no score", name)
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
	if _, scored := scoreObjects("x", parseExpected(t, `{"counts": {"qrcode": 1}}`), nil); scored {
		t.Error("an image without expected objects has a score")
	}
}

func TestScoreCodes(t *testing.T) {
	t.Parallel()
	const one = `"counts": {"qrcode": 1}, "objects": [{"label": "qrcode", "box": [0, 0, 100, 100]}]`
	code := region("qr-code", 5, 5, 90, 90)
	code.Text = "https://example.org"
	elsewhere := region("qr-code", 200, 5, 90, 90)
	for name, tt := range map[string]struct {
		expected string
		regions  []v1.Region
		want     Score
	}{
		"found":     {`{` + one + `}`, []v1.Region{code}, Score{Expected: 1, Found: 1}},
		"elsewhere": {`{` + one + `}`, []v1.Region{elsewhere}, Score{Expected: 1, False: 1}},
		"read": {`{` + one + `, "codes": ["https://example.org"]}`, []v1.Region{code},
			Score{Expected: 1, Found: 1}},
		"read wrongly":    {`{` + one + `, "codes": ["https://example.com"]}`, []v1.Region{code}, Score{Expected: 1}},
		"only known text": {`{"codes": ["https://example.org"]}`, []v1.Region{code}, Score{Expected: 1, Found: 1}},
		"none is there":   {`{}`, []v1.Region{code}, Score{False: 1}},
	} {
		if got := scoreCodes(parseExpected(t, tt.expected), tt.regions); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}
