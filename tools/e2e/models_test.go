package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// modelsPipelines are pipelines with a network that the test writes, with a network whose
// folder is missing, and with a network that cannot be read.
const modelsPipelines = `
pipelines:
  - name: rows
    detect: {kind: model, settings: {model: rows}}
  - name: absent
    detect: {kind: model, settings: {model: nosuch}}
  - name: broken
    detect: {kind: model, settings: {model: broken}}
`

// rowsModel is a network whose output is its input. Each row of 7 pixels of an image is a
// region that it "finds". The pixel value 100 is 1.
var rowsModel = map[string]string{
	"model.yaml": `
version: "1.2"
kind: ssd
engines: [opencv]
weights: rows.caffemodel
config: rows.prototxt
labels: labels.txt
input: {width: 7, height: 4, resize: stretch, channels: grey, scale: 0.01}
threshold: 0.5
classes: 2
`,
	"labels.txt":      "background\nbox\n",
	"rows.caffemodel": "\x0a\x04rows",
	"rows.prototxt": `
name: "rows"
input: "data"
input_shape { dim: 1 dim: 1 dim: 4 dim: 7 }
layer { name: "out" type: "Power" bottom: "data" top: "out" power_param { scale: 1 } }
`,
}

// awaitPipelines waits until no pipeline is starting, and returns the pipelines by name.
func (m *mesh) awaitPipelines(t *testing.T) map[string]v1.Pipeline {
	t.Helper()
	pipelines := map[string]v1.Pipeline{}
	eventually.Succeeds(t, responseTimeout, func() error {
		var list v1.Pipelines
		if err := json.Unmarshal(m.get(t, "/v1/pipelines").body, &list); err != nil {
			return err
		}
		for _, p := range list.Pipelines {
			pipelines[p.Name] = p
			if p.State == v1.PipelineStarting {
				return fmt.Errorf("%s: %s", p.Name, p.Reason)
			}
		}
		return nil
	})
	return pipelines
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestModels_FolderIsServed checks that a pipeline with a network in the folder of models
// is ready. A pipeline whose network is missing or broken is not ready and has a reason.
func TestModels_FolderIsServed(t *testing.T) {
	models := t.TempDir()
	writeFiles(t, filepath.Join(models, "rows"), rowsModel)
	writeFiles(t, filepath.Join(models, "broken"), rowsModel)
	writeFiles(t, filepath.Join(models, "broken"), map[string]string{"rows.prototxt": "<!DOCTYPE html>"})
	file := filepath.Join(models, "pipelines.yaml")
	writeFiles(t, models, map[string]string{"pipelines.yaml": modelsPipelines})
	m := start(t, nil, "--pipelines", file, "--models", models)
	pipelines := m.awaitPipelines(t)
	inUse := regexp.MustCompile(`"models in use".*"pipelines":"rows: rows; absent: not ready; broken: not ready"`)
	if _, ok := m.stderr.search(inUse, responseTimeout); !ok {
		t.Errorf("no line matches %v:\n%s", inUse, m.stderr)
	}

	r := m.postDone(t, "?pipeline=rows", boxImage(t))
	switch {
	case len(r.Regions) != 1:
		t.Errorf("found %+v, want one region", r.Regions)
	case r.Regions[0].Label != "box":
		t.Errorf("the label is %q, want box", r.Regions[0].Label)
	case r.Regions[0].Box != (v1.Box{Width: 4, Height: 2}):
		t.Errorf("the box is %+v, want 4 x 2 pixels at the origin", r.Regions[0].Box)
	case r.Regions[0].Score != 0.9:
		t.Errorf("the score is %v, want 0.9", r.Regions[0].Score)
	}
	if want := []v1.Model{{Name: "rows", Version: "1.2"}}; !reflect.DeepEqual(r.Models, want) {
		t.Errorf("the models are %+v, want %+v", r.Models, want)
	}

	for name, p := range pipelines {
		if p.Ready != (name == "rows") {
			t.Errorf("%s: ready is %v, want only rows ready", name, p.Ready)
		}
	}
	for name, want := range map[string]string{
		"absent": filepath.Join(models, "nosuch") +
			": the folder does not exist; sightmesh models pull fetches models, see docs/models.md",
		"broken": filepath.Join(models, "broken", "rows.prototxt") + ": an HTML page in place of the file",
	} {
		if !strings.Contains(pipelines[name].Reason, want) {
			t.Errorf("%s: the reason is %q, want %q", name, pipelines[name].Reason, want)
		}
		checkProblem(t, m.post(t, "?pipeline="+name, boxImage(t)), v1.NoWorker)
	}
}

// TestModels_UsedByBuiltInPipelines checks that faces finds landmarks with its model, that
// objects is ready with its model, and that the results name the models.
func TestModels_UsedByBuiltInPipelines(t *testing.T) {
	models := t.TempDir()
	for name, weights := range map[string]string{
		"yunet": "yunet_n/yunet_n_640_640.onnx", "yolox-nano": "yolox_nano_coco/yolox_nano.onnx",
	} {
		dir := filepath.Join(models, name)
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(root(t), "tools/internal/models/catalogue", name))); err != nil {
			t.Fatal(err)
		}
		writeFiles(t, dir, map[string]string{filepath.Base(weights): string(readRealdata(t, "models/"+weights))})
	}
	m := start(t, nil, "--models", models)
	m.awaitPipelines(t)
	r := m.postDone(t, "?pipeline=faces", readRealdata(t, "photos/team_ten.jpg"))
	if len(r.Regions) != 10 {
		t.Errorf("%d faces, want 10", len(r.Regions))
	}
	open := 0
	for _, face := range r.Regions {
		names := make([]string, 0, len(face.Landmarks))
		for _, l := range face.Landmarks {
			names = append(names, l.Name)
			if l.X < face.Box.X || l.X > face.Box.X+face.Box.Width {
				t.Errorf("%+v is left or right of the box %+v", l, face.Box)
			}
			if l.Y < face.Box.Y || l.Y > face.Box.Y+face.Box.Height {
				t.Errorf("%+v is above or below the box %+v", l, face.Box)
			}
		}
		if want := []string{"right-eye", "left-eye", "nose", "right-mouth", "left-mouth"}; !slices.Equal(names, want) {
			t.Fatalf("landmarks %q, want %q", names, want)
		}
		if face.Landmarks[0].X >= face.Landmarks[1].X { // the faces look at the camera
			t.Errorf("the right eye is not left of the left eye: %+v", face.Landmarks)
		}
		if hasLabel(face, "eyes-open") {
			open++
		}
	}
	if open < 9 {
		t.Errorf("%d faces have open eyes, want at least 9 as with the cascade", open)
	}
	if len(r.Models) == 0 || r.Models[0].Name != "yunet" {
		t.Errorf("the models are %+v, want yunet first", r.Models)
	}

	r = m.postDone(t, "?pipeline=objects", readRealdata(t, "photos/dog_bicycle_truck.jpg"))
	for _, want := range []string{"dog", "bicycle"} {
		if !slices.ContainsFunc(r.Regions, func(o v1.Region) bool { return o.Label == want }) {
			t.Errorf("no %s in %+v", want, r.Regions)
		}
	}
	if len(r.Models) != 1 || r.Models[0].Name != "yolox-nano" {
		t.Errorf("the models are %+v, want yolox-nano", r.Models)
	}
}

