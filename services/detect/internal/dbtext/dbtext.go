// Package dbtext finds lines of text in the output of networks for differentiable
// binarization (DB; Liao and others, "Real-time Scene Text Detection with Differentiable
// Binarization", 2020), such as those of PP-OCR. The output is a map with the probability of
// each pixel to be in a line. The lines in the map are shrunk so that they do not touch.
package dbtext

import (
	"image"
	"math"

	"gocv.io/x/gocv"
)

// Options configures [Find].
type Options struct {
	// Pixel is the probability above which a pixel belongs to a line.
	Pixel float64
	// Score is the minimum score of a line: the mean probability of its pixels.
	Score float64
	// Unclip says how far the shrunk lines are expanded: by area × Unclip ÷ circumference
	// on each side.
	Unclip float64
	// MinSide is the minimum of the sides of a shrunk line, in pixels of the map.
	MinSide float64
}

// Line is a line of text.
type Line struct {
	Corners Quad
	Score   float64
}

// Find returns the lines in a map of width × height probabilities, with rows from the top.
// The corners of lines are in pixels of the map, and may be outside of it.
func Find(probabilities []float32, width, height int, o Options) []Line {
	mask := gocv.NewMatWithSize(height, width, gocv.MatTypeCV8U)
	defer mask.Close()
	pixels, err := mask.DataPtrUint8()
	if err != nil {
		panic(err) // cannot happen for the matrix created above
	}
	for i, p := range probabilities[:width*height] {
		pixels[i] = 0
		if float64(p) > o.Pixel {
			pixels[i] = 1
		}
	}
	contours := gocv.FindContours(mask, gocv.RetrievalExternal, gocv.ChainApproxSimple)
	defer contours.Close()
	var lines []Line
	for i := range contours.Size() {
		q := smallestQuad(contours.At(i).ToPoints())
		if min(q.sides()) < o.MinSide {
			continue
		}
		score := meanProbability(probabilities, width, height, q)
		if score < o.Score {
			continue
		}
		w, h := q.sides()
		lines = append(lines, Line{Corners: q.expand(o.Unclip * w * h / (2 * (w + h))), Score: score})
	}
	return lines
}

// meanProbability returns the mean probability of the pixels in a quad, 0 when there are none.
func meanProbability(probabilities []float32, width, height int, q Quad) float64 {
	sum, n := 0.0, 0
	box := q.Bounds()
	box.Max = box.Max.Add(image.Pt(1, 1)) // include pixels on the edge
	box = box.Intersect(image.Rect(0, 0, width, height))
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			if q.contains(float64(x), float64(y)) {
				sum += float64(probabilities[y*width+x])
				n++
			}
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

// sides returns the width and the height of the quad.
func (q Quad) sides() (w, h float64) {
	return math.Hypot(q[1].X-q[0].X, q[1].Y-q[0].Y), math.Hypot(q[3].X-q[0].X, q[3].Y-q[0].Y)
}
