package codes

import (
	"image"
	"image/color"
	"iter"
	"math"

	"gocv.io/x/gocv"
)

// view is an image in another size or turned, and inverted or not.
type view struct {
	gocv.Mat
	turned bool
	// scale is that of the view; angle is by how much it is turned, in radians, around the
	// middle of the image.
	scale, angle float64
	image        image.Point // size of the image
}

// Sizes of views, in pixels.
const (
	// leastSide is the shorter side of the smallest image that is looked at: no code has
	// fewer modules.
	leastSide = 8
	// largest is the longer side to which a larger image is reduced.
	largest = 4000
	// enlarged is the longer side of the largest image that is also read at twice its size.
	enlarged = 1200
	// reduced is the shorter side above which an image is also read at half its size, and
	// half of that, and so on.
	reduced = 500
	// turned is the longer side to which a larger image is reduced before it is turned.
	turned = 1600
)

// views yields the views of a grey image with the surest positions first, and those
// turned only if they are wanted. Each is closed when the next one is yielded.
func views(grey gocv.Mat, alsoTurned bool) iter.Seq[view] {
	return func(yield func(view) bool) {
		width, height := grey.Cols(), grey.Rows()
		first := min(1, largest/float64(max(width, height)))
		if float64(min(width, height))*first < leastSide {
			return
		}
		// The library sees no code in faint grey on grey.
		full := gocv.NewMat()
		defer full.Close()
		gocv.Normalize(grey, &full, 0, 255, gocv.NormMinMax)

		type step struct{ scale, angle float64 }
		steps := []step{{first, 0}}
		if max(width, height) <= enlarged {
			steps = append(steps, step{2, 0})
		}
		for s := first; float64(min(width, height))*s > reduced; {
			s /= 2
			steps = append(steps, step{s, 0})
		}
		if s := min(1, turned/float64(max(width, height))); alsoTurned && float64(min(width, height))*s >= leastSide {
			for i := range 3 {
				steps = append(steps, step{s, float64(i+1) * math.Pi / 8})
			}
		}
		for _, s := range steps {
			v := view{turned: s.angle != 0, scale: s.scale, angle: s.angle, image: image.Pt(width, height)}
			if !v.yieldBoth(full, yield) {
				return
			}
		}
	}
}

// yieldBoth makes the pixels of the view and yields it, and then inverted.
func (v view) yieldBoth(full gocv.Mat, yield func(view) bool) bool {
	v.Mat = gocv.NewMat()
	defer v.Close()
	size := image.Pt(int(math.Round(float64(v.image.X)*v.scale)), int(math.Round(float64(v.image.Y)*v.scale)))
	how := gocv.InterpolationArea
	if v.scale > 1 {
		how = gocv.InterpolationCubic
	}
	gocv.Resize(full, &v.Mat, size, 0, 0, how)
	if v.turned {
		v.turn()
	}
	if !yield(v) {
		return false
	}
	gocv.BitwiseNot(v.Mat, &v.Mat)
	return yield(v)
}

// turn turns the pixels counter-clockwise, on an image that holds all of them.
func (v view) turn() {
	size := v.size()
	cols, rows := float64(v.Cols()), float64(v.Rows())
	sin, cos := math.Sincos(v.angle)
	m := gocv.NewMatWithSize(2, 3, gocv.MatTypeCV64F)
	defer m.Close()
	for i, f := range []float64{
		cos, sin, float64(size.X)/2 - cos*cols/2 - sin*rows/2,
		-sin, cos, float64(size.Y)/2 + sin*cols/2 - cos*rows/2,
	} {
		m.SetDoubleAt(i/3, i%3, f)
	}
	gocv.WarpAffineWithParams(v.Mat, &v.Mat, m, size, gocv.InterpolationLinear, gocv.BorderReplicate, color.RGBA{})
}

// size returns the size of the view when it is turned.
func (v view) size() image.Point {
	sin, cos := math.Sincos(v.angle)
	width, height := float64(v.image.X)*v.scale, float64(v.image.Y)*v.scale
	return image.Pt(int(math.Ceil(width*cos+height*sin)), int(math.Ceil(width*sin+height*cos)))
}

// toImage returns where in the image a point of the view lies.
func (v view) toImage(p image.Point) image.Point {
	x, y := float64(p.X), float64(p.Y)
	if v.turned {
		size := v.size()
		sin, cos := math.Sincos(v.angle)
		x, y = x-float64(size.X)/2, y-float64(size.Y)/2
		x, y = cos*x-sin*y+float64(v.image.X)*v.scale/2, sin*x+cos*y+float64(v.image.Y)*v.scale/2
	}
	return image.Pt(int(math.Round(x/v.scale)), int(math.Round(y/v.scale)))
}
