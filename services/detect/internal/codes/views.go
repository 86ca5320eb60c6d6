package codes

import (
	"image"
	"image/color"
	"iter"
	"math"

	"gocv.io/x/gocv"
)

// view is an image that was scaled, and may be rotated and inverted.
type view struct {
	gocv.Mat
	rotated bool
	// scale is the scale of the view. angle is its rotation around the center of the image,
	// in radians.
	scale, angle float64
	image        image.Point // size of the image
}

// Sizes of views, in pixels.
const (
	// minSide is the shorter side of the smallest image that is read: every code has at
	// least this number of modules.
	minSide = 8
	// maxLongSide is the longer side to which larger images are reduced.
	maxLongSide = 4000
	// maxEnlarged is the longer side of the largest image that is also read at twice its size.
	maxEnlarged = 1200
	// minReduced is the shorter side above which an image is also read at half its size, at a
	// quarter, and so on.
	minReduced = 500
	// maxRotated is the longer side to which larger images are reduced before they are rotated.
	maxRotated = 1600
)

// views yields the views of a grey image. Views that give more exact positions come first.
// Rotated views are yielded only if alsoTurned is set. A view is closed when the next one is
// yielded.
func views(grey gocv.Mat, alsoTurned bool) iter.Seq[view] {
	return func(yield func(view) bool) {
		width, height := grey.Cols(), grey.Rows()
		first := min(1, maxLongSide/float64(max(width, height)))
		if float64(min(width, height))*first < minSide {
			return
		}
		// The library reads no codes with low contrast.
		full := gocv.NewMat()
		defer full.Close()
		gocv.Normalize(grey, &full, 0, 255, gocv.NormMinMax)

		type step struct{ scale, angle float64 }
		steps := []step{{first, 0}}
		if max(width, height) <= maxEnlarged {
			steps = append(steps, step{2, 0})
		}
		for s := first; float64(min(width, height))*s > minReduced; {
			s /= 2
			steps = append(steps, step{s, 0})
		}
		if s := min(1, maxRotated/float64(max(width, height))); alsoTurned && float64(min(width, height))*s >= minSide {
			for i := range 3 {
				steps = append(steps, step{s, float64(i+1) * math.Pi / 8})
			}
		}
		for _, s := range steps {
			v := view{rotated: s.angle != 0, scale: s.scale, angle: s.angle, image: image.Pt(width, height)}
			if !v.yieldBoth(full, yield) {
				return
			}
		}
	}
}

// yieldBoth creates the pixels of the view, and yields it as it is and then inverted.
func (v view) yieldBoth(full gocv.Mat, yield func(view) bool) bool {
	v.Mat = gocv.NewMat()
	defer v.Close()
	size := image.Pt(int(math.Round(float64(v.image.X)*v.scale)), int(math.Round(float64(v.image.Y)*v.scale)))
	how := gocv.InterpolationArea
	if v.scale > 1 {
		how = gocv.InterpolationCubic
	}
	gocv.Resize(full, &v.Mat, size, 0, 0, how)
	if v.rotated {
		v.rotate()
	}
	if !yield(v) {
		return false
	}
	gocv.BitwiseNot(v.Mat, &v.Mat)
	return yield(v)
}

// rotate rotates the pixels counter-clockwise and enlarges the matrix to contain all of them.
func (v view) rotate() {
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

// size returns the size of the view after its rotation.
func (v view) size() image.Point {
	sin, cos := math.Sincos(v.angle)
	width, height := float64(v.image.X)*v.scale, float64(v.image.Y)*v.scale
	return image.Pt(int(math.Ceil(width*cos+height*sin)), int(math.Ceil(width*sin+height*cos)))
}

// toImage converts a point in the view to a point in the image.
func (v view) toImage(p image.Point) image.Point {
	x, y := float64(p.X), float64(p.Y)
	if v.rotated {
		size := v.size()
		sin, cos := math.Sincos(v.angle)
		x, y = x-float64(size.X)/2, y-float64(size.Y)/2
		x, y = cos*x-sin*y+float64(v.image.X)*v.scale/2, sin*x+cos*y+float64(v.image.Y)*v.scale/2
	}
	return image.Pt(int(math.Round(x/v.scale)), int(math.Round(y/v.scale)))
}
