package classify

import (
	"reflect"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

func TestCropToImage(t *testing.T) {
	t.Parallel()
	crop := v1.Crop{Box: v1.Box{X: 100, Y: 50, Width: 200, Height: 40}, Width: 400, Height: 80} // twice the size
	for _, tt := range []struct{ in, want v1.Box }{
		{v1.Box{Width: 400, Height: 80}, v1.Box{X: 100, Y: 50, Width: 200, Height: 40}},
		{v1.Box{X: 200, Y: 20, Width: 100, Height: 40}, v1.Box{X: 200, Y: 60, Width: 50, Height: 20}},
		{v1.Box{X: 399, Y: 79, Width: 1, Height: 1}, v1.Box{X: 299, Y: 89, Width: 1, Height: 1}}, // at least one pixel
	} {
		if got := cropToImage(tt.in, crop); got != tt.want {
			t.Errorf("%+v: got %+v, want %+v", tt.in, got, tt.want)
		}
	}
	crop.Source = &v1.Box{X: 90, Y: 40, Width: 400, Height: 80} // larger than the region
	in, want := v1.Box{X: 10, Y: 20, Width: 30, Height: 40}, v1.Box{X: 100, Y: 60, Width: 30, Height: 40}
	if got := cropToImage(in, crop); got != want {
		t.Errorf("%+v of a crop with a source: got %+v, want %+v", in, got, want)
	}
}

// TestCropToImage_Polygon converts boxes in a crop that was rotated upright: the sides of the
// crop are those of the polygon.
func TestCropToImage_Polygon(t *testing.T) {
	t.Parallel()
	box := v1.Box{X: 100, Y: 100, Width: 40, Height: 200}
	down := []v1.Point{{X: 140, Y: 100}, {X: 140, Y: 300}, {X: 100, Y: 300}, {X: 100, Y: 100}} // reads downwards
	tilted := []v1.Point{{X: 100, Y: 100}, {X: 120, Y: 120}, {X: 110, Y: 130}, {X: 90, Y: 110}}
	for name, tt := range map[string]struct {
		crop v1.Crop
		in   v1.Box
		want v1.Box
	}{
		"the whole crop": {
			v1.Crop{Box: box, Polygon: down, Width: 200, Height: 40},
			v1.Box{Width: 200, Height: 40}, box,
		},
		"the first half": {
			v1.Crop{Box: box, Polygon: down, Width: 400, Height: 80},
			v1.Box{Width: 200, Height: 80}, v1.Box{X: 100, Y: 100, Width: 40, Height: 100},
		},
		"at least one pixel": {
			v1.Crop{Box: box, Polygon: down, Width: 4000, Height: 800},
			v1.Box{X: 1, Y: 1, Width: 1, Height: 1}, v1.Box{X: 139, Y: 100, Width: 1, Height: 1},
		},
		"cut by the box": {
			v1.Crop{Box: v1.Box{X: 95, Y: 100, Width: 25, Height: 30}, Polygon: tilted, Width: 20, Height: 10},
			v1.Box{Width: 20, Height: 10}, v1.Box{X: 95, Y: 100, Width: 25, Height: 30},
		},
	} {
		if got := cropToImage(tt.in, tt.crop); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestCombineRegions(t *testing.T) {
	t.Parallel()
	crops := v1.Crops{Image: v1.Image{Width: 100, Height: 100}, Crops: []v1.Crop{
		{Region: 4, Box: v1.Box{X: 10, Y: 10, Width: 10, Height: 10}, Score: 0.5, Label: "text", Width: 10, Height: 10},
		{Region: 5, Score: 0.5, Width: 1, Height: 1},
		{Region: 6, Score: 0.7, Label: "face", Landmarks: []v1.Landmark{{Name: "nose", X: 5, Y: 7}}, Width: 1, Height: 1},
		{Region: 7, Score: 1, Label: "qr-code", Text: "hi", Polygon: []v1.Point{{X: 1}, {X: 3}, {Y: 9}}, Width: 1, Height: 1},
	}}
	got, err := combineRegions(crops, []lane.CropLabel{
		{
			Text: "hello", Score: 0.9,
			Words: []v1.Word{{Box: v1.Box{X: 1, Y: 1, Width: 2, Height: 2}, Text: "hello", Score: 0.9}},
		},
		{Drop: true, Score: 0.1},
		{Labels: []v1.Label{{Label: "smile", Score: 0.6}}, Embedding: []float32{0.6, 0.8}},
		{},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []v1.PartRegion{
		{Number: 4, Region: v1.Region{
			Box: crops.Crops[0].Box, Fraction: v1.Fraction{X: 0.1, Y: 0.1, Width: 0.1, Height: 0.1},
			Score: 0.9, Label: "text", Text: "hello",
			Words: []v1.Word{{Box: v1.Box{X: 11, Y: 11, Width: 2, Height: 2}, Text: "hello", Score: 0.9}},
		}},
		{Number: 6, Region: v1.Region{
			Score: 0.7, Label: "face", Labels: []v1.Label{{Label: "smile", Score: 0.6}},
			Landmarks: []v1.Landmark{{Name: "nose", X: 5, Y: 7}}, Embedding: []float32{0.6, 0.8},
		}},
		{Number: 7, Region: v1.Region{
			Score: 1, Label: "qr-code", Text: "hi", Polygon: []v1.Point{{X: 1}, {X: 3}, {Y: 9}},
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := combineRegions(crops, nil); err == nil {
		t.Error("a response with fewer results than crops was accepted")
	}
}
