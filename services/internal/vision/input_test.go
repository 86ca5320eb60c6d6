package vision

import (
	"image"
	"math"
	"slices"
	"testing"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/services/internal/model"
)

func TestFit_Pixels(t *testing.T) {
	t.Parallel()
	// Two pixels of blue, green and red.
	m, err := gocv.NewMatFromBytes(1, 2, gocv.MatTypeCV8UC3, []byte{10, 20, 30, 40, 50, 60})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for name, tt := range map[string]struct {
		in   model.Input
		want []float32
	}{
		"BGR": {
			model.Input{Width: 2, Height: 1, Resize: model.Stretch, Channels: model.BGR},
			[]float32{10, 40, 20, 50, 30, 60},
		},
		"RGB": {
			model.Input{
				Width: 2, Height: 1, Resize: model.Stretch, Channels: model.RGB, Mean: []float64{30, 20, 10}, Scale: 0.5,
			},
			[]float32{0, 15, 0, 15, 0, 15},
		},
		"grey": {model.Input{Width: 2, Height: 1, Resize: model.Stretch, Channels: model.Grey}, []float32{22, 52}},
		"letterbox": {
			model.Input{Width: 2, Height: 3, Resize: model.Letterbox, Channels: model.Grey, Pad: 7, Mean: []float64{2}},
			[]float32{20, 50, 5, 5, 5, 5},
		},
		"a line": {
			model.Input{Width: 5, Height: 1, Resize: model.Line, Channels: model.Grey, Pad: 7},
			[]float32{22, 52, 7, 7, 7},
		},
		"a line that is too long": {
			model.Input{Width: 1, Height: 1, Resize: model.Line, Channels: model.Grey, Pad: 7},
			[]float32{37},
		},
		"the center": {
			model.Input{Width: 1, Height: 1, Resize: model.Center, ShortSide: 1, Channels: model.Grey},
			[]float32{22},
		},
		"the center of what is larger": {
			model.Input{Width: 2, Height: 2, Resize: model.Center, ShortSide: 4, Channels: model.Grey},
			[]float32{33, 41, 33, 41},
		},
		"letterbox in the center": {
			model.Input{Width: 2, Height: 3, Resize: model.LetterboxCenter, Channels: model.Grey, Pad: 7},
			[]float32{7, 7, 22, 52, 7, 7},
		},
	} {
		got, _ := Fit(m, tt.in)
		if !slices.Equal(got.Data, tt.want) {
			t.Errorf("%s: %v, want %v", name, got.Data, tt.want)
		}
		if want := []int{1, tt.in.Channels.Count(), tt.in.Height, tt.in.Width}; !slices.Equal(got.Shape, want) {
			t.Errorf("%s: shape %v, want %v", name, got.Shape, want)
		}
	}
}

// isNear reports whether the point x, y is at most tolerance away from p in each direction.
func isNear(x, y float64, p image.Point, tolerance float64) bool {
	return math.Abs(x-float64(p.X)) <= tolerance && math.Abs(y-float64(p.Y)) <= tolerance
}

// TestFit_SizeFollowsFromImage checks inputs whose size follows from the image.
func TestFit_SizeFollowsFromImage(t *testing.T) {
	t.Parallel()
	shrink := model.Input{Width: 1920, Height: 1920, Resize: model.Shrink, Multiple: 32, Channels: model.BGR}
	height := model.Input{Width: 1000, Height: 48, Resize: model.Height, Multiple: 8, Channels: model.BGR}
	for _, tt := range []struct {
		in          model.Input
		image, want image.Point
	}{
		{shrink, image.Pt(640, 339), image.Pt(640, 352)},     // to the nearest multiple
		{shrink, image.Pt(3072, 2304), image.Pt(1920, 1440)}, // no larger than the limit
		{shrink, image.Pt(5, 5), image.Pt(32, 32)},           // at least one multiple
		{shrink, image.Pt(60000, 1), image.Pt(1920, 32)},
		{shrink, image.Pt(1919, 1919), image.Pt(1920, 1920)},
		{height, image.Pt(480, 96), image.Pt(240, 48)},
		{height, image.Pt(50, 24), image.Pt(104, 48)},
		{height, image.Pt(60000, 20), image.Pt(1000, 48)},
		{height, image.Pt(1, 60000), image.Pt(8, 48)},
	} {
		m := gocv.NewMatWithSize(tt.image.Y, tt.image.X, gocv.MatTypeCV8UC3)
		got, at := Fit(m, tt.in)
		if want := []int{1, 3, tt.want.Y, tt.want.X}; !slices.Equal(got.Shape, want) {
			t.Errorf("%v of %v: shape %v, want %v", tt.in.Resize, tt.image, got.Shape, want)
		}
		x, y := at.ToImage(float64(tt.want.X), float64(tt.want.Y))
		if !isNear(x, y, tt.image, 1e-6) {
			t.Errorf("%v of %v: the lower right corner is at %v, %v", tt.in.Resize, tt.image, x, y)
		}
		m.Close()
	}
}

// TestFit_AnyShape fits very small, long and ordinary images, and maps the lower right
// corner of the input, or its center, back to the image.
func TestFit_AnyShape(t *testing.T) {
	t.Parallel()
	for _, size := range []image.Point{{1, 1}, {60000, 1}, {1, 60000}, {640, 480}, {333, 777}} {
		m := gocv.NewMatWithSize(size.Y, size.X, gocv.MatTypeCV8UC3)
		for _, resize := range []model.Resize{
			model.Stretch, model.Letterbox, model.LetterboxCenter, model.Line, model.Center,
		} {
			in := model.Input{Width: 416, Height: 320, Resize: resize, Channels: model.RGB, Pad: 114}
			if resize == model.Center {
				in.ShortSide = 500
			}
			got, at := Fit(m, in)
			if len(got.Data) != 3*416*320 {
				t.Errorf("%v, %s: %d numbers", size, resize, len(got.Data))
			}
			if resize == model.Center {
				x, y := at.ToImage(208, 160)
				if !isNear(2*x, 2*y, size, 2) {
					t.Errorf("%v: the center is at %v, %v", size, x, y)
				}
				continue
			}
			fitted, left := computePlacement(size.X, size.Y, in)
			x, y := at.ToImage(float64(left.X+fitted.X), float64(left.Y+fitted.Y))
			if !isNear(x, y, size, 1e-6) {
				t.Errorf("%v, %s: the lower right corner is at %v, %v", size, resize, x, y)
			}
		}
		m.Close()
	}
}
