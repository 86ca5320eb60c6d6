package e2e

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/sample"
)

// testImages posts the sample page and the sample face as kinds of images that were
// once read incorrectly.
func testImages(t *testing.T, m *mesh) {
	t.Run("transparent page", func(t *testing.T) { // row alpha_black_on_transparent.png
		r := m.postDone(t, "?pipeline=text", transparentPage(t))
		checkPage(t, r)
	})
	t.Run("damaged page", func(t *testing.T) { // row cut_80.jpg
		page := jpegPage(t)
		r := m.postDone(t, "?pipeline=text", page[:len(page)*8/10])
		if r.Image.Damage == "" {
			t.Error("the result has no damage, want that data is missing")
		}
		if len(r.Regions) < 3 || len(r.Regions) > 6 {
			t.Errorf("%d regions, want 3 to 6 lines", len(r.Regions))
		}
	})
	t.Run("damaged face", func(t *testing.T) {
		face := sampleFace(t)
		r := m.postDone(t, "?pipeline=faces", face[:len(face)*98/100])
		if r.Image.Damage == "" {
			t.Error("the result has no damage, want that data is missing")
		}
		if len(r.Regions) != 1 {
			t.Errorf("%d regions, want 1 face", len(r.Regions))
		}
	})
	t.Run("whole page", func(t *testing.T) {
		if r := m.postDone(t, "?pipeline=text", jpegPage(t)); r.Image.Damage != "" {
			t.Errorf("the result of a complete file has the damage %q", r.Image.Damage)
		}
	})
	t.Run("cases", func(t *testing.T) { testImageCases(t, m) })
}

// testImageCases posts files of shared/cases that once failed.
func testImageCases(t *testing.T, m *mesh) {
	dir := filepath.Join(root(t), "..", "shared", "cases")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no cases beside the repository: %v", err)
	}
	for file, orientation := range map[string]int{
		"alpha.webp": 1, "alpha_black_on_transparent.png": 1, "alpha_palette_trns.png": 1, "bmp_rgb565.bmp": 1,
		"mjpeg_no_dht.jpg": 1, "rle.bmp": 1, "rot6.png": 6, "rot6.webp": 6, "rot6_lzw.tif": 6, "samp_2x4.jpg": 1,
		"tiff_g4.tif": 1, "tmpl_expr.png": 1, "trailer_65_ffda.jpg": 1, "ycbcr_jpeg.tif": 1,
	} {
		t.Run(file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			r := m.postDone(t, "?pipeline=text", data)
			checkPage(t, r)
			if r.Image.Orientation != orientation {
				t.Errorf("orientation %d, want %d", r.Image.Orientation, orientation)
			}
			if got, want := image.Pt(r.Image.Width, r.Image.Height), image.Pt(820, 480); got != want {
				t.Errorf("the size is %v, want %v", got, want)
			}
		})
	}
}

// checkPage checks that a result is the result of the sample page.
func checkPage(t *testing.T, r v1.Result) {
	t.Helper()
	if len(r.Regions) != 6 {
		t.Errorf("%d regions, want 6 lines", len(r.Regions))
	}
	if r.Text == nil {
		t.Fatal("the result has no text")
	}
	// Some files are lossy, and one has only black and white pixels.
	if want := strings.Join(sample.Text(), "\n"); editDistance(*r.Text, want) > 5 {
		t.Errorf("the text is\n%s\nwant, with at most 5 wrong letters,\n%s", *r.Text, want)
	}
}

// transparentPage returns the sample page as a black image in which only the text is
// opaque.
func transparentPage(t testing.TB) []byte {
	t.Helper()
	page, err := sample.Page()
	if err != nil {
		t.Fatal(err)
	}
	b := page.Bounds()
	out := image.NewNRGBA(b)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			light := color.GrayModel.Convert(page.At(x, y)).(color.Gray).Y
			out.SetNRGBA(x, y, color.NRGBA{A: 255 - light})
		}
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, out); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// jpegPage returns the sample page as JPEG.
func jpegPage(t testing.TB) []byte {
	t.Helper()
	page, err := sample.Page()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, page, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
