package vision

import (
	"image"
	"math"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// A Placement says where an image lies in the input of a network.
type Placement struct {
	scaleX, scaleY float64 // pixels of the input for each of the image
	left, top      float64 // of the image, in the input
}

// ToImage returns the place in the image of one in the input.
func (p Placement) ToImage(x, y float64) (imageX, imageY float64) {
	return (x - p.left) / p.scaleX, (y - p.top) / p.scaleY
}

// Fit makes the input of a network from an image of 8 bits of blue, green and red. Its shape is 1 × channels × height × width, with the height and the width of in
// where its way of resizing is a fixed one.
func Fit(m gocv.Mat, in model.Input) (nets.Tensor, Placement) {
	size, at := place(m.Cols(), m.Rows(), in)
	work := m
	if in.Channels == model.Grey {
		work = Grey(m)
		defer work.Close()
	}
	small := gocv.NewMat()
	defer small.Close()
	gocv.Resize(work, &small, size, 0, 0, gocv.InterpolationLinear)

	if !in.Resize.Fixed() {
		in.Width, in.Height = size.X, size.Y
	}
	channels := in.Channels.Count()
	t := nets.NewTensor(1, channels, in.Height, in.Width)
	from := pixels(small)
	for c := range channels {
		source := c
		if in.Channels == model.RGB {
			source = channels - 1 - c
		}
		table := in.Table(c)
		plane := t.Data[c*in.Width*in.Height : (c+1)*in.Width*in.Height]
		if size.X < in.Width || size.Y < in.Height {
			pad := table[in.Pad]
			for i := range plane {
				plane[i] = pad
			}
		}
		for y := range size.Y {
			row := plane[(y+at.Y)*in.Width+at.X:][:size.X]
			line := from[y*size.X*channels+source:]
			for x := range row {
				row[x] = table[line[x*channels]]
			}
		}
	}
	return t, Placement{
		scaleX: float64(size.X) / float64(m.Cols()), scaleY: float64(size.Y) / float64(m.Rows()),
		left: float64(at.X), top: float64(at.Y),
	}
}

// place returns how large an image is in the input, and where. No side is less than a
// pixel, however long the other.
func place(width, height int, in model.Input) (size, at image.Point) {
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
	case model.Height:
		f = float64(in.Height) / float64(height)
		return image.Pt(side(width, in.Width), in.Height), image.Point{}
	case model.Letterbox, model.LetterboxCenter:
	}
	size = image.Pt(side(width, in.Width), side(height, in.Height))
	if in.Resize == model.LetterboxCenter {
		at = image.Pt((in.Width-size.X)/2, (in.Height-size.Y)/2)
	}
	return size, at
}
