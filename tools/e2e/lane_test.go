package e2e

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"image/draw"
	"path/filepath"
	"testing"

	"golang.org/x/image/bmp"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestLaneOfOnesOwn runs the mesh of docs/lanes.md: a detector in Python beside
// a built-in one, and pipelines without a classifier.
func TestLaneOfOnesOwn(t *testing.T) {
	t.Chdir(root(t)) // the file names the program relative to it
	m := start(t, nil, "--pipelines", filepath.Join("docs", "lanes", "pipelines.yaml"))
	img := image.NewRGBA(image.Rect(0, 0, 20, 10))
	draw.Draw(img, img.Bounds(), image.NewUniform(color.RGBA{R: 20, G: 40, B: 230, A: 255}), image.Point{}, draw.Src)
	var b bytes.Buffer
	if err := bmp.Encode(&b, opaque{img}); err != nil {
		t.Fatal(err)
	}
	r := m.done(t, "?pipeline=colour", b.Bytes())
	if len(r.Regions) != 1 || r.Regions[0].Label != "blue" || r.Regions[0].Box != (v1.Box{Width: 20, Height: 10}) || r.Models[0].Name != "mean-colour" {
		t.Errorf("got %+v", r)
	}
	if a := m.post(t, "?pipeline=colour", samplePage(t)); a.problem.Code != v1.Damaged {
		t.Errorf("a PNG got %v", a)
	}
	if r := m.done(t, "?pipeline=faces", sampleFace(t)); len(r.Regions) != 1 || r.Regions[0].Labels != nil {
		t.Errorf("the built-in detector found %+v", r.Regions)
	}
	var list v1.Pipelines
	if err := json.Unmarshal(m.get(t, "/v1/pipelines").body, &list); err != nil || len(list.Pipelines) != 2 || !list.Pipelines[0].Ready {
		t.Errorf("pipelines %+v, %v", list, err)
	}
}

// opaque makes the encoder write 24 bits for a pixel.
type opaque struct{ *image.RGBA }

func (opaque) Opaque() bool { return true }
