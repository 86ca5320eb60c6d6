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

// newHalfRedImage returns an image of w × h pixels. Its left half is red, its right half white.
func newHalfRedImage(w, h int) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(img, img.Bounds(), image.White, image.Point{}, draw.Src)
	red := image.NewUniform(color.RGBA{R: 255, A: 255})
	draw.Draw(img, image.Rect(0, 0, w/2, h), red, image.Point{}, draw.Src)
	return img
}

// drawPNG draws regions on a file, and decodes the resulting PNG.
func drawPNG(t *testing.T, file []byte, regions ...v1.DrawRegion) (lane.Drawn, image.Image) {
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
	img := newHalfRedImage(64, 32)
	if err := errors.Join(
		png.Encode(&p, img), jpeg.Encode(&j, img, nil), bmp.Encode(&b, img), tiff.Encode(&ti, img, nil),
	); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{
		"png": p.Bytes(), "jpeg": j.Bytes(), "bmp": b.Bytes(), "tiff": ti.Bytes(),
	} {
		out, img := drawPNG(t, file)
		checkSize(t, name, out, img, image.Pt(64, 32))
		if !isRed(img.At(10, 10)) {
			t.Errorf("%s: the left is %v, want red", name, img.At(10, 10))
		}
		if isRed(img.At(50, 10)) {
			t.Errorf("%s: the right is red, want white", name)
		}
	}
}

// checkSize checks that a drawn image has this size, and that the response says so.
func checkSize(t *testing.T, name string, out lane.Drawn, img image.Image, want image.Point) {
	t.Helper()
	if got := image.Pt(out.Width, out.Height); got != want {
		t.Errorf("%s: the size in the response is %v, want %v", name, got, want)
	}
	if got := img.Bounds().Size(); got != want {
		t.Errorf("%s: the size of the drawn image is %v, want %v", name, got, want)
	}
}

func TestHandler_DrawsRegions(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	if err := png.Encode(&file, newHalfRedImage(160, 120)); err != nil {
		t.Fatal(err)
	}
	_, img := drawPNG(t, file.Bytes(), v1.DrawRegion{Box: v1.Box{X: 100, Y: 60, Width: 40, Height: 40}, Label: "a"})
	white := color.RGBA{255, 255, 255, 255}
	if img.At(100, 80) == white {
		t.Error("the edge of the box is not drawn")
	}
	if got := img.At(120, 80); got != white {
		t.Errorf("the inside of the box is %v, want white", got)
	}
}

// TestHandler_DrawsUpright draws on a JPEG with an EXIF orientation: the drawn image is
// upright.
func TestHandler_DrawsUpright(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	if err := jpeg.Encode(&file, newHalfRedImage(64, 32), nil); err != nil {
		t.Fatal(err)
	}
	exif := []byte("\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08" +
		"\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00")
	turned := append(append([]byte("\xff\xd8"), exif...), file.Bytes()[2:]...)
	out, img := drawPNG(t, turned)
	checkSize(t, "rotated", out, img, image.Pt(32, 64))
	if c := img.At(16, 10); !isRed(c) {
		t.Errorf("the top is %v, want red", c)
	}
	if c := img.At(16, 54); isRed(c) {
		t.Errorf("the bottom is %v, want white", c)
	}
}

func TestHandler_DrawRejectsADamagedFile(t *testing.T) {
	t.Parallel()
	_, _, err := newHandler().Draw(lane.Draw{MediaType: "image/png"}, []byte("\x89PNG\r\n\x1a\nno more"))
	checkProblem(t, "a damaged file", err, v1.Damaged)
}

// checkProblem checks that err is a problem with this code, or nil for an empty code.
func checkProblem(t *testing.T, what string, err error, want v1.Code) {
	t.Helper()
	var p *v1.Problem
	switch {
	case want == "":
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case !errors.As(err, &p) || p.Code != want:
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}

func TestHandler_StartLoadsNothingForDraw(t *testing.T) {
	t.Parallel()
	setup := lane.Setup{Kind: DrawKind, Settings: json.RawMessage(`{}`)}
	out, err := newHandler().Start(lane.Start{Pipelines: map[string]lane.Setup{"draw": setup}})
	if err != nil {
		t.Fatal(err)
	}
	if got := out["draw"].Error; got != "" {
		t.Errorf("the pipeline is not ready: %s", got)
	}
}

// TestHandler_DrawsEveryReadableFile checks that each file that can be read can also be drawn on,
// and that the drawn image has the size in the result. The files are those of
// ../shared/cases, such as mjpeg_no_dht.jpg, cut_80.jpg, tiff_g4.tif and rot6_lzw.tif, and
// hostile files.
func TestHandler_DrawsEveryReadableFile(t *testing.T) {
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
		t.Skip("no files in ../shared: no drawn image was checked")
	}
	h := loadHandler(t)
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
			t.Errorf("%s can be read, but not drawn on: %v", f, err)
			continue
		}
		if got, want := fmt.Sprint(out.Width, out.Height), fmt.Sprint(found.Width, found.Height); got != want {
			t.Errorf("%s: the drawn image has the size %s, want %s, that of the result", f, got, want)
		}
		if _, err := jpeg.DecodeConfig(bytes.NewReader(encoded)); err != nil {
			t.Errorf("%s: the drawn image cannot be decoded: %v", f, err)
		}
	}
	if read == 0 {
		t.Error("none of the files was read")
	}
}
