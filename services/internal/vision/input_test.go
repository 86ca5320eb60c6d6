package vision

import (
	"image"
	"math"
	"slices"
	"testing"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/services/internal/model"
)

func TestFit_PutsPixelsInPlace(t *testing.T) {
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
		"BGR": {model.Input{Width: 2, Height: 1, Resize: model.Stretch, Channels: model.BGR}, []float32{10, 40, 20, 50, 30, 60}},
		"RGB": {
			model.Input{Width: 2, Height: 1, Resize: model.Stretch, Channels: model.RGB, Mean: []float64{30, 20, 10}, Scale: 0.5},
			[]float32{0, 15, 0, 15, 0, 15},
		},
		"grey": {model.Input{Width: 2, Height: 1, Resize: model.Stretch, Channels: model.Grey}, []float32{22, 52}},
		"letterbox": {
			model.Input{Width: 2, Height: 3, Resize: model.Letterbox, Channels: model.Grey, Pad: 7, Mean: []float64{2}},
			[]float32{20, 50, 5, 5, 5, 5},
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

// TestFit_AnyShape takes images that are all edge: their corners come back.
func TestFit_AnyShape(t *testing.T) {
	t.Parallel()
	for _, size := range []image.Point{{1, 1}, {60000, 1}, {1, 60000}, {640, 480}, {333, 777}} {
		m := gocv.NewMatWithSize(size.Y, size.X, gocv.MatTypeCV8UC3)
		for _, resize := range []model.Resize{model.Stretch, model.Letterbox, model.LetterboxCenter} {
			in := model.Input{Width: 416, Height: 320, Resize: resize, Channels: model.RGB, Pad: 114}
			got, at := Fit(m, in)
			if len(got.Data) != 3*416*320 {
				t.Errorf("%v, %s: %d numbers", size, resize, len(got.Data))
			}
			fitted, left := place(size.X, size.Y, in)
			x, y := at.ToImage(float64(left.X+fitted.X), float64(left.Y+fitted.Y))
			if math.Abs(x-float64(size.X)) > 1e-6 || math.Abs(y-float64(size.Y)) > 1e-6 {
				t.Errorf("%v, %s: the far corner is at %v, %v", size, resize, x, y)
			}
		}
		m.Close()
	}
}
