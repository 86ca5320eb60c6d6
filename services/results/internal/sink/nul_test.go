package sink

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestWithoutNUL(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]string{
		`{"a":1.50}`:                        `{"a":1.50}`,
		`{"a":"x\u0000y","n":1.50}`:         `{"a":"x\ufffdy","n":1.50}`,
		`{"a\u0000":["\u0000",{"b":null}]}`: `{"a\ufffd":["\ufffd",{"b":null}]}`,
		`{"a":"\\u0000"}`:                   `{"a":"\\u0000"}`,
	} {
		out, err := withoutNUL([]byte(doc))
		if err != nil {
			t.Errorf("%s: %v", doc, err)
			continue
		}
		var got, w any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(want), &w); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, w) {
			t.Errorf("%s: %s, want %s", doc, out, want)
		}
	}
	if _, err := withoutNUL([]byte(`{"a":"\u0000`)); err == nil {
		t.Error("no error for invalid JSON")
	}
}

func TestFlattenLabels(t *testing.T) {
	t.Parallel()
	regions, labels, scores := flattenLabels(v1.Result{Regions: []v1.Region{
		{Label: "face", Score: 0.5, Labels: []v1.Label{{Label: "smile", Score: 0.25}}}, {Text: "read"},
		{Label: "text", Score: 1},
	}})
	if want := []int32{0, 0, 2}; !slices.Equal(regions, want) {
		t.Errorf("the regions are %v, want %v", regions, want)
	}
	if want := []string{"face", "smile", "text"}; !slices.Equal(labels, want) {
		t.Errorf("the labels are %v, want %v", labels, want)
	}
	if want := []float32{0.5, 0.25, 1}; !slices.Equal(scores, want) {
		t.Errorf("the scores are %v, want %v", scores, want)
	}
}
