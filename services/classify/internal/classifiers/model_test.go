package classifiers

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets/onnxruntime"
)

// coloursNetwork is a network whose output equals its input: the blue, green and red of a pixel,
// where the pixel value 100 means 1.
const coloursNetwork = `
name: "colours"
input: "data"
input_shape { dim: 1 dim: 3 dim: 1 dim: 1 }
layer { name: "out" type: "Power" bottom: "data" top: "out" power_param { scale: 1 } }
`

const coloursModel = `
version: "1.2"
kind: classifier
engines: [onnxruntime, opencv]
weights: colours.caffemodel
config: colours.prototxt
labels: labels.txt
input: {width: 1, height: 1, resize: stretch, channels: bgr, scale: 0.01}
output: {format: probabilities}
threshold: 0.5
classes: 3
`

// writeColoursModel makes the model folder of colours in root. files replaces or adds files.
func writeColoursModel(t *testing.T, root, name string, files map[string]string) {
	t.Helper()
	all := map[string]string{
		model.File: coloursModel, "colours.caffemodel": "\x0a\x07colours", "colours.prototxt": coloursNetwork,
		"labels.txt": "blue\ngreen\nred\n",
	}
	maps.Copy(all, files)
	if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range all {
		if err := os.WriteFile(filepath.Join(root, name, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// editModelYAML returns the model.yaml of colours with replacements: pairs of old and new text.
func editModelYAML(t *testing.T, replacements ...string) map[string]string {
	t.Helper()
	text := coloursModel
	for i := 0; i < len(replacements); i += 2 {
		if !strings.Contains(text, replacements[i]) {
			t.Fatalf("no %q in the model", replacements[i])
		}
		text = strings.Replace(text, replacements[i], replacements[i+1], 1)
	}
	return map[string]string{model.File: text}
}

// startModel starts a lane with a pipeline p of a model in root.
func startModel(t *testing.T, root, name string, settings map[string]any) (*handler, lane.Loaded) {
	t.Helper()
	all := map[string]any{"model": name}
	maps.Copy(all, settings)
	raw, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	h := newHandler()
	pipelines := map[string]lane.Setup{"p": {Kind: "model", Settings: raw}}
	loaded, err := h.Start(lane.Start{Models: root, Pipelines: pipelines})
	if err != nil {
		t.Fatal(err)
	}
	return h, loaded["p"]
}

// checkLoaded checks that a pipeline is loaded with one model of this name.
func checkLoaded(t *testing.T, l lane.Loaded, name string) {
	t.Helper()
	if l.Error != "" {
		t.Fatalf("not loaded: %s, want %s", l.Error, name)
	}
	if len(l.Models) != 1 {
		t.Fatalf("%d models, want %s", len(l.Models), name)
	}
	if l.Models[0].Name != name {
		t.Errorf("the model is %s, want %s", l.Models[0].Name, name)
	}
}

func TestModel_Classifies(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeColoursModel(t, root, "colours", nil)
	writeColoursModel(t, root, "logits", editModelYAML(t, "probabilities", "logits", "0.5", "0.05"))
	writeColoursModel(t, root, "vector", editModelYAML(t, "kind: classifier", "kind: embedding",
		"labels: labels.txt", "", "output: {format: probabilities}", "", "threshold: 0.5", "", "classes: 3", ""))
	const bgr, grey = 3, 1
	for name, tt := range map[string]struct {
		model    string
		settings map[string]any
		channels int
		pixels   []byte
		want     lane.CropLabel
	}{
		"best first": {"colours", nil, bgr, []byte{60, 20, 90}, lane.CropLabel{
			Region: 7, Score: 0.9, Labels: []v1.Label{{Label: "red", Score: 0.9}, {Label: "blue", Score: 0.6}},
		}},
		"top": {"colours", map[string]any{"top": 1}, bgr, []byte{60, 20, 90}, lane.CropLabel{
			Region: 7, Score: 0.9, Labels: []v1.Label{{Label: "red", Score: 0.9}},
		}},
		"other threshold": {"colours", map[string]any{"threshold": 0.7}, bgr, []byte{60, 20, 90}, lane.CropLabel{
			Region: 7, Score: 0.9, Labels: []v1.Label{{Label: "red", Score: 0.9}},
		}},
		"below the threshold": {"colours", nil, bgr, []byte{30, 20, 10}, lane.CropLabel{Region: 7}},
		"grey crop": {"colours", nil, grey, []byte{80}, lane.CropLabel{
			Region: 7, Score: 0.8, Labels: []v1.Label{{Label: "blue", Score: 0.8}, {Label: "green", Score: 0.8},
				{Label: "red", Score: 0.8}},
		}},
		"logits": {"logits", nil, bgr, []byte{0, 200, 100}, lane.CropLabel{
			Region: 7, Score: 0.6652, Labels: []v1.Label{{Label: "green", Score: 0.6652}, {Label: "red", Score: 0.2447},
				{Label: "blue", Score: 0.09}},
		}},
		"embedding": {"vector", nil, bgr, []byte{30, 0, 40},
			lane.CropLabel{Region: 7, Embedding: []float32{0.6, 0, 0.8}}},
		"without direction": {"vector", nil, bgr, []byte{0, 0, 0}, lane.CropLabel{Region: 7}},
	} {
		h, loaded := startModel(t, root, tt.model, tt.settings)
		checkLoaded(t, loaded, tt.model)
		crop := lane.Crop{Region: 7, Width: 1, Height: 1, Channels: tt.channels}
		got, err := h.Classify(lane.Classify{Pipeline: "p", Crops: []lane.Crop{crop}}, tt.pixels)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(got.Answers, []lane.CropLabel{tt.want}) {
			t.Errorf("%s: %+v, want %+v", name, got.Answers, tt.want)
		}
	}
}

// TestHandler_ReadsColourCrops checks that a classifier for grey crops accepts colour crops.
func TestHandler_ReadsColourCrops(t *testing.T) {
	t.Parallel()
	crop, grey := drawLine("Images go in")
	m, err := gocv.NewMatFromBytes(crop.Height, crop.Width, gocv.MatTypeCV8UC1, grey)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	gocv.CvtColor(m, &m, gocv.ColorGrayToBGR)
	crop.Channels = 3
	out, err := loadHandler(t).Classify(lane.Classify{Pipeline: "text", Crops: []lane.Crop{crop}}, m.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Answers[0].Text; got != "Images go in" {
		t.Errorf("read %q", got)
	}
}

// TestModel_RejectsAtStart checks that a pipeline whose model cannot be used is not ready,
// with the reason in one line.
func TestModel_RejectsAtStart(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	embedding := []string{"kind: classifier", "kind: embedding", "output: {format: probabilities}", "",
		"labels: labels.txt", "", "classes: 3", "", "threshold: 0.5", ""}
	for name, tt := range map[string]struct {
		files    map[string]string
		settings map[string]any
		want     string
	}{
		"typo":    {nil, map[string]any{"tresholds": 0.5}, "tresholds"},
		"no-name": {nil, map[string]any{"model": ""}, "settings.model: missing"},
		"absent": {nil, map[string]any{"model": "nosuch"},
			filepath.Join(root, "nosuch") +
				": the folder does not exist; sightmesh models pull fetches models, see docs/models.md"},
		"high-threshold": {nil, map[string]any{"threshold": 1.5}, "threshold: 1.5"},
		"no-threshold":   {editModelYAML(t, "threshold: 0.5", ""), nil, "threshold: 0 in model.yaml"},
		"bad-top":        {nil, map[string]any{"top": -1}, "top: -1"},
		"two-mistakes": {editModelYAML(t, "version: \"1.2\"\nkind: classifier", ""), nil,
			"version: missing; kind: missing"},
		"other-engine": {editModelYAML(t, "[onnxruntime, opencv]", "[onnxruntime]"), nil, "engines: [onnxruntime]"},
		"detector": {editModelYAML(t, "kind: classifier", "kind: yolo"), nil,
			`model.yaml: kind: "yolo", want a kind of classification models`},
		"no-format": {editModelYAML(t, "format: probabilities", ""), nil, `output.format: ""`},
		"other-output": {editModelYAML(t, "probabilities", "probabilities, names: [in]"), nil,
			`it has no output "in", but ["out"]`},
		"two-outputs": {editModelYAML(t, "probabilities", "probabilities, names: [a, b]"), nil,
			"output.names: 2 names, want 1"},
		"other-shape": {editModelYAML(t, "classes: 3", "classes: 2"), nil, "labels.txt has 3 lines"},
		"other-classes": {map[string]string{
			model.File: editModelYAML(t, "classes: 3", "classes: 2")[model.File], "labels.txt": "a\nb\n",
		}, nil, "output out has the shape [1 3 1 1], want [1 2 1 1]"},
		"no-labels": {editModelYAML(t, "labels: labels.txt", ""), nil, "labels: missing"},
		"other-input": {editModelYAML(t, "channels: bgr", "channels: grey"), nil,
			"output out has the shape [1 1 1 1]"},
		"not-a-number": {map[string]string{
			"colours.prototxt": strings.Replace(coloursNetwork, "scale: 1", "scale: nan", 1),
		}, nil, "output out has values that are not numbers (NaN)"},
		"infinite": {map[string]string{
			"colours.prototxt": strings.Replace(coloursNetwork, "scale: 1", "scale: 1 shift: inf", 1),
		}, nil, "output out has values that are not numbers (+Inf)"},
		"other-format": {editModelYAML(t, "scale: 0.01", "mean: [-3, 0, 0]"), nil,
			"output out has a score of 3, want 0 to 1"},
		"angle-labels": {editModelYAML(t, "kind: classifier", "kind: angle"), nil,
			`labels: ["blue" "green" "red"], want ["0" "180"]`},
		"embedding-threshold": {editModelYAML(t, embedding...), map[string]any{"threshold": 0.5},
			"threshold: not used by embedding, which has no scores"},
		"embedding-classes": {editModelYAML(t, "kind: classifier", "kind: embedding"), nil,
			"classes: not used by embedding with output.format probabilities; labels: not used"},
		"embedding-top": {editModelYAML(t, embedding...), map[string]any{"top": 5},
			"top: not used by embedding, which has no labels"},
	} {
		writeColoursModel(t, root, name, tt.files)
		_, loaded := startModel(t, root, name, tt.settings)
		if !strings.Contains(loaded.Error, tt.want) {
			t.Errorf("%s: %q, want %q", name, loaded.Error, tt.want)
		}
		if strings.Contains(loaded.Error, "\n") {
			t.Errorf("%s: %q, want one line", name, loaded.Error)
		}
	}
}

// TestModel_FallsBack checks that the fallback is used when the model folder or the engine is
// missing, but not when the model is broken.
func TestModel_FallsBack(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeColoursModel(t, root, "broken", map[string]string{"colours.caffemodel": ""})
	writeColoursModel(t, root, "no-engine", editModelYAML(t, "[onnxruntime, opencv]", "[onnxruntime]"))
	fallback := map[string]any{"fallback": map[string]any{"kind": "tesseract"}}

	_, loaded := startModel(t, root, "absent", fallback)
	checkLoaded(t, loaded, "tesseract-eng")
	_, loaded = startModel(t, root, "broken", fallback)
	if !strings.Contains(loaded.Error, "colours.caffemodel: the file has no bytes") {
		t.Errorf("broken: %+v, want the reason", loaded)
	}
	if _, err := onnxruntime.Find("", root); err == nil {
		t.Skip("a model without its engine was not run: the system has ONNX Runtime")
	}
	_, loaded = startModel(t, root, "no-engine", fallback)
	checkLoaded(t, loaded, "tesseract-eng")
}

// TestModel_ReadsWithTesseract tests a model folder that contains the data of a language.
func TestModel_ReadsWithTesseract(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	data, err := os.ReadFile("/usr/share/tesseract-ocr/5/tessdata/eng.traineddata")
	if err != nil {
		t.Fatal(err)
	}
	const described = "version: '4.1'\nkind: tesseract\nweights: own.traineddata\n"
	for name, tt := range map[string]struct {
		yaml     string
		data     []byte
		settings map[string]any
		want     string // the error; empty for a valid model
	}{
		"eng":     {described + "settings: {min_score: 0.5}\n", data, nil, ""},
		"cut":     {described, data[:1000], nil, `weights: load language "own"`},
		"garbage": {described, []byte(strings.Repeat("garbage", 1000)), nil, `weights: load language "own"`},
		"LFS": {described, []byte("version https://git-lfs.github.com/spec/v1\n"), nil,
			"own.traineddata: a Git LFS pointer"},
		"language": {described + "settings: {languages: [eng]}\n", data, nil,
			"model.yaml: settings.languages: no such setting; known are min_score, sure_score"},
		"score":   {described + "settings: {min_score: 60}\n", data, nil, "model.yaml: settings.min_score: 60"},
		"engines": {described + "engines: [opencv]\n", data, nil, "engines: not used by tesseract"},
		"name": {"version: '1'\nkind: tesseract\nweights: eng\n", data, nil,
			`weights: "eng", want the name of a language`},
		"none": {"version: '1'\nkind: tesseract\n", data, nil, "weights: missing"},
		"threshold": {described, data, map[string]any{"threshold": 0.5},
			"settings: threshold and top: not used by tesseract"},
	} {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string][]byte{model.File: []byte(tt.yaml), "own.traineddata": tt.data} {
			if err := os.WriteFile(filepath.Join(dir, file), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		h, loaded := startModel(t, root, name, tt.settings)
		if tt.want != "" {
			if !strings.Contains(loaded.Error, tt.want) {
				t.Errorf("%s: %q, want %q", name, loaded.Error, tt.want)
			}
			continue
		}
		checkLoaded(t, loaded, name)
		crop, pixels := drawLine("Images go in")
		out, err := h.Classify(lane.Classify{Pipeline: "p", Crops: []lane.Crop{crop}}, pixels)
		if err != nil {
			t.Fatal(err)
		}
		if got := out.Answers[0].Text; got != "Images go in" {
			t.Errorf("read %q", got)
		}
	}
}
