// Package draw draws regions on a decoded image, each as a box or polygon with a title, and
// encodes the image. It is pure Go.
package draw

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"math"
	"strconv"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Encode encodes an image as mediaType: image/png or image/jpeg.
func Encode(img image.Image, mediaType string) ([]byte, error) {
	var out bytes.Buffer
	var err error
	switch mediaType {
	case "image/png":
		err = (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&out, img)
	case "image/jpeg":
		err = jpeg.Encode(&out, img, &jpeg.Options{Quality: 90})
	default:
		return nil, fmt.Errorf("encode a drawn image: media type %q, want image/png or image/jpeg", mediaType)
	}
	if err != nil {
		return nil, fmt.Errorf("encode a drawn image: %w", err)
	}
	return out.Bytes(), nil
}

// palette has colors that are easy to distinguish on most images.
var palette = []color.RGBA{
	{230, 25, 75, 255}, {60, 180, 75, 255}, {0, 130, 200, 255}, {245, 130, 48, 255},
	{145, 30, 180, 255}, {0, 128, 128, 255}, {240, 50, 230, 255}, {170, 110, 40, 255},
}

// labelColor returns the color of a label, the same on every image.
func labelColor(label string) color.RGBA {
	h := fnv.New32a()
	h.Write([]byte(label))
	return palette[h.Sum32()%uint32(len(palette))]
}

// Regions draws regions with their titles on an upright image.
func Regions(img draw.Image, regions []v1.DrawRegion) error {
	if len(regions) == 0 {
		return nil
	}
	long := max(img.Bounds().Dx(), img.Bounds().Dy())
	line := max(2, long/400)
	f, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return fmt.Errorf("draw regions: read the font: %w", err)
	}
	options := &opentype.FaceOptions{Size: max(11, float64(long)/60), DPI: 72, Hinting: font.HintingFull}
	face, err := opentype.NewFace(f, options)
	if err != nil {
		return fmt.Errorf("draw regions: make the font: %w", err)
	}
	defer face.Close() //nolint:errcheck // nothing was written
	for i, r := range regions {
		c := labelColor(r.Label)
		if len(r.Polygon) > 0 {
			drawPolygon(img, r.Polygon, line, c)
		} else {
			drawBox(img, r.Box, line, c)
		}
		drawTitle(img, face, r.Box, title(i, r), c)
	}
	return nil
}

// title returns the title of region i, counted from 0. Without one, it is the number of the
// region, counted from 1.
func title(i int, r v1.DrawRegion) string {
	if r.Title == "" {
		return strconv.Itoa(i + 1)
	}
	return r.Title
}

// drawBox draws a line along the edge of a box, on its inside.
func drawBox(img draw.Image, b v1.Box, line int, c color.Color) {
	box := image.Rect(b.X, b.Y, b.X+b.Width, b.Y+b.Height)
	in := box.Inset(line)
	fill := image.NewUniform(c)
	if in.Empty() {
		draw.Draw(img, box, fill, image.Point{}, draw.Src)
		return
	}
	for _, r := range []image.Rectangle{
		{box.Min, image.Pt(box.Max.X, in.Min.Y)}, {image.Pt(box.Min.X, in.Max.Y), box.Max},
		{image.Pt(box.Min.X, in.Min.Y), image.Pt(in.Min.X, in.Max.Y)},
		{image.Pt(in.Max.X, in.Min.Y), image.Pt(box.Max.X, in.Max.Y)},
	} {
		draw.Draw(img, r, fill, image.Point{}, draw.Src)
	}
}

// drawPolygon draws the edges of a polygon. Corners that are further outside of the image than
// its longer side are moved to that distance.
func drawPolygon(img draw.Image, corners []v1.Point, line int, c color.Color) {
	bounds := img.Bounds()
	near := bounds.Inset(-max(bounds.Dx(), bounds.Dy()))
	at := func(p v1.Point) (x, y float64) {
		return float64(min(max(p.X, near.Min.X), near.Max.X)), float64(min(max(p.Y, near.Min.Y), near.Max.Y))
	}
	fill := image.NewUniform(c)
	for i, corner := range corners {
		x0, y0 := at(corner)
		x1, y1 := at(corners[(i+1)%len(corners)])
		steps := max(math.Abs(x1-x0), math.Abs(y1-y0), 1)
		for s := 0.0; s <= steps; s++ {
			x, y := int(math.Round(x0+(x1-x0)*s/steps))-line/2, int(math.Round(y0+(y1-y0)*s/steps))-line/2
			draw.Draw(img, image.Rect(x, y, x+line, y+line), fill, image.Point{}, draw.Src)
		}
	}
}

// drawTitle writes text on a bar above the box, or inside the box if there is no space above.
// The bar is always inside the image.
func drawTitle(img draw.Image, face font.Face, b v1.Box, text string, c color.Color) {
	bounds := img.Bounds()
	m := face.Metrics()
	h, w := (m.Ascent + m.Descent).Ceil(), font.MeasureString(face, text).Ceil()+6
	x := max(bounds.Min.X, min(b.X, bounds.Max.X-w))
	y := b.Y - h
	if y < bounds.Min.Y {
		y = min(max(b.Y, bounds.Min.Y), bounds.Max.Y-h)
	}
	draw.Draw(img, image.Rect(x, y, x+w, y+h), image.NewUniform(c), image.Point{}, draw.Src)
	d := font.Drawer{Dst: img, Src: image.White, Face: face, Dot: fixed.P(x+3, y+m.Ascent.Ceil())}
	d.DrawString(text)
}
