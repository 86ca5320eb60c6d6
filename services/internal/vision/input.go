package vision

import (
	"image"
	"math"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// A Placement says where an image is in the input of a network.
type Placement struct {
	scaleX, scaleY float64 // pixels of the input per pixel of the image
	left, top      float64 // position of the image in the input
}

// ToImage converts a point in the input to a point in the image.
func (p Placement) ToImage(x, y float64) (imageX, imageY float64) {
	return (x - p.left) / p.scaleX, (y - p.top) / p.scaleY
}

// InputSize returns the size of the input that [Fit] makes from an image of this width and
// height.
func InputSize(width, height int, in model.Input) image.Point {
	if in.Resize.Fixed() {
		return image.Pt(in.Width, in.Height)
	}
	size, _ := computePlacement(width, height, in)
	return size
}

// Fit makes the input of a network from an image of 8-bit blue, green and red. The shape of
// the input is 1 × channels × height × width, with the size of [InputSize].
func Fit(m gocv.Mat, in model.Input) (nets.Tensor, Placement) {
	part := image.Rect(0, 0, m.Cols(), m.Rows())
	if in.Resize == model.Center {
		part = centralPart(part)
	}
	seen := m.Region(part)
	defer seen.Close()
	work := seen
	if in.Channels == model.Grey {
		work = ToGrey(seen)
		defer work.Close()
	}
	size, at := computePlacement(part.Dx(), part.Dy(), in)
	small := gocv.NewMat()
	defer small.Close()
	gocv.Resize(work, &small, size, 0, 0, gocv.InterpolationLinear)

	input := InputSize(m.Cols(), m.Rows(), in)
	in.Width, in.Height = input.X, input.Y
	channels := in.Channels.Count()
	t := nets.NewTensor(1, channels, in.Height, in.Width)
	from := pixels(small)
	whole := image.Rect(0, 0, in.Width, in.Height)
	to := image.Rectangle{Min: at, Max: at.Add(size)}.Intersect(whole)
	for c := range channels {
		source := c
		if in.Channels == model.RGB {
			source = channels - 1 - c
		}
		table := in.Table(c)
		plane := t.Data[c*in.Width*in.Height : (c+1)*in.Width*in.Height]
		if to != whole {
			pad := table[in.Pad]
			for i := range plane {
				plane[i] = pad
			}
		}
		for y := to.Min.Y; y < to.Max.Y; y++ {
			row := plane[y*in.Width+to.Min.X : y*in.Width+to.Max.X]
			line := from[((y-at.Y)*size.X+to.Min.X-at.X)*channels+source:]
			for x := range row {
				row[x] = table[line[x*channels]]
			}
		}
	}
	p := Placement{scaleX: float64(size.X) / float64(part.Dx()), scaleY: float64(size.Y) / float64(part.Dy())}
	p.left, p.top = float64(at.X)-float64(part.Min.X)*p.scaleX, float64(at.Y)-float64(part.Min.Y)*p.scaleY
	return t, p
}

// centralPart returns the central part of an image, at most four times as long as wide. Only the
// center is used, and resizing a very long image, such as 60000 × 1, as a whole would need
// too much memory.
func centralPart(whole image.Rectangle) image.Rectangle {
	most := 4 * min(whole.Dx(), whole.Dy())
	x, y := max(whole.Dx()-most, 0)/2, max(whole.Dy()-most, 0)/2
	return image.Rect(x, y, whole.Dx()-x, whole.Dy()-y)
}

// computePlacement returns the size to which an image is scaled for the input, and its position in the
// input. The position is negative when the scaled image is larger than the input. Each side
// is at least one pixel.
func computePlacement(width, height int, in model.Input) (size, at image.Point) {
	f := min(float64(in.Width)/float64(width), float64(in.Height)/float64(height))
	step := max(in.Multiple, 1)
	side := func(n, most int) int {
		steps := math.Round(float64(n) * f / float64(step))
		return min(max(int(steps), 1)*step, most-most%step)
	}
	switch in.Resize {
	case model.Stretch:
		return image.Pt(in.Width, in.Height), image.Point{}
	case model.Shrink:
		f = min(f, 1)
	case model.Height, model.Line:
		f = float64(in.Height) / float64(height)
		return image.Pt(side(width, in.Width), in.Height), image.Point{}
	case model.Center:
		f = float64(in.ShortSide) / float64(min(width, height))
		size = image.Pt(side(width, math.MaxInt), side(height, math.MaxInt))
		return size, image.Pt((in.Width-size.X)/2, (in.Height-size.Y)/2)
	case model.Letterbox, model.LetterboxCenter:
	}
	size = image.Pt(side(width, in.Width), side(height, in.Height))
	if in.Resize == model.LetterboxCenter {
		at = image.Pt((in.Width-size.X)/2, (in.Height-size.Y)/2)
	}
	return size, at
}
