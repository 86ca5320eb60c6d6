package detect

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/consume"
)

// crop returns a crop whose pixels have this number of bytes.
func crop(size int) v1.Crop { return v1.Crop{Width: size, Height: 1, Channels: 1} }

func TestGroupCrops(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		sizes []int
		n     int
		bytes int
		want  []int // crops of each group
	}{
		{"one", []int{10}, 8, 100, []int{1}},
		{"by number", []int{1, 1, 1, 1, 1}, 2, 100, []int{2, 2, 1}},
		{"by bytes", []int{40, 40, 40, 40}, 8, 100, []int{2, 2}},
		{"exactly full", []int{50, 50, 50, 50}, 8, 100, []int{2, 2}},
		{"one that is larger than a message", []int{10, 200, 10}, 8, 100, []int{1, 1, 1}},
	} {
		var crops []v1.Crop
		for i, s := range tt.sizes {
			c := crop(s)
			c.Region = i
			crops = append(crops, c)
		}
		groups := groupCrops(crops, tt.n, tt.bytes)
		var sizes []int
		for _, g := range groups {
			sizes = append(sizes, len(g))
		}
		if !slices.Equal(sizes, tt.want) {
			t.Errorf("%s: groups of %v crops, want %v", tt.name, sizes, tt.want)
		}
		if got := slices.Concat(groups...); !reflect.DeepEqual(got, crops) {
			t.Errorf("%s: the crops of all groups are %+v, want %+v", tt.name, got, crops)
		}
	}
}

func TestCropMessages(t *testing.T) {
	t.Parallel()
	found := lane.Detected{Width: 100, Height: 50}
	var pixels []byte
	for i := range 5 {
		found.Regions = append(found.Regions, lane.Region{Box: v1.Box{X: i, Width: 10, Height: 10}, Label: "r"})
		found.Crops = append(found.Crops, lane.Crop{Region: i, Width: 2, Height: 3, Channels: 1})
		pixels = append(pixels, byte(i), byte(i), byte(i), byte(i), byte(i), byte(i))
	}
	d := &consume.Delivery{Job: subject.Job{Pipeline: "p", Priority: subject.Bulk, ID: "job"}}
	msgs, err := cropMessages(d, pipeline.Pipeline{Name: "p", CropsPerMessage: 2}, v1.Crops{}, found, pixels)
	if err != nil {
		t.Fatal(err)
	}
	if len(msgs) != 3 {
		t.Fatalf("%d messages, want 3", len(msgs))
	}
	region := 0
	for i, m := range msgs {
		c, px, err := v1.DecodeCrops(m.Body)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if c.Part != i {
			t.Errorf("message %d is part %d", i, c.Part)
		}
		if c.Parts != 3 {
			t.Errorf("message %d is one of %d parts, want 3", i, c.Parts)
		}
		job := subject.Job{Pipeline: "p", Priority: subject.Bulk, ID: "job", Part: i}
		if want := subject.Crops(job); m.Subject != want {
			t.Errorf("message %d has the subject %s, want %s", i, m.Subject, want)
		}
		for _, one := range c.Crops {
			if one.Region != region {
				t.Errorf("the crop has the region %d, want %d", one.Region, region)
			}
			if one.Box.X != region {
				t.Errorf("the crop of region %d has the box %+v", region, one.Box)
			}
			if px[0] != byte(region) {
				t.Errorf("the crop of region %d has the pixels of region %d", region, px[0])
			}
			px = px[one.Size():]
			region++
		}
	}
}

// TestCropMessages_RegionsWithoutCrops checks that each region is in one message, with the
// crops that are next to it, and has its number in the image.
func TestCropMessages_RegionsWithoutCrops(t *testing.T) {
	t.Parallel()
	const regions = 9
	type part struct{ crops, others []int } // numbers of regions
	for name, tt := range map[string]struct {
		crops []int
		want  []part
	}{
		"all in one message": {[]int{3, 5}, []part{{[]int{3, 5}, []int{0, 1, 2, 4, 6, 7, 8}}}},
		"before, between, last": {
			[]int{1, 2, 5, 6, 7}, []part{{[]int{1, 2}, []int{0, 3, 4}}, {[]int{5, 6}, nil}, {[]int{7}, []int{8}}},
		},
		"none without": {
			[]int{0, 1, 2, 3, 4, 5, 6, 7, 8},
			[]part{{[]int{0, 1}, nil}, {[]int{2, 3}, nil}, {[]int{4, 5}, nil}, {[]int{6, 7}, nil}, {[]int{8}, nil}},
		},
		"only the last": {[]int{8}, []part{{[]int{8}, []int{0, 1, 2, 3, 4, 5, 6, 7}}}},
	} {
		found := lane.Detected{}
		for i := range regions {
			found.Regions = append(found.Regions, lane.Region{Box: v1.Box{X: i, Width: 1, Height: 1}, Label: "r"})
		}
		for _, i := range tt.crops {
			found.Crops = append(found.Crops, lane.Crop{Region: i, Width: 1, Height: 1, Channels: 1})
		}
		facts := v1.Crops{Image: v1.Image{Width: 10, Height: 10}}
		pixels := make([]byte, len(tt.crops))
		msgs, err := cropMessages(&consume.Delivery{}, pipeline.Pipeline{CropsPerMessage: 2}, facts, found, pixels)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []part
		for _, m := range msgs {
			c, _, err := v1.DecodeCrops(m.Body)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var p part
			for _, one := range c.Crops {
				p.crops = append(p.crops, one.Region)
			}
			for _, r := range c.Regions {
				p.others = append(p.others, r.Number)
				if r.Box.X != r.Number {
					t.Errorf("%s: region %d has the box %+v", name, r.Number, r.Box)
				}
				if r.Label != "r" {
					t.Errorf("%s: region %d has the label %q", name, r.Number, r.Label)
				}
				if r.Fraction.X != float64(r.Number)/10 {
					t.Errorf("%s: region %d has the fraction %+v", name, r.Number, r.Fraction)
				}
			}
			got = append(got, p)
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: crops and other regions %v, want %v", name, got, tt.want)
		}
	}
}

// TestCropMessages_TooLarge checks that crops or regions that are too large for a message
// are a problem with a limit.
func TestCropMessages_TooLarge(t *testing.T) {
	t.Parallel()
	one := lane.Crop{Width: 1, Height: 1, Channels: 1}
	for name, found := range map[string]lane.Detected{
		"a crop": {Regions: make([]lane.Region, 1), Crops: []lane.Crop{{Width: 1 << 13, Height: 1 << 10, Channels: 1}}},
		"regions": {
			Regions: append([]lane.Region{{}}, slices.Repeat([]lane.Region{{Text: strings.Repeat("x", 1<<20)}}, 9)...),
			Crops:   []lane.Crop{one},
		},
	} {
		p, pixels := pipeline.Pipeline{CropsPerMessage: 2}, make([]byte, 1<<23)
		_, err := cropMessages(&consume.Delivery{}, p, v1.Crops{}, found, pixels)
		var problem *v1.Problem
		if !errors.As(err, &problem) {
			t.Errorf("%s: got %v, want a problem", name, err)
			continue
		}
		if problem.Code != v1.Internal {
			t.Errorf("%s: the code is %s, want %s", name, problem.Code, v1.Internal)
		}
		if problem.Limit == 0 {
			t.Errorf("%s: %v has no limit", name, err)
		}
	}
}
