package classifiers

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// startByLabel starts a lane whose pipeline p has these classifiers.
func startByLabel(t *testing.T, root string, byLabel map[string]lane.Setup) (*handler, lane.Loaded) {
	t.Helper()
	h := newHandler()
	loaded, err := h.Start(lane.Start{Models: root, Pipelines: map[string]lane.Setup{"p": {ByLabel: byLabel}}})
	if err != nil {
		t.Fatal(err)
	}
	return h, loaded["p"]
}

func ofModel(name string) lane.Setup {
	return lane.Setup{Kind: "model", Settings: json.RawMessage(`{"model":"` + name + `"}`)}
}

// TestByLabel_AsksTheClassifierOfTheLabel: each in the channels that it needs, in the order
// of the crops; a crop whose label has none keeps what the detector has said.
func TestByLabel_AsksTheClassifierOfTheLabel(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	coloursFolder(t, root, "colours", nil)
	coloursFolder(t, root, "shades", map[string]string{"labels.txt": "dark\nmiddle\nlight\n"})
	h, l := startByLabel(t, root, map[string]lane.Setup{
		"car": ofModel("colours"), "person": ofModel("shades"), "text": {Kind: "tesseract"}, "bus": ofModel("colours"),
	})
	if l.Error != "" {
		t.Fatalf("not loaded: %s", l.Error)
	}
	line, pixels := drawn("Pictures go in")
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
		t.Fatalf("%d answers, want one for each of %d crops", len(got.Answers), len(crops))
	}
	if read := got.Answers[4]; read.Text != "Pictures go in" || read.Region != 8 {
		t.Errorf("the line is read as %+v", read)
	}
	want := []lane.CropLabel{
		{Region: 1, Score: 0.9, Labels: []v1.Label{{Label: "middle", Score: 0.9}}},
		{Region: 2},
		{Region: 3, Score: 0.8, Labels: []v1.Label{{Label: "red", Score: 0.8}}},
		{Region: 5},
	}
	if !reflect.DeepEqual(got.Answers[:4], want) {
		t.Errorf("answers %+v, want %+v", got.Answers[:4], want)
	}
	names := make([]string, 0, len(l.Models))
	for _, m := range l.Models {
		names = append(names, m.Name)
	}
	if want := []string{"colours", "shades", "tesseract-eng"}; !reflect.DeepEqual(names, want) {
		t.Errorf("the models are %v, want each once: %v", names, want)
	}
}

// TestByLabel_RejectsAtStart: a pipeline with a classifier that cannot be used is not ready,
// and the reason has its label.
func TestByLabel_RejectsAtStart(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	coloursFolder(t, root, "colours", nil)
	coloursFolder(t, root, "wide", described(t, "{width: 1,", "{width: 2,")) // fails when it is run
	for name, tt := range map[string]struct {
		car  lane.Setup
		want string
	}{
		"kind":           {lane.Setup{Kind: "oracle"}, `by_label.car: classify has no kind "oracle"`},
		"settings":       {lane.Setup{Kind: "tesseract", Settings: json.RawMessage(`{"langs":[]}`)}, "by_label.car: settings: "},
		"model":          {ofModel("nosuch"), "by_label.car: load model nosuch: "},
		"first run":      {ofModel("wide"), "by_label.car: model wide: "},
		"no kind at all": {lane.Setup{}, `by_label.car: classify has no kind ""`},
	} {
		_, l := startByLabel(t, root, map[string]lane.Setup{"person": ofModel("colours"), "car": tt.car})
		if !strings.Contains(l.Error, tt.want) {
			t.Errorf("%s: the error is %q, want %q in it", name, l.Error, tt.want)
		}
	}
}
