package dbtext

import (
	"image"
	"math"
	"math/rand/v2"
	"testing"
)

var options = Options{Pixel: 0.3, Score: 0.5, Unclip: 2, MinSide: 3}

// probabilityMap returns a map with the probability p inside these quads, and 0 elsewhere.
func probabilityMap(width, height int, p float32, quads ...Quad) []float32 {
	m := make([]float32, width*height)
	for _, q := range quads {
		for y := range height {
			for x := range width {
				if q.contains(float64(x), float64(y)) {
					m[y*width+x] = p
				}
			}
		}
	}
	return m
}

// newQuad returns the rectangle with its center at x, y whose first side has this angle.
func newQuad(x, y, width, height, degrees float64) Quad {
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	var q Quad
	for i, c := range [4][2]float64{{-1, -1}, {1, -1}, {1, 1}, {-1, 1}} {
		dx, dy := c[0]*width/2, c[1]*height/2
		q[i] = Point{x + dx*cos - dy*sin, y + dx*sin + dy*cos}
	}
	return q
}

// distance returns the largest distance between corresponding corners of two quads.
func distance(a, b Quad) float64 {
	most := 0.0
	for i := range a {
		most = max(most, math.Hypot(a[i].X-b[i].X, a[i].Y-b[i].Y))
	}
	return most
}

// TestFind_EveryAngle finds a line at each angle. Its first corner is where reading starts:
// at the left, or at the top for a vertical line.
func TestFind_EveryAngle(t *testing.T) {
	t.Parallel()
	for degrees := -44.0; degrees < 135; degrees++ {
		if degrees > 44 && degrees < 46 {
			continue // the direction of reading is not defined
		}
		shrunk := newQuad(150, 140, 120, 20, degrees)
		found := Find(probabilityMap(300, 280, 0.9, shrunk), 300, 280, options)
		if len(found) != 1 {
			t.Fatalf("%v degrees: %d lines", degrees, len(found))
		}
		// Expanded by 2 × 120 × 20 ÷ 280 on each side.
		if d := distance(found[0].Corners, newQuad(150, 140, 154.3, 54.3, degrees)); d > 4 {
			t.Errorf("%v degrees: %v, off by %.1f", degrees, found[0].Corners, d)
		}
		if math.Abs(found[0].Score-0.9) > 0.06 {
			t.Errorf("%v degrees: the score is %v, want about 0.9", degrees, found[0].Score)
		}
	}
}

func TestFind_IgnoresOtherShapes(t *testing.T) {
	t.Parallel()
	for name, m := range map[string][]float32{
		"nothing":         probabilityMap(100, 50, 0),
		"unlikely":        probabilityMap(100, 50, 0.4, newQuad(50, 25, 60, 10, 0)),
		"below pixel":     probabilityMap(100, 50, 0.2, newQuad(50, 25, 60, 10, 0)),
		"a pixel":         probabilityMap(100, 50, 1, newQuad(50, 25, 0.5, 0.5, 0)),
		"a thin line":     probabilityMap(100, 50, 1, newQuad(50, 25, 60, 2, 0)),
		"a row of pixels": probabilityMap(100, 50, 1, newQuad(50, 25, 100, 0, 0)),
	} {
		if found := Find(m, 100, 50, options); len(found) != 0 {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

// TestFind_AnyMap checks that the corners of quads in noise, and in a map that is all text,
// are not far outside of the map.
func TestFind_AnyMap(t *testing.T) {
	t.Parallel()
	noise := make([]float32, 64*96)
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		for i := range noise {
			noise[i] = float32(math.Pow(r.Float64(), float64(seed)/5))
		}
		for _, l := range Find(noise, 96, 64, Options{Pixel: 0.3, Score: 0.01, Unclip: 2, MinSide: 1}) {
			bounds := l.Corners.Bounds()
			if bounds.Empty() {
				t.Errorf("seed %d: the quad %v is empty", seed, l.Corners)
			}
			if !bounds.In(image.Rect(-96, -96, 192, 192)) {
				t.Errorf("seed %d: the quad %v is far outside of the map", seed, l.Corners)
			}
		}
	}
	full := Find(probabilityMap(96, 64, 1, newQuad(48, 32, 200, 200, 0)), 96, 64, options)
	if len(full) != 1 {
		t.Fatalf("a map that is all text: %d lines, want 1", len(full))
	}
	if b := full[0].Corners.Bounds(); !image.Rect(0, 0, 95, 63).In(b) {
		t.Errorf("a map that is all text: %v, want all of it", b)
	}
}

func TestSmallestQuad_FewPoints(t *testing.T) {
	t.Parallel()
	for name, points := range map[string][]image.Point{
		"one":      {{7, 5}},
		"the same": {{7, 5}, {7, 5}, {7, 5}},
		"a line":   {{0, 0}, {5, 0}, {9, 0}},
	} {
		q := smallestQuad(points)
		if _, h := q.sides(); h != 0 {
			t.Errorf("%s: %v is %v high, want 0", name, q, h)
		}
		if want := (Point{float64(points[0].X), float64(points[0].Y)}); q[0] != want {
			t.Errorf("%s: the first corner is %v, want %v", name, q[0], want)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	var quads []Quad
	for y := 20.0; y < 1200; y += 40 {
		quads = append(quads, newQuad(640, y, 1000, 16, 0.5))
	}
	m := probabilityMap(1280, 1280, 0.9, quads...)
	for b.Loop() {
		if n := len(Find(m, 1280, 1280, options)); n != len(quads) {
			b.Fatalf("%d lines", n)
		}
	}
}
