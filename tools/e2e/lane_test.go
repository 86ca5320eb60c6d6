package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/image/bmp"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestLane_Custom runs the mesh of docs/lanes.md: a detector in Python and a built-in
// detector, in pipelines without a classifier.
func TestLane_Custom(t *testing.T) {
	t.Chdir(root(t)) // the path of the program in the file is relative to it
	m := start(t, nil, "--pipelines", filepath.Join("docs", "lanes", "pipelines.yaml"))
	r := m.postDone(t, "?pipeline=colour", blueBMP(t))
	switch {
	case len(r.Regions) != 1:
		t.Errorf("result %+v: %d regions, want 1", r, len(r.Regions))
	case r.Regions[0].Label != "blue":
		t.Errorf("the label is %q, want blue", r.Regions[0].Label)
	case r.Regions[0].Box != (v1.Box{Width: 20, Height: 10}):
		t.Errorf("the box is %+v, want the whole image of 20 x 10 pixels", r.Regions[0].Box)
	case r.Models[0].Name != "mean-colour":
		t.Errorf("the model is %q, want mean-colour", r.Models[0].Name)
	}
	if a := m.post(t, "?pipeline=colour", samplePage(t)); a.problem.Code != v1.Damaged {
		t.Errorf("a PNG file got %v, want %s", a, v1.Damaged)
	}
	switch r := m.postDone(t, "?pipeline=faces", sampleFace(t)); {
	case len(r.Regions) != 1:
		t.Errorf("the built-in detector found %+v, want one region", r.Regions)
	case r.Regions[0].Labels != nil:
		t.Errorf("the region has the labels %+v, want none without a classifier", r.Regions[0].Labels)
	}
	var list v1.Pipelines
	switch err := json.Unmarshal(m.get(t, "/v1/pipelines").body, &list); {
	case err != nil:
		t.Error(err)
	case len(list.Pipelines) != 2:
		t.Errorf("%d pipelines, want 2: %+v", len(list.Pipelines), list)
	case !list.Pipelines[0].Ready:
		t.Errorf("the first pipeline is not ready: %+v", list.Pipelines[0])
	}
}

// TestLane_OverMemoryLimitWhenReady tests the row "Lanes" of shared/cases. The pipeline
// is not ready, has the reason and rejects images. The other pipeline works.
func TestLane_OverMemoryLimitWhenReady(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pipelines.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `
pipelines:
  - name: large
    detect:
      lane: [python3, -c, "hold = b'x' * (128 << 20); exec(open('%s').read())"]
      memory: 64MiB
  - name: colour
    detect: {lane: [python3, '%[1]s'], memory: 64MiB}
`, filepath.Join(root(t), "docs", "lanes", "colour.py")), 0o600); err != nil {
		t.Fatal(err)
	}
	m := start(t, nil, "--pipelines", file)
	a := m.post(t, "?pipeline=large", blueBMP(t))
	switch {
	case a.status != http.StatusServiceUnavailable:
		t.Errorf("an image got %v: status %d, want 503", a, a.status)
	case a.problem.Code != v1.NoWorker:
		t.Errorf("an image got the problem %s, want %s", a.problem.Code, v1.NoWorker)
	}
	const why = "more than the 67108864 that detect.memory of pipeline large allows"
	if !strings.Contains(a.problem.Detail, why) {
		t.Errorf("the detail is %q, want %q in it", a.problem.Detail, why)
	}
	m.postDone(t, "?pipeline=colour", blueBMP(t))
	var list v1.Pipelines
	if err := json.Unmarshal(m.get(t, "/v1/pipelines").body, &list); err != nil {
		t.Fatal(err)
	}
	ready := map[string]bool{}
	for _, p := range list.Pipelines {
		ready[p.Name] = p.Ready
		if p.Name == "large" && !strings.Contains(p.Reason, why) {
			t.Errorf("the reason in the list is %q, want %q in it", p.Reason, why)
		}
	}
	if want := map[string]bool{"large": false, "colour": true}; !maps.Equal(ready, want) {
		t.Errorf("ready is %v, want %v", ready, want)
	}
}

// blueBMP returns a blue image of 20 x 10 pixels for docs/lanes/colour.py.
func blueBMP(t *testing.T) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 20, 10))
	draw.Draw(img, img.Bounds(), image.NewUniform(color.RGBA{R: 20, G: 40, B: 230, A: 255}), image.Point{}, draw.Src)
	var b bytes.Buffer
	if err := bmp.Encode(&b, opaque{img}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// opaque makes the encoder write 24 bits per pixel.
type opaque struct{ *image.RGBA }

func (opaque) Opaque() bool { return true }
