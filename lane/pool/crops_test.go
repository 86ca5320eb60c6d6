package pool

import (
	"errors"
	"slices"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// TestSelectCrops: a lane may return the requested crops, or those of all regions. The
// pixels of region i are i + 1 times its number.
func TestSelectCrops(t *testing.T) {
	t.Parallel()
	labels := []string{"person", "dog", "car", "", "person"}
	for name, tt := range map[string]struct {
		requested []string // labels
		sent      []int    // regions
		want      []int    // regions
	}{
		"all":                       {nil, []int{0, 1, 2, 3, 4}, []int{0, 1, 2, 3, 4}},
		"the requested ones":        {[]string{"person", "car"}, []int{0, 2, 4}, []int{0, 2, 4}},
		"more than requested":       {[]string{"person", "car"}, []int{0, 1, 2, 3, 4}, []int{0, 2, 4}},
		"none requested, none sent": {[]string{"cat"}, nil, nil},
		"none requested, all sent":  {[]string{"cat"}, []int{0, 1, 2, 3, 4}, nil},
		"the last":                  {[]string{"car"}, []int{0, 1, 2, 3, 4}, []int{2}},
		"every label":               {[]string{"person", "car", "dog", ""}, []int{0, 1, 2, 3, 4}, []int{0, 1, 2, 3, 4}},
	} {
		found := lane.Detected{}
		for _, l := range labels {
			found.Regions = append(found.Regions, lane.Region{Label: l})
		}
		pixelsOf := func(regions []int) (all []byte) {
			for _, i := range regions {
				all = append(all, slices.Repeat([]byte{byte(i)}, i+1)...)
			}
			return all
		}
		for _, i := range tt.sent {
			found.Crops = append(found.Crops, lane.Crop{Width: 1, Height: i + 1, Channels: 1})
		}
		crops, pixels, err := selectCrops(lane.Detect{Crops: true, CropLabels: tt.requested}, found, pixelsOf(tt.sent))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []int
		for _, c := range crops {
			got = append(got, c.Region)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: crops of the regions %v, want %v", name, got, tt.want)
		}
		if want := pixelsOf(tt.want); !slices.Equal(pixels, want) {
			t.Errorf("%s: pixels %v, want %v", name, pixels, want)
		}
	}
}

func TestSelectCrops_NoneRequested(t *testing.T) {
	t.Parallel()
	found := lane.Detected{Regions: []lane.Region{{}}, Crops: []lane.Crop{{Width: 1, Height: 1, Channels: 1}}}
	crops, pixels, err := selectCrops(lane.Detect{}, found, []byte{1})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(crops); n != 0 {
		t.Errorf("got %d crops that were not requested", n)
	}
	if n := len(pixels); n != 0 {
		t.Errorf("got %d bytes of pixels that were not requested", n)
	}
}

func TestSelectCrops_ErrorNamesTheField(t *testing.T) {
	t.Parallel()
	one := lane.Crop{Width: 1, Height: 1, Channels: 1}
	for name, tt := range map[string]struct {
		crops []lane.Crop
		want  string
	}{
		"too few": {
			[]lane.Crop{one},
			"crops: 1 of them, want one for each of 3 regions, or of the 2 whose crops were requested",
		},
		"none":         {nil, "crops: 0 of them"},
		"too many":     {[]lane.Crop{one, one, one, one}, "crops: 4 of them"},
		"no size":      {[]lane.Crop{one, {Height: 9, Channels: 1}}, "crops.1: 0 x 9 x 1"},
		"odd channels": {[]lane.Crop{one, {Width: 1, Height: 1, Channels: 2}}, "crops.1: 1 x 1 x 2"},
		"huge":         {[]lane.Crop{one, {Width: 1 << 17, Height: 1, Channels: 1}}, "crops.1: 131072 x 1 x 1"},
		"no pixels": {
			[]lane.Crop{one, {Width: 10, Height: 1, Channels: 1}}, "crops.1: 10 x 1 x 1 with 9 bytes of pixels left",
		},
	} {
		regions := []lane.Region{{Label: "person"}, {Label: "dog"}, {Label: "person"}}
		found := lane.Detected{Regions: regions, Crops: tt.crops}
		_, _, err := selectCrops(lane.Detect{Crops: true, CropLabels: []string{"person"}}, found, make([]byte, 10))
		var p *v1.Problem
		if !errors.As(err, &p) {
			t.Errorf("%s: got %v, want a problem", name, err)
			continue
		}
		if p.Code != v1.Internal {
			t.Errorf("%s: the code is %s, want %s", name, p.Code, v1.Internal)
		}
		if !strings.Contains(p.Detail, tt.want) {
			t.Errorf("%s: %q, want %q in it", name, p.Detail, tt.want)
		}
	}
}
