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

// TestLane_Custom runs the mesh of docs/lanes.md: a detector in Python beside
// a built-in one, and pipelines without a classifier.
func TestLane_Custom(t *testing.T) {
	t.Chdir(root(t)) // the file names the program relative to it
	m := start(t, nil, "--pipelines", filepath.Join("docs", "lanes", "pipelines.yaml"))
	r := m.postDone(t, "?pipeline=colour", blueBMP(t))
	switch {
	case len(r.Regions) != 1:
		t.Errorf("got %+v: %d regions, want 1", r, len(r.Regions))
	case r.Regions[0].Label != "blue":
		t.Errorf(`got %+v: Regions[0].Label %q, want "blue"`, r, r.Regions[0].Label)
	case r.Regions[0].Box != (v1.Box{Width: 20, Height: 10}):
		t.Errorf("got %+v: Regions[0].Box %v, want %v", r, r.Regions[0].Box, (v1.Box{Width: 20, Height: 10}))
	case r.Models[0].Name != "mean-colour":
		t.Errorf(`got %+v: Models[0].Name %q, want "mean-colour"`, r, r.Models[0].Name)
	}
	if a := m.post(t, "?pipeline=colour", samplePage(t)); a.problem.Code != v1.Damaged {
		t.Errorf("a PNG got %v", a)
	}
	switch r := m.postDone(t, "?pipeline=faces", sampleFace(t)); {
	case len(r.Regions) != 1:
		t.Errorf("the built-in detector found %+v: %d regions, want 1", r.Regions, len(r.Regions))
	case r.Regions[0].Labels != nil:
		t.Errorf("the built-in detector found %+v: Regions[0].Labels %v, want nil", r.Regions, r.Regions[0].Labels)
	}
	var list v1.Pipelines
	switch err := json.Unmarshal(m.get(t, "/v1/pipelines").body, &list); {
	case err != nil:
		t.Errorf("pipelines %+v, %v", list, err)
	case len(list.Pipelines) != 2:
		t.Errorf("pipelines %+v, %v: %d list.Pipelines, want 2", list, err, len(list.Pipelines))
	case !list.Pipelines[0].Ready:
		t.Errorf("pipelines %+v, %v: want list.Pipelines[0].Ready", list, err)
	}
}

// TestLane_OverMemoryLimitWhenReady is of the row Lanes of the cases: its pipeline
// says why it is not ready and takes no images, and the others go on.
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
		t.Errorf("an image gets %v, want 503 %s: status %v, want 503", a, v1.NoWorker, a.status)
	case a.problem.Code != v1.NoWorker:
		t.Errorf("an image gets %v, want 503 %s: problem code %v, want no-worker", a, v1.NoWorker, a.problem.Code)
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

// blueBMP is an image of 20 x 10 pixels that docs/lanes/colour.py reads.
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

// opaque makes the encoder write 24 bits for a pixel.
type opaque struct{ *image.RGBA }

func (opaque) Opaque() bool { return true }
