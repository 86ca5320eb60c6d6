package detectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
)

// halves is an image of w × h: its left half is red, its right half white.
func halves(w, h int) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(img, img.Bounds(), image.White, image.Point{}, draw.Src)
	red := image.NewUniform(color.RGBA{R: 255, A: 255})
	draw.Draw(img, image.Rect(0, 0, w/2, h), red, image.Point{}, draw.Src)
	return img
}

// drawn has a file drawn as a PNG, and decodes it.
func drawn(t *testing.T, file []byte, regions ...v1.DrawRegion) (lane.Drawn, image.Image) {
	t.Helper()
	out, encoded, err := newHandler().Draw(lane.Draw{MediaType: "image/png", Regions: regions}, file)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	return out, img
}

func isRed(c color.Color) bool {
	r, g, b, _ := c.RGBA()
	return r>>8 > 200 && g>>8 < 60 && b>>8 < 60
}

func TestHandler_DrawsEveryType(t *testing.T) {
	t.Parallel()
	var p, j, b, ti bytes.Buffer
	img := halves(64, 32)
	if err := errors.Join(png.Encode(&p, img), jpeg.Encode(&j, img, nil), bmp.Encode(&b, img), tiff.Encode(&ti, img, nil)); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{"png": p.Bytes(), "jpeg": j.Bytes(), "bmp": b.Bytes(), "tiff": ti.Bytes()} {
		out, img := drawn(t, file)
		if size := image.Pt(out.Width, out.Height); size != image.Pt(64, 32) || img.Bounds().Size() != size {
			t.Errorf("%s: %v, drawn as %v, want 64 x 32", name, size, img.Bounds().Size())
		}
		if !isRed(img.At(10, 10)) {
			t.Errorf("%s: the left is %v, want red", name, img.At(10, 10))
		}
		if isRed(img.At(50, 10)) {
			t.Errorf("%s: the right is red, want white", name)
		}
	}
}

func TestHandler_DrawsRegions(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	if err := png.Encode(&file, halves(160, 120)); err != nil {
		t.Fatal(err)
	}
	_, img := drawn(t, file.Bytes(), v1.DrawRegion{Box: v1.Box{X: 100, Y: 60, Width: 40, Height: 40}, Label: "a"})
	white := color.RGBA{255, 255, 255, 255}
	if img.At(100, 80) == white {
		t.Error("the edge of the box is not drawn")
	}
	if got := img.At(120, 80); got != white {
		t.Errorf("the inside of the box is %v, want white", got)
	}
}

// TestHandler_DrawsUpright: a JPEG that says that it lies on its side.
func TestHandler_DrawsUpright(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	if err := jpeg.Encode(&file, halves(64, 32), nil); err != nil {
		t.Fatal(err)
	}
	exif := []byte("\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00")
	turned := append(append([]byte("\xff\xd8"), exif...), file.Bytes()[2:]...)
	out, img := drawn(t, turned)
	if size := image.Pt(out.Width, out.Height); size != image.Pt(32, 64) || img.Bounds().Size() != size {
		t.Fatalf("%v, drawn as %v, want 32 x 64", size, img.Bounds().Size())
	}
	if !isRed(img.At(16, 10)) || isRed(img.At(16, 54)) {
		t.Errorf("the top is %v and the bottom %v, want red and white", img.At(16, 10), img.At(16, 54))
	}
}

func TestHandler_DrawRejectsWhatDoesNotDecode(t *testing.T) {
	t.Parallel()
	_, _, err := newHandler().Draw(lane.Draw{MediaType: "image/png"}, []byte("\x89PNG\r\n\x1a\nno more"))
	var p *v1.Problem
	if !errors.As(err, &p) || p.Code != v1.Damaged {
		t.Errorf("got %v, want %s", err, v1.Damaged)
	}
}

func TestHandler_StartLoadsNothingToDraw(t *testing.T) {
	t.Parallel()
	out, err := newHandler().Start(lane.Start{Pipelines: map[string]lane.Setup{"draw": {Kind: DrawKind, Settings: json.RawMessage(`{}`)}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := out["draw"].Error; got != "" {
		t.Errorf("the pipeline cannot be served: %s", got)
	}
}

// TestHandler_DrawsWhatItReads: each file that is read can also be drawn, in the
// size of the result. Its rows are mjpeg_no_dht.jpg, cut_80.jpg, tiff_g4.tif and
// rot6_lzw.tif of the list of cases, and hostile files.
func TestHandler_DrawsWhatItReads(t *testing.T) {
	t.Parallel()
	var files []string
	for _, pattern := range []string{"cases/*.*", "realdata/hostile/images/*"} {
		matches, err := filepath.Glob(filepath.Join("../../../../../shared", pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, matches...)
	}
	if len(files) == 0 {
		t.Skip("no files")
	}
	h := loaded(t)
	read := 0
	for _, f := range files {
		file, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := imagefile.Inspect(file, imagefile.DefaultLimits()); err != nil {
			continue
		}
		found, _, err := h.Detect(lane.Detect{Pipeline: "text", MaxRegions: 400}, file)
		if err != nil {
			continue
		}
		read++
		var regions []v1.DrawRegion
		for _, r := range found.Regions {
			regions = append(regions, v1.DrawRegion{Box: r.Box, Label: r.Label})
		}
		out, encoded, err := h.Draw(lane.Draw{MediaType: "image/jpeg", Regions: regions}, file)
		if err != nil {
			t.Errorf("%s is read, and cannot be drawn: %v", f, err)
			continue
		}
		if got, want := fmt.Sprint(out.Width, out.Height), fmt.Sprint(found.Width, found.Height); got != want {
			t.Errorf("%s is drawn as %s, want %s as it was read", f, got, want)
		}
		if _, err := jpeg.DecodeConfig(bytes.NewReader(encoded)); err != nil {
			t.Errorf("%s: the drawn image cannot be decoded: %v", f, err)
		}
	}
	if read == 0 {
		t.Error("none of the files was read")
	}
}
