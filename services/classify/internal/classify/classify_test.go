package classify

import (
	"reflect"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

func TestInPicture(t *testing.T) {
	t.Parallel()
	crop := v1.Crop{Box: v1.Box{X: 100, Y: 50, Width: 200, Height: 40}, Width: 400, Height: 80} // twice the size
	for _, tt := range []struct{ in, want v1.Box }{
		{v1.Box{Width: 400, Height: 80}, v1.Box{X: 100, Y: 50, Width: 200, Height: 40}},
		{v1.Box{X: 200, Y: 20, Width: 100, Height: 40}, v1.Box{X: 200, Y: 60, Width: 50, Height: 20}},
		{v1.Box{X: 399, Y: 79, Width: 1, Height: 1}, v1.Box{X: 299, Y: 89, Width: 1, Height: 1}}, // never nothing
	} {
		if got := inPicture(tt.in, crop); got != tt.want {
			t.Errorf("%+v: got %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

func TestRegions(t *testing.T) {
	t.Parallel()
	crops := v1.Crops{Image: v1.Image{Width: 100, Height: 100}, Crops: []v1.Crop{
		{Region: 4, Box: v1.Box{X: 10, Y: 10, Width: 10, Height: 10}, Score: 0.5, Label: "text", Width: 10, Height: 10},
		{Region: 5, Score: 0.5, Width: 1, Height: 1},
		{Region: 6, Score: 0.7, Label: "face", Landmarks: []v1.Landmark{{Name: "nose", X: 5, Y: 7}}, Width: 1, Height: 1},
	}}
	got, err := regions(crops, []lane.CropLabel{
		{Text: "hello", Score: 0.9, Words: []v1.Word{{Box: v1.Box{X: 1, Y: 1, Width: 2, Height: 2}, Text: "hello", Score: 0.9}}},
		{Drop: true, Score: 0.1},
		{Labels: []v1.Label{{Label: "smile", Score: 0.6}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []v1.PartRegion{
		{Number: 4, Region: v1.Region{
			Box: crops.Crops[0].Box, Fraction: v1.Fraction{X: 0.1, Y: 0.1, Width: 0.1, Height: 0.1}, Score: 0.9, Label: "text", Text: "hello",
			Words: []v1.Word{{Box: v1.Box{X: 11, Y: 11, Width: 2, Height: 2}, Text: "hello", Score: 0.9}},
		}},
		{Number: 6, Region: v1.Region{
			Score: 0.7, Label: "face", Labels: []v1.Label{{Label: "smile", Score: 0.6}}, Landmarks: []v1.Landmark{{Name: "nose", X: 5, Y: 7}},
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := regions(crops, nil); err == nil {
		t.Error("a lane that answered less than it was asked was believed")
	}
}
