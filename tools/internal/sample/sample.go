// Package sample draws the images with which a new mesh is tried: a page of English and Chinese text, and a face of
// simple shapes. Drawn images avoid images of third parties in the source tree.
package sample

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"os"

	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// line is a line of text on a page.
type line struct {
	text string
	font string
	size float64
}

// lines are the lines of the page, from the top.
var lines = []line{
	{"sightmesh reads this page", latin, 34},
	{"Pictures go in over HTTP or NATS, and what", latin, 26},
	{"is in them comes back, without losing one.", latin, 26},
	{"Invoice No. 2026-1120, total 1,234.56", latin, 26},
	{"白日依山尽，黄河入海流", chinese, 30},
	{"学而时习之，不亦说乎", chinese, 30},
}

// Fonts of the Debian packages fonts-dejavu-core and fonts-droid-fallback.
const (
	latin   = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
	chinese = "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf"
)

// Text returns the lines of text on the page.
func Text() []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = l.text
	}
	return out
}

// Page draws the page. It needs the fonts.
func Page() (image.Image, error) { return drawLines(lines, 64) }

// PageFile draws the page as a PNG file. It needs the fonts.
func PageFile() ([]byte, error) {
	page, err := Page()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := png.Encode(&b, page); err != nil {
		return nil, fmt.Errorf("encode the page: %w", err)
	}
	return b.Bytes(), nil
}

// LongPage draws n lines of English text.
func LongPage(n int) (image.Image, error) {
	long := make([]line, n)
	for i := range long {
		long[i] = line{fmt.Sprintf("Line %d: pictures go in, and what is in them", i+1), latin, 24}
	}
	return drawLines(long, 40)
}

func drawLines(lines []line, lead int) (image.Image, error) {
	const width, left, top, bottom = 820, 60, 80, 96
	img := image.NewGray(image.Rect(0, 0, width, top+bottom+(len(lines)-1)*lead-16))
	draw.Draw(img, img.Bounds(), image.White, image.Point{}, draw.Src)
	for i, l := range lines {
		face, err := openFace(l.font, l.size)
		if err != nil {
			return nil, err
		}
		d := font.Drawer{Dst: img, Src: image.Black, Face: face, Dot: fixed.P(left, top+i*lead)}
		d.DrawString(l.text)
		if err := face.Close(); err != nil {
			return nil, fmt.Errorf("close font: %w", err)
		}
	}
	return img, nil
}

func openFace(path string, size float64) (font.Face, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open font: %w (make deps installs it)", err)
	}
	all, err := opentype.ParseCollection(data)
	if err != nil {
		return nil, fmt.Errorf("read font %s: %w", path, err)
	}
	f, err := all.Font(0)
	if err != nil {
		return nil, fmt.Errorf("read font %s: %w", path, err)
	}
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		return nil, fmt.Errorf("create face of font %s: %w", path, err)
	}
	return face, nil
}

// FaceBox returns the box of the face in the image that Face draws.
func FaceBox() image.Rectangle { return image.Rect(120, 90, 280, 310) }

// Face draws a face from the front, with the differences in brightness that Haar cascades detect: eyes darker than the
// brow and cheeks, the bridge of the nose lighter than the eyes, the mouth darker than the chin.
func Face() image.Image {
	const width, height, ss = 400, 400, 3 // the mean of 3 × 3 samples for each pixel
	img := image.NewGray(image.Rect(0, 0, width, height))
	b := FaceBox()
	cx, cy := float64(b.Min.X+b.Max.X)/2, float64(b.Min.Y+b.Max.Y)/2
	rx, ry := float64(b.Dx())/2, float64(b.Dy())/2
	for y := range height {
		for x := range width {
			sum := 0.0
			for sy := range ss {
				for sx := range ss {
					fx := (float64(x) + (float64(sx)+.5)/ss - cx) / rx
					fy := (float64(y) + (float64(sy)+.5)/ss - cy) / ry
					sum += shade(fx, fy)
				}
			}
			img.SetGray(x, y, color.Gray{Y: uint8(sum / (ss * ss))})
		}
	}
	return img
}

// shade returns the brightness at a point. The face is about the unit disc.
func shade(x, y float64) float64 {
	v := 205.0 // background
	in := func(cx, cy, rx, ry float64) float64 { return math.Hypot((x-cx)/rx, (y-cy)/ry) }
	blend := func(d, value, strength float64) {
		if d < 1 {
			v += (value - v) * strength * math.Min(1, 3*(1-d))
		}
	}
	if in(0, 1.35, .55, .7) < 1 { // neck
		v = 165
	}
	if in(0, -.25, 1.06, 1.0) < 1 { // hair
		v = 55
	}
	if d := in(0, .08, .92, .95); d < 1 { // skin, darker at the edge
		v = 205 - 45*d*d
	}
	for _, side := range []float64{-1, 1} {
		blend(in(side*.40, -.10, .33, .17), 110, .8) // eye socket
		blend(in(side*.40, -.28, .30, .06), 50, .9)  // brow
		blend(in(side*.40, -.08, .19, .075), 225, .9)
		blend(in(side*.40, -.08, .085, .08), 25, 1) // pupil
		blend(in(side*.45, .32, .25, .2), 215, .4)  // cheek
		blend(in(side*.11, .30, .07, .05), 90, .7)  // nostril
	}
	blend(in(0, .02, .12, .33), 222, .7) // nose
	blend(in(0, .40, .22, .06), 140, .5) // below it
	blend(in(0, .55, .34, .10), 85, .9)  // mouth
	blend(in(0, .73, .25, .10), 215, .5) // chin
	return v
}
