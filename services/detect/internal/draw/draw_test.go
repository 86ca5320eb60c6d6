package draw

import (
	"bytes"
	"image"
	"image/color"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// greyImage returns a light grey image.
func greyImage(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = 200
	}
	for i := 3; i < len(img.Pix); i += 4 {
		img.Pix[i] = 255
	}
	return img
}

// faceRegion returns a region with a title.
func faceRegion(x, y, w, h int) v1.DrawRegion {
	return v1.DrawRegion{Box: v1.Box{X: x, Y: y, Width: w, Height: h}, Label: "face", Title: "face 0.97"}
}

// sameColour reports whether two colours are equal, apart from alpha.
func sameColour(a, b color.Color) bool {
	r, g, bl, _ := a.RGBA()
	r2, g2, bl2, _ := b.RGBA()
	return r == r2 && g == g2 && bl == bl2
}

func TestRegions_DrawsBoxes(t *testing.T) {
	t.Parallel()
	img := greyImage(300, 200)
	if err := Regions(img, []v1.DrawRegion{faceRegion(100, 80, 60, 50)}); err != nil {
		t.Fatal(err)
	}
	c := labelColor("face")
	for _, p := range []image.Point{{100, 80}, {159, 80}, {100, 129}, {159, 129}, {130, 129}, {101, 100}, {158, 100}} {
		if !sameColour(img.At(p.X, p.Y), c) {
			t.Errorf("%v is not on the edge of the box", p)
		}
	}
	for _, p := range []image.Point{{99, 100}, {160, 100}, {130, 130}, {130, 100}, {102, 100}} {
		if sameColour(img.At(p.X, p.Y), c) {
			t.Errorf("%v is drawn on", p)
		}
	}
	if !sameColour(img.At(101, 78), c) {
		t.Error("no title above the box")
	}
}

// TestRegions_PolygonInPlaceOfTheBox draws a tilted line of text, which rises by one pixel
// in two.
func TestRegions_PolygonInPlaceOfTheBox(t *testing.T) {
	t.Parallel()
	img := greyImage(300, 200)
	r := faceRegion(40, 60, 220, 120)
	r.Polygon = []v1.Point{{X: 40, Y: 150}, {X: 240, Y: 50}, {X: 260, Y: 90}, {X: 60, Y: 190}}
	if err := Regions(img, []v1.DrawRegion{r}); err != nil {
		t.Fatal(err)
	}
	c := labelColor("face")
	for _, p := range []image.Point{{140, 100}, {250, 70}, {160, 140}, {50, 170}} {
		if !sameColour(img.At(p.X, p.Y), c) {
			t.Errorf("%v is not on the edge of the polygon", p)
		}
	}
	for _, p := range []image.Point{{40, 170}, {150, 179}, {150, 120}, {259, 170}} {
		if sameColour(img.At(p.X, p.Y), c) {
			t.Errorf("%v is drawn on", p)
		}
	}
}

func TestRegions_NoRegionsKeepTheImage(t *testing.T) {
	t.Parallel()
	img := greyImage(30, 20)
	if err := Regions(img, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(img.Pix, greyImage(30, 20).Pix) {
		t.Error("the image was changed")
	}
}

func TestRegions_AtAndOverTheBorder(t *testing.T) {
	t.Parallel()
	for _, r := range []v1.DrawRegion{
		faceRegion(0, 0, 30, 20), faceRegion(-10, -10, 5, 5), faceRegion(25, 15, 100, 100), faceRegion(29, 19, 1, 1),
		faceRegion(5, 5, 0, 0),
		{Box: v1.Box{X: 1, Y: 1, Width: 10, Height: 5}}, {Title: "a title that is longer than the image"},
		{Polygon: []v1.Point{{X: -1 << 40, Y: 1 << 40}, {X: 1 << 40}, {Y: -1 << 40}}}, {Polygon: []v1.Point{{X: 3, Y: 3}}},
	} {
		if err := Regions(greyImage(30, 20), []v1.DrawRegion{r}); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestTitle(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]v1.DrawRegion{"face 0.97": faceRegion(0, 0, 1, 1), "3": {Label: "text"}} {
		if got := title(2, r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestEncode(t *testing.T) {
	t.Parallel()
	for _, want := range []string{"png", "jpeg"} {
		out, err := Encode(greyImage(30, 20), "image/"+want)
		if err != nil {
			t.Fatal(err)
		}
		img, got, err := image.Decode(bytes.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("image/%s is encoded as %s", want, got)
		}
		if !sameColour(img.At(15, 10), color.Gray{200}) {
			t.Errorf("image/%s: the middle is %v", want, img.At(15, 10))
		}
	}
	if _, err := Encode(greyImage(30, 20), "image/gif"); err == nil {
		t.Error("image/gif is not rejected")
	}
}

func FuzzRegions(f *testing.F) {
	f.Add(1, 2, 3, 4, "title")
	f.Fuzz(func(t *testing.T, x, y, w, h int, title string) {
		r := faceRegion(x, y, w, h)
		r.Title = title
		if err := Regions(greyImage(30, 20), []v1.DrawRegion{r}); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkDraw(b *testing.B) {
	img := greyImage(1920, 1080)
	var regions []v1.DrawRegion
	for i := range 10 {
		regions = append(regions, faceRegion(100*i, 50*i, 200, 200))
	}
	for _, mediaType := range []string{"image/jpeg", "image/png"} {
		b.Run(mediaType, func(b *testing.B) {
			for b.Loop() {
				if err := Regions(img, regions); err != nil {
					b.Fatal(err)
				}
				if _, err := Encode(img, mediaType); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
