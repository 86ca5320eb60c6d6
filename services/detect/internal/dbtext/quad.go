package dbtext

import (
	"cmp"
	"image"
	"math"
	"slices"
)

// Point is a point in an image.
type Point struct{ X, Y float64 }

// Quad is a rectangle that may be rotated. Its corners are clockwise from the top left of
// the line of text in it, which is read from the first corner to the second.
type Quad [4]Point

// Bounds returns the smallest upright rectangle of whole pixels around the quad.
func (q Quad) Bounds() image.Rectangle {
	left, top, right, bottom := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, p := range q {
		left, right = min(left, p.X), max(right, p.X)
		top, bottom = min(top, p.Y), max(bottom, p.Y)
	}
	return image.Rect(int(math.Floor(left)), int(math.Floor(top)), int(math.Ceil(right)), int(math.Ceil(bottom)))
}

// contains reports whether a point is in the quad or on its edge.
func (q Quad) contains(x, y float64) bool {
	for i, a := range q {
		b := q[(i+1)%len(q)]
		if (b.X-a.X)*(y-a.Y)-(b.Y-a.Y)*(x-a.X) < 0 {
			return false
		}
	}
	return true
}

// expand returns the quad with each side moved outwards by d.
func (q Quad) expand(d float64) Quad {
	w, h := q.sides()
	along := Point{(q[1].X - q[0].X) / w * d, (q[1].Y - q[0].Y) / w * d}
	down := Point{(q[3].X - q[0].X) / h * d, (q[3].Y - q[0].Y) / h * d}
	return Quad{
		{q[0].X - along.X - down.X, q[0].Y - along.Y - down.Y},
		{q[1].X + along.X - down.X, q[1].Y + along.Y - down.Y},
		{q[2].X + along.X + down.X, q[2].Y + along.Y + down.Y},
		{q[3].X - along.X + down.X, q[3].Y - along.Y + down.Y},
	}
}

// smallestQuad returns the rectangle with the smallest area around points. The order of its
// corners is that of a line of text in it.
func smallestQuad(points []image.Point) Quad {
	hull := convexHull(points)
	best, area := Quad{}, math.Inf(1)
	for i, a := range hull {
		b := hull[(i+1)%len(hull)]
		length := math.Hypot(float64(b.X-a.X), float64(b.Y-a.Y))
		if length == 0 {
			if len(hull) > 1 {
				continue
			}
			length = 1
			b = a.Add(image.Pt(1, 0))
		}
		// The smallest rectangle has a side along an edge of the hull, such as a to b.
		ux, uy := float64(b.X-a.X)/length, float64(b.Y-a.Y)/length
		left, right, top, bottom := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
		for _, p := range hull {
			along := float64(p.X)*ux + float64(p.Y)*uy
			across := float64(p.Y)*ux - float64(p.X)*uy
			left, right = min(left, along), max(right, along)
			top, bottom = min(top, across), max(bottom, across)
		}
		if now := (right - left) * (bottom - top); now < area {
			at := func(along, across float64) Point {
				return Point{along*ux - across*uy, along*uy + across*ux}
			}
			best, area = Quad{at(left, top), at(right, top), at(right, bottom), at(left, bottom)}, now
		}
	}
	return best.sortCorners()
}

// vertical is the minimum ratio of height to width of a line that is read from the top.
const vertical = 1.5

// sortCorners rotates the order of the corners into that of the text: from the left, or from
// the top for a line that is much higher than wide, as on the spine of a book.
func (q Quad) sortCorners() Quad {
	for range q { // until the first side points to the right, at most four times
		dx, dy := q[1].X-q[0].X, q[1].Y-q[0].Y
		if dx > 0 && dx >= math.Abs(dy) {
			break
		}
		q = Quad{q[1], q[2], q[3], q[0]}
	}
	if w, h := q.sides(); h >= vertical*w {
		q = Quad{q[1], q[2], q[3], q[0]}
	}
	return q
}

// convexHull returns the corners of the convex hull, with Andrew's monotone chain algorithm.
func convexHull(points []image.Point) []image.Point {
	points = slices.Clone(points)
	slices.SortFunc(points, func(a, b image.Point) int { return cmp.Or(cmp.Compare(a.X, b.X), cmp.Compare(a.Y, b.Y)) })
	points = slices.Compact(points)
	if len(points) < 3 {
		return points
	}
	half := func(in []image.Point) []image.Point {
		var chain []image.Point
		for _, p := range in {
			for len(chain) > 1 {
				a, b := chain[len(chain)-2], chain[len(chain)-1]
				if (b.X-a.X)*(p.Y-a.Y)-(b.Y-a.Y)*(p.X-a.X) > 0 {
					break
				}
				chain = chain[:len(chain)-1]
			}
			chain = append(chain, p)
		}
		return chain[:len(chain)-1] // the other half begins with the last one
	}
	lower := half(points)
	slices.Reverse(points)
	return append(lower, half(points)...)
}