// boxImage returns an image in which the network rows finds one box: the upper left
// corner of 4 x 2 pixels, with the score 0.9.
func boxImage(t *testing.T) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, 7, 4))
	copy(img.Pix, []byte{0, 100, 90, 0, 0, 57, 50})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestModels_ChangedUnderALane changes a file of a model. A running lane keeps the model
// that it has loaded. A lane that starts later rejects the file, and its pipeline is not
// ready. Other pipelines stay ready.
func TestModels_ChangedUnderALane(t *testing.T) {
	models := t.TempDir()
	sum := sha256.Sum256([]byte(rowsModel["rows.caffemodel"]))
	hashed := maps.Clone(rowsModel)
	hashed["model.yaml"] += "sha256: {rows.caffemodel: " + hex.EncodeToString(sum[:]) + "}\n"
	writeFiles(t, filepath.Join(models, "changed"), hashed)
	writeFiles(t, filepath.Join(models, "steady"), hashed)
	writeFiles(t, models, map[string]string{"pipelines.yaml": `
pipelines:
  - name: changed
    detect: {kind: model, settings: {model: changed}}
  - name: steady
    detect: {kind: model, settings: {model: steady}}
`})
	m := start(t, nil, "--pipelines", filepath.Join(models, "pipelines.yaml"), "--models", models)
	m.awaitPipelines(t)
	writeFiles(t, filepath.Join(models, "changed"),
		map[string]string{"rows.caffemodel": rowsModel["rows.caffemodel"] + "!"})
	if r := m.postDone(t, "?pipeline=changed", boxImage(t)); len(r.Regions) != 1 {
		t.Errorf("%d regions from the running lane, want 1", len(r.Regions))
	}

	for _, lane := range children(t, m.pids(t, "detect")[0])["detect"] {
		kill(t, lane)
	}
	want := filepath.Join(models, "changed", "rows.caffemodel") + ": its SHA-256 is "
	eventually.Succeeds(t, responseTimeout, func() error {
		p := m.awaitPipelines(t)["changed"]
		if p.Ready {
			return errors.New("the pipeline is ready, want not ready")
		}
		if !strings.Contains(p.Reason, want) {
			return fmt.Errorf("the pipeline is not ready because of %q, want %q in it", p.Reason, want)
		}
		return nil
	})
	checkProblem(t, m.post(t, "?pipeline=changed", boxImage(t)), v1.NoWorker)
	eventually.Succeeds(t, responseTimeout, func() error {
		if p := m.awaitPipelines(t)["steady"]; !p.Ready {
			return fmt.Errorf("the other pipeline is not ready: %s", p.Reason)
		}
		return nil
	})
	if r := m.postDone(t, "?pipeline=steady", boxImage(t)); len(r.Regions) != 1 {
		t.Errorf("%d regions from the other pipeline, want 1", len(r.Regions))
	}
}

