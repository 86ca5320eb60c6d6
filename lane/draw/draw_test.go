package draw

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func encode(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decode(t *testing.T, data []byte) image.Image {
	t.Helper()
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func grey(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = 200
	}
	for i := 3; i < len(img.Pix); i += 4 {
		img.Pix[i] = 255
	}
	return img
}

func face(x, y, w, h int) v1.Region {
	return v1.Region{Box: v1.Box{X: x, Y: y, Width: w, Height: h}, Label: "face", Score: 0.97}
}

func same(a, b color.Color) bool {
	r, g, bl, _ := a.RGBA()
	r2, g2, bl2, _ := b.RGBA()
	return r == r2 && g == g2 && bl == bl2
}

func TestBoxesAreWhereTheRegionsAre(t *testing.T) {
	t.Parallel()
	out, err := Draw(encode(t, grey(300, 200)), v1.Result{Regions: []v1.Region{face(100, 80, 60, 50)}}, "image/png")
	if err != nil {
		t.Fatal(err)
	}
	img := decode(t, out)
	c := colorOf("face")
	for _, p := range []image.Point{{100, 80}, {159, 80}, {100, 129}, {159, 129}, {130, 129}, {101, 100}, {158, 100}} {
		if !same(img.At(p.X, p.Y), c) {
			t.Errorf("%v is not on the edge of the box", p)
		}
	}
	for _, p := range []image.Point{{99, 100}, {160, 100}, {130, 130}, {130, 100}, {102, 100}} {
		if same(img.At(p.X, p.Y), c) {
			t.Errorf("%v is drawn on", p)
		}
	}
	if !same(img.At(101, 78), c) {
		t.Error("no name above the box")
	}
}

func TestEveryOrientation(t *testing.T) {
	t.Parallel()
	// A red pixel at the upper left of the stored picture comes to lie here.
	const w, h = 40, 20
	for o, want := range map[int]image.Point{
		0: {0, 0}, 1: {0, 0}, 2: {w - 1, 0}, 3: {w - 1, h - 1}, 4: {0, h - 1}, 5: {0, 0}, 6: {h - 1, 0}, 7: {h - 1, w - 1}, 8: {0, w - 1},
	} {
		src := grey(w, h)
		src.Set(0, 0, color.RGBA{255, 0, 0, 255})
		out, err := Draw(encode(t, src), v1.Result{Image: &v1.Image{Orientation: o}}, "image/png")
		if err != nil {
			t.Fatal(err)
		}
		img := decode(t, out)
		if !same(img.At(want.X, want.Y), color.RGBA{255, 0, 0, 255}) {
			t.Errorf("orientation %d: %v is %v", o, want, img.At(want.X, want.Y))
		}
		if turned := o >= 5; (img.Bounds().Dx() == h) != turned {
			t.Errorf("orientation %d: %v", o, img.Bounds())
		}
	}
}

func TestNothingFoundIsTheSamePicture(t *testing.T) {
	t.Parallel()
	src := grey(30, 20)
	out, err := Draw(encode(t, src), v1.Result{}, "image/png")
	if err != nil {
		t.Fatal(err)
	}
	img := decode(t, out)
	for y := range 20 {
		for x := range 30 {
			if !same(img.At(x, y), src.At(x, y)) {
				t.Fatalf("%d,%d was changed", x, y)
			}
		}
	}
}

func TestRegionsAtAndOverTheBorder(t *testing.T) {
	t.Parallel()
	for _, r := range []v1.Region{
		face(0, 0, 30, 20), face(-10, -10, 5, 5), face(25, 15, 100, 100), face(29, 19, 1, 1), face(5, 5, 0, 0),
		{Text: "read", Box: v1.Box{X: 1, Y: 1, Width: 10, Height: 5}}, {Label: "a label that is longer than the picture"},
	} {
		if _, err := Draw(encode(t, grey(30, 20)), v1.Result{Regions: []v1.Region{r}}, "image/jpeg"); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestEveryTypeThatIsTaken(t *testing.T) {
	t.Parallel()
	var j, b, ti bytes.Buffer
	if err := errors.Join(jpeg.Encode(&j, grey(30, 20), nil), bmp.Encode(&b, grey(30, 20)), tiff.Encode(&ti, grey(30, 20), nil)); err != nil {
		t.Fatal(err)
	}
	for name, pic := range map[string][]byte{"jpeg": j.Bytes(), "bmp": b.Bytes(), "tiff": ti.Bytes()} {
		if _, err := Draw(pic, v1.Result{}, "image/jpeg"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var p *v1.Problem
	if _, err := Draw([]byte("no picture"), v1.Result{}, "image/png"); !errors.As(err, &p) || p.Code != v1.Damaged {
		t.Errorf("no picture: %v, want damaged", err)
	}
	if _, err := Draw(j.Bytes(), v1.Result{}, "image/gif"); err == nil {
		t.Error("image/gif is written")
	}
}

func TestTitle(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]v1.Region{
		"face 0.97":            face(0, 0, 1, 1),
		"3":                    {Label: "text", Text: "hello"},
		"object 0.50, bicycle": {Label: "object", Score: 0.5, Labels: []v1.Label{{Label: "bicycle", Score: 0.9}, {Label: "car"}}},
	} {
		if got := title(2, r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestHostilePictures draws on what is let in of files that break decoders.
func TestHostilePictures(t *testing.T) {
	files, err := filepath.Glob("../../../shared/realdata/hostile/images/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("there are no hostile pictures beside the repository")
	}
	drawn := 0
	for _, f := range files {
		pic, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if cfg, _, err := image.DecodeConfig(bytes.NewReader(pic)); err != nil || int64(cfg.Width)*int64(cfg.Height) > 4_000_000 {
			continue
		}
		out, err := Draw(pic, v1.Result{Regions: []v1.Region{face(1, 1, 10, 10)}}, "image/jpeg")
		if err == nil && len(out) > 0 {
			drawn++
		}
	}
	if drawn == 0 {
		t.Error("none of them could be drawn on")
	}
}

func FuzzDraw(f *testing.F) {
	f.Add(encode(f, grey(8, 8)), 1, 2, 3, 4)
	f.Fuzz(func(t *testing.T, pic []byte, x, y, w, h int) {
		cfg, _, err := image.DecodeConfig(bytes.NewReader(pic))
		if err != nil || cfg.Width*cfg.Height > 1<<16 || cfg.Width > 1<<12 || cfg.Height > 1<<12 {
			return
		}
		Draw(pic, v1.Result{Regions: []v1.Region{face(x, y, w, h)}}, "image/jpeg")
	})
}

func BenchmarkDraw(b *testing.B) {
	pic := encode(b, grey(1920, 1080))
	var r v1.Result
	for i := range 10 {
		r.Regions = append(r.Regions, face(100*i, 50*i, 200, 200))
	}
	for _, mediaType := range []string{"image/jpeg", "image/png"} {
		b.Run(fmt.Sprint(mediaType), func(b *testing.B) {
			for b.Loop() {
				if _, err := Draw(pic, r, mediaType); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
