package classifiers

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// startByLabel starts a lane with a pipeline p that has these classifiers by label.
func startByLabel(t *testing.T, root string, byLabel map[string]lane.Setup) (*handler, lane.Loaded) {
	t.Helper()
	h := newHandler()
	loaded, err := h.Start(lane.Start{Models: root, Pipelines: map[string]lane.Setup{"p": {ByLabel: byLabel}}})
	if err != nil {
		t.Fatal(err)
	}
	return h, loaded["p"]
}

// modelSetup returns the setup of a model.
func modelSetup(name string) lane.Setup {
	return lane.Setup{Kind: "model", Settings: json.RawMessage(`{"model":"` + name + `"}`)}
}

// TestByLabel_ClassifiesByLabel checks that each crop is classified by the
// classifier for its label, with the channels that it needs, and that the outcomes are in the
// order of the crops. A crop whose label has no classifier has an empty outcome.
func TestByLabel_ClassifiesByLabel(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeColoursModel(t, root, "colours", nil)
	writeColoursModel(t, root, "shades", map[string]string{"labels.txt": "dark\nmiddle\nlight\n"})
	h, l := startByLabel(t, root, map[string]lane.Setup{
		"car": modelSetup("colours"), "bus": modelSetup("colours"), "person": modelSetup("shades"),
		"text": {Kind: "tesseract"},
	})
	if l.Error != "" {
		t.Fatalf("not loaded: %s", l.Error)
	}
	line, pixels := drawLine("Images go in")
	crops := []lane.Crop{
		{Region: 1, Width: 1, Height: 1, Channels: 3, Label: "person"},
		{Region: 2, Width: 1, Height: 1, Channels: 3, Label: "dog"},
		{Region: 3, Width: 1, Height: 1, Channels: 3, Label: "car"},
		{Region: 5, Width: 1, Height: 1, Channels: 1},
		{Region: 8, Width: line.Width, Height: line.Height, Channels: 1, Label: "text"},
	}
	all := append([]byte{10, 90, 20, 1, 2, 3, 10, 20, 80, 7}, pixels...)
	got, err := h.Classify(lane.Classify{Pipeline: "p", Crops: crops}, all)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Answers) != len(crops) {
		t.Fatalf("%d outcomes, want one for each of %d crops", len(got.Answers), len(crops))
	}
	if got := got.Answers[4].Text; got != "Images go in" {
		t.Errorf("the text of the line is %q, want %q", got, "Images go in")
	}
	if got := got.Answers[4].Region; got != 8 {
		t.Errorf("the line has the region %d, want 8", got)
	}
	want := []lane.CropLabel{
		{Region: 1, Score: 0.9, Labels: []v1.Label{{Label: "middle", Score: 0.9}}},
		{Region: 2},
		{Region: 3, Score: 0.8, Labels: []v1.Label{{Label: "red", Score: 0.8}}},
		{Region: 5},
	}
	if !reflect.DeepEqual(got.Answers[:4], want) {
		t.Errorf("outcomes %+v, want %+v", got.Answers[:4], want)
	}
	names := make([]string, 0, len(l.Models))
	for _, m := range l.Models {
		names = append(names, m.Name)
	}
	if want := []string{"colours", "shades", "tesseract-eng"}; !reflect.DeepEqual(names, want) {
		t.Errorf("the models are %v, want %v, each once", names, want)
	}
}

// TestByLabel_RejectsAtStart checks that a pipeline with a classifier that cannot be used is
// not ready, and that the reason contains its label.
func TestByLabel_RejectsAtStart(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeColoursModel(t, root, "colours", nil)
	writeColoursModel(t, root, "wide", editModelYAML(t, "{width: 1,", "{width: 2,")) // fails in its first run
	for name, tt := range map[string]struct {
		car  lane.Setup
		want string
	}{
		"kind": {lane.Setup{Kind: "oracle"}, `by_label.car: classify has no kind "oracle"`},
		"settings": {
			lane.Setup{Kind: "tesseract", Settings: json.RawMessage(`{"langs":[]}`)}, "by_label.car: settings.langs: ",
		},
		"model":          {modelSetup("nosuch"), "by_label.car: load model nosuch: "},
		"first run":      {modelSetup("wide"), "by_label.car: model wide: "},
		"no kind at all": {lane.Setup{}, `by_label.car: classify has no kind ""`},
	} {
		_, l := startByLabel(t, root, map[string]lane.Setup{"person": modelSetup("colours"), "car": tt.car})
		if !strings.Contains(l.Error, tt.want) {
			t.Errorf("%s: the error is %q, want %q in it", name, l.Error, tt.want)
		}
	}
}
