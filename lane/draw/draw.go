// Package draw draws what was found in a picture on the picture: a box round
// each region and what it is. It is pure Go, so that a service without OpenCV,
// and any client, can use it.
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
	"strconv"

	_ "golang.org/x/image/bmp"  // decodes BMP
	_ "golang.org/x/image/tiff" // decodes TIFF
	_ "golang.org/x/image/webp" // decodes WebP

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Draw returns the picture, upright, with the regions of its answer drawn on
// it, encoded as mediaType: image/png or image/jpeg. A region is named by its
// label and score, or, where it was read, by its number in reading order.
//
// It takes four bytes for each pixel, and for a turned picture eight: the
// caller has checked the size, as package picture does. A picture that cannot
// be decoded is a [*v1.Problem].
func Draw(pic []byte, r v1.Result, mediaType string) ([]byte, error) {
	src, _, err := image.Decode(bytes.NewReader(pic))
	if err != nil {
		return nil, v1.NewProblem(v1.Damaged, "the picture cannot be drawn on: %v", err)
	}
	orientation := 1
	if r.Image != nil {
		orientation = r.Image.Orientation
	}
	img := upright(src, orientation)
	if err := Regions(img, r.Regions); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	switch mediaType {
	case "image/png":
		err = (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&out, img)
	case "image/jpeg":
		err = jpeg.Encode(&out, img, &jpeg.Options{Quality: 90})
	default:
		return nil, fmt.Errorf("draw: media type %q, want image/png or image/jpeg", mediaType)
	}
	if err != nil {
		return nil, fmt.Errorf("draw: %w", err)
	}
	return out.Bytes(), nil
}

// upright copies src and turns and mirrors it as its EXIF orientation (1 to 8)
// says.
func upright(src image.Image, orientation int) *image.RGBA {
	b := src.Bounds()
	flat := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	draw.Draw(flat, flat.Bounds(), src, b.Min, draw.Src)
	if orientation < 2 || orientation > 8 {
		return flat
	}
	w, h := b.Dx(), b.Dy()
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	if orientation >= 5 {
		out = image.NewRGBA(image.Rect(0, 0, h, w))
	}
	for y := range h {
		for x := range w {
			tx, ty := x, y
			switch orientation {
			case 2:
				tx = w - 1 - x
			case 3:
				tx, ty = w-1-x, h-1-y
			case 4:
				ty = h - 1 - y
			case 5:
				tx, ty = y, x
			case 6:
				tx, ty = h-1-y, x
			case 7:
				tx, ty = h-1-y, w-1-x
			case 8:
				tx, ty = y, w-1-x
			}
			from, to := flat.PixOffset(x, y), out.PixOffset(tx, ty)
			copy(out.Pix[to:to+4], flat.Pix[from:from+4])
		}
	}
	return out
}

// palette has colours that are told apart on most pictures.
var palette = []color.RGBA{
	{230, 25, 75, 255}, {60, 180, 75, 255}, {0, 130, 200, 255}, {245, 130, 48, 255},
	{145, 30, 180, 255}, {0, 128, 128, 255}, {240, 50, 230, 255}, {170, 110, 40, 255},
}

// colorOf is the same for a label in every picture.
func colorOf(label string) color.RGBA {
	h := fnv.New32a()
	h.Write([]byte(label))
	return palette[h.Sum32()%uint32(len(palette))]
}

// Regions draws boxes and names on img, which is upright.
func Regions(img draw.Image, regions []v1.Region) error {
	if len(regions) == 0 {
		return nil
	}
	long := max(img.Bounds().Dx(), img.Bounds().Dy())
	line := max(2, long/400)
	f, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return fmt.Errorf("draw: read the font: %w", err)
	}
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: max(11, float64(long)/60), DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		return fmt.Errorf("draw: make the font: %w", err)
	}
	defer face.Close() //nolint:errcheck // it has nothing to lose
	for i, r := range regions {
		c := colorOf(r.Label)
		frame(img, r.Box, line, c)
		name(img, face, r.Box, title(i, r), c)
	}
	return nil
}

func title(i int, r v1.Region) string {
	if r.Text != "" {
		return strconv.Itoa(i + 1)
	}
	s := fmt.Sprintf("%s %.2f", r.Label, r.Score)
	if len(r.Labels) > 0 {
		s += ", " + r.Labels[0].Label
	}
	return s
}

// frame draws the edge of a box, inside it.
func frame(img draw.Image, b v1.Box, line int, c color.Color) {
	box := image.Rect(b.X, b.Y, b.X+b.Width, b.Y+b.Height)
	in := box.Inset(line)
	fill := image.NewUniform(c)
	if in.Empty() {
		draw.Draw(img, box, fill, image.Point{}, draw.Src)
		return
	}
	for _, r := range []image.Rectangle{
		{box.Min, image.Pt(box.Max.X, in.Min.Y)}, {image.Pt(box.Min.X, in.Max.Y), box.Max},
		{image.Pt(box.Min.X, in.Min.Y), image.Pt(in.Min.X, in.Max.Y)}, {image.Pt(in.Max.X, in.Min.Y), image.Pt(box.Max.X, in.Max.Y)},
	} {
		draw.Draw(img, r, fill, image.Point{}, draw.Src)
	}
}

// name writes text on a bar above the box, or inside where there is no room,
// and never outside of the picture.
func name(img draw.Image, face font.Face, b v1.Box, text string, c color.Color) {
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
