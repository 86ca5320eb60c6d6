package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// modelsPipelines are pipelines of a network that the test makes, of one whose folder is
// missing, and of one that cannot be read.
const modelsPipelines = `
pipelines:
  - name: rows
    detect: {kind: model, settings: {model: rows}}
  - name: absent
    detect: {kind: model, settings: {model: nosuch}}
  - name: broken
    detect: {kind: model, settings: {model: broken}}
`

// rowsModel is a network whose output is its input: an image of 7 pixels in each row is a
// table of what it "finds", 100 for 1.
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

// awaitPipelines waits until the ingress knows of each pipeline whether it is served.
func (m *mesh) awaitPipelines(t *testing.T) map[string]v1.Pipeline {
	t.Helper()
	pipelines := map[string]v1.Pipeline{}
	eventually(t, 30*time.Second, func() error {
		var list v1.Pipelines
		if err := json.Unmarshal(m.get(t, "/v1/pipelines").body, &list); err != nil {
			return err
		}
		for _, p := range list.Pipelines {
			pipelines[p.Name] = p
			if strings.Contains(p.Reason, "starting") {
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

// TestModels_FolderIsServed: a network in the folder of models is a pipeline; one that is
// missing or broken is not ready, and says why, while the others are served.
func TestModels_FolderIsServed(t *testing.T) {
	models := t.TempDir()
	writeFiles(t, filepath.Join(models, "rows"), rowsModel)
	writeFiles(t, filepath.Join(models, "broken"), rowsModel)
	writeFiles(t, filepath.Join(models, "broken"), map[string]string{"rows.prototxt": "<!DOCTYPE html>"})
	file := filepath.Join(models, "pipelines.yaml")
	writeFiles(t, models, map[string]string{"pipelines.yaml": modelsPipelines})
	m := start(t, nil, "--pipelines", file, "--models", models)
	pipelines := m.awaitPipelines(t)

	img := image.NewGray(image.Rect(0, 0, 7, 4))
	copy(img.Pix, []byte{0, 100, 90, 0, 0, 57, 50}) // of class 1 with 0.9, from 0, 0 to 4, 2
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	r := m.done(t, "?pipeline=rows", b.Bytes())
	if len(r.Regions) != 1 || r.Regions[0].Label != "box" || r.Regions[0].Box != (v1.Box{Width: 4, Height: 2}) || r.Regions[0].Score != 0.9 {
		t.Errorf("found %+v", r.Regions)
	}
	if !reflect.DeepEqual(r.Models, []v1.Model{{Name: "rows", Version: "1.2"}}) {
		t.Errorf("models %+v", r.Models)
	}

	for name, p := range pipelines {
		if p.Ready != (name == "rows") {
			t.Errorf("%s: ready is %v", name, p.Ready)
		}
	}
	for name, want := range map[string]string{
		"absent": filepath.Join(models, "nosuch") + ": the folder does not exist; docs/models.md says how to get models",
		"broken": filepath.Join(models, "broken", "rows.prototxt") + ": an HTML page in place of the file",
	} {
		if !strings.Contains(pipelines[name].Reason, want) {
			t.Errorf("%s: the reason is %q, want %q", name, pipelines[name].Reason, want)
		}
		checkProblem(t, m.post(t, "?pipeline="+name, b.Bytes()), v1.NoWorker)
	}
}

// TestModels_BuiltInPipelinesUseThem: with their folders, faces has landmarks, and objects
// is ready. The results name what was used.
func TestModels_BuiltInPipelinesUseThem(t *testing.T) {
	models := t.TempDir()
	for name, weights := range map[string]string{"yunet": "yunet_n/yunet_n_640_640.onnx", "yolox-nano": "yolox_nano_coco/yolox_nano.onnx"} {
		dir := filepath.Join(models, name)
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(root(t), "tools/internal/models/catalogue", name))); err != nil {
			t.Fatal(err)
		}
		writeFiles(t, dir, map[string]string{filepath.Base(weights): string(realdata(t, "models/"+weights))})
	}
	m := start(t, nil, "--models", models)
	m.awaitPipelines(t)
	r := m.done(t, "?pipeline=faces", realdata(t, "photos/team_ten.jpg"))
	if len(r.Regions) != 10 {
		t.Errorf("%d faces, want 10", len(r.Regions))
	}
	open := 0
	for _, face := range r.Regions {
		names := make([]string, 0, len(face.Landmarks))
		for _, l := range face.Landmarks {
			names = append(names, l.Name)
			if l.X < face.Box.X || l.X > face.Box.X+face.Box.Width || l.Y < face.Box.Y || l.Y > face.Box.Y+face.Box.Height {
				t.Errorf("%+v lies outside of %+v", l, face.Box)
			}
		}
		if want := []string{"right-eye", "left-eye", "nose", "right-mouth", "left-mouth"}; !slices.Equal(names, want) {
			t.Fatalf("landmarks %q, want %q", names, want)
		}
		if face.Landmarks[0].X >= face.Landmarks[1].X { // they look at us
			t.Errorf("the right eye is not at the left: %+v", face.Landmarks)
		}
		if hasLabel(face, "eyes-open") {
			open++
		}
	}
	if open < 9 {
		t.Errorf("%d faces have open eyes, want 9 as with the cascade", open)
	}
	if len(r.Models) == 0 || r.Models[0].Name != "yunet" {
		t.Errorf("models %+v, want yunet first", r.Models)
	}

	r = m.done(t, "?pipeline=objects", realdata(t, "photos/dog_bicycle_truck.jpg"))
	for _, want := range []string{"dog", "bicycle"} {
		if !slices.ContainsFunc(r.Regions, func(o v1.Region) bool { return o.Label == want }) {
			t.Errorf("no %s in %+v", want, r.Regions)
		}
	}
	if len(r.Models) != 1 || r.Models[0].Name != "yolox-nano" {
		t.Errorf("models %+v, want yolox-nano", r.Models)
	}
}