// coloursModel is a network whose output is its input: the mean blue, green and red of a
// crop. The value 255 is 1.
var coloursModel = map[string]string{
	"model.yaml": `
version: "3"
kind: classifier
engines: [opencv]
weights: colours.caffemodel
config: colours.prototxt
labels: labels.txt
input: {width: 1, height: 1, resize: stretch, channels: bgr, scale: 0.00392156862745098}
output: {format: probabilities}
threshold: 0.2
classes: 3
`,
	"labels.txt":         "blue\ngreen\nred\n",
	"colours.caffemodel": "\x0a\x07colours",
	"colours.prototxt": `
name: "colours"
input: "data"
input_shape { dim: 1 dim: 3 dim: 1 dim: 1 }
layer { name: "out" type: "Power" bottom: "data" top: "out" power_param { scale: 1 } }
`,
}

// TestModels_Classify checks that a network of classify gets crops in colour from detect.
// A network with the wrong number of labels does not affect other pipelines.
func TestModels_Classify(t *testing.T) {
	models := t.TempDir()
	writeFiles(t, filepath.Join(models, "rows"), rowsModel)
	writeFiles(t, filepath.Join(models, "colours"), coloursModel)
	writeFiles(t, filepath.Join(models, "mislabelled"), coloursModel)
	writeFiles(t, filepath.Join(models, "mislabelled"), map[string]string{"labels.txt": "blue\ngreen\n"})
	writeFiles(t, filepath.Join(models, "vector"), coloursModel)
	writeFiles(t, filepath.Join(models, "vector"), map[string]string{"model.yaml": `
version: "3"
kind: embedding
engines: [opencv]
weights: colours.caffemodel
config: colours.prototxt
input: {width: 1, height: 1, resize: stretch, channels: bgr}
`})
	var file strings.Builder
	file.WriteString("pipelines:\n")
	for _, name := range []string{"colours", "mislabelled", "vector"} {
		fmt.Fprintf(&file, `  - name: %s
    detect: {kind: model, settings: {model: rows, channels: bgr}}
    classify: {kind: model, settings: {model: %s}}
`, name, name)
	}
	writeFiles(t, models, map[string]string{"pipelines.yaml": file.String()})
	m := start(t, nil, "--pipelines", filepath.Join(models, "pipelines.yaml"), "--models", models)
	pipelines := m.awaitPipelines(t)

	img := image.NewRGBA(image.Rect(0, 0, 7, 4))
	draw.Draw(img, img.Bounds(), image.Black, image.Point{}, draw.Src)
	for i, grey := range []byte{0, 100, 90, 0, 0, 57, 50} {
		img.Set(i, 0, color.Gray{grey})
	}
	for x := range 4 {
		img.Set(x, 1, color.NRGBA{R: 255, A: 255}) // half of the region
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	r := m.postDone(t, "?pipeline=colours", b.Bytes())
	if len(r.Regions) != 1 {
		t.Fatalf("%d regions, want 1", len(r.Regions))
	}
	if labels := r.Regions[0].Labels; len(labels) == 0 || labels[0].Label != "red" {
		t.Errorf("the labels are %+v, want red first", labels)
	}
	wantModels := []v1.Model{{Name: "rows", Version: "1.2"}, {Name: "colours", Version: "3"}}
	if !reflect.DeepEqual(r.Models, wantModels) {
		t.Errorf("the models are %+v, want %+v", r.Models, wantModels)
	}
	r = m.postDone(t, "?pipeline=vector", b.Bytes())
	switch {
	case len(r.Regions) != 1:
		t.Fatalf("%d regions, want 1: %+v", len(r.Regions), r.Regions)
	case len(r.Regions[0].Embedding) != 3:
		t.Fatalf("the embedding is %v, want 3 numbers", r.Regions[0].Embedding)
	}
	if v := r.Regions[0].Embedding; v[2] <= max(v[0], v[1]) {
		t.Errorf("the embedding is %v, want the last number, red, to be the largest", v)
	}

	want := filepath.Join(models, "mislabelled", "model.yaml") + ": classes: 3, but labels.txt has 2 lines"
	if p := pipelines["mislabelled"]; p.Ready {
		t.Error("mislabelled is ready")
	} else if !strings.Contains(p.Reason, want) {
		t.Errorf("the reason of mislabelled is %q, want %q in it", p.Reason, want)
	}
	checkProblem(t, m.post(t, "?pipeline=mislabelled", b.Bytes()), v1.NoWorker)
}
