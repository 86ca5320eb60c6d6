package e2e

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

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

	var list v1.Pipelines
	if err := json.Unmarshal(m.get(t, "/v1/pipelines").body, &list); err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, p := range list.Pipelines {
		reasons[p.Name] = p.Reason
		if p.Ready != (p.Name == "rows") {
			t.Errorf("%s: ready is %v", p.Name, p.Ready)
		}
	}
	for name, want := range map[string]string{
		"absent": filepath.Join(models, "nosuch") + ": the folder does not exist; docs/models.md says how to get models",
		"broken": filepath.Join(models, "broken", "rows.prototxt") + ": an HTML page in place of the file",
	} {
		if !strings.Contains(reasons[name], want) {
			t.Errorf("%s: the reason is %q, want %q", name, reasons[name], want)
		}
		checkProblem(t, m.post(t, "?pipeline="+name, b.Bytes()), v1.NoWorker)
	}
}
