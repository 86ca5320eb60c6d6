package detect

import (
	"errors"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/consume"
)

func crop(size int) v1.Crop { return v1.Crop{Width: size, Height: 1, Channels: 1} }

func TestSplit(t *testing.T) {
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
		got := split(crops, tt.n, tt.bytes)
		next := 0
		for i, g := range got {
			if i >= len(tt.want) || len(g) != tt.want[i] {
				t.Errorf("%s: group %d of %d has %d crops, want %v", tt.name, i, len(got), len(g), tt.want)
			}
			for _, c := range g {
				if c.Region != next {
					t.Errorf("%s: region %d where %d is next", tt.name, c.Region, next)
				}
				next++
			}
		}
		if next != len(crops) {
			t.Errorf("%s: %d of %d crops", tt.name, next, len(crops))
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
	if err != nil || len(msgs) != 3 {
		t.Fatalf("%d messages, %v", len(msgs), err)
	}
	region := 0
	for i, m := range msgs {
		c, px, err := v1.DecodeCrops(m.Body)
		if err != nil || c.Part != i || c.Parts != 3 || m.Subject != subject.Crops(subject.Job{Pipeline: "p", Priority: subject.Bulk, ID: "job", Part: i}) {
			t.Fatalf("message %d: %+v %s %v", i, c, m.Subject, err)
		}
		for _, one := range c.Crops {
			if one.Region != region || px[0] != byte(region) || one.Box.X != region {
				t.Errorf("crop %+v has pixels %v, want those of region %d", one, px[0], region)
			}
			px = px[one.Size():]
			region++
		}
	}
}

// TestLanesThatLie: a lane may be anybody's program.
func TestLanesThatLie(t *testing.T) {
	t.Parallel()
	region := []lane.Region{{}, {}}
	for name, found := range map[string]lane.Detected{
		"too few crops":    {Regions: region, Crops: []lane.Crop{{Width: 1, Height: 1, Channels: 1}}},
		"no size":          {Regions: region, Crops: []lane.Crop{{Width: 1, Height: 1, Channels: 1}, {Width: 0, Height: 9, Channels: 1}}},
		"odd channels":     {Regions: region, Crops: []lane.Crop{{Width: 1, Height: 1, Channels: 1}, {Width: 1, Height: 1, Channels: 2}}},
		"huge":             {Regions: region, Crops: []lane.Crop{{Width: 1, Height: 1, Channels: 1}, {Width: 1 << 17, Height: 1, Channels: 1}}},
		"too few pixels":   {Regions: region, Crops: []lane.Crop{{Width: 4, Height: 1, Channels: 1}, {Width: 7, Height: 1, Channels: 1}}},
		"larger than that": {Regions: region, Crops: []lane.Crop{{Width: 1, Height: 1, Channels: 1}, {Width: 1 << 13, Height: 1 << 10, Channels: 1}}},
	} {
		_, err := cropsOf(found, 10)
		var p *v1.Problem
		if !errors.As(err, &p) || p.Code != v1.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
}
