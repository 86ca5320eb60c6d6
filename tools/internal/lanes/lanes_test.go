package lanes

import (
	"testing"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/lane"
)

// TestCropBatches checks that crops are grouped as in a mesh: a group is limited by the
// number of crops and by bytes.
func TestCropBatches(t *testing.T) {
	t.Parallel()
	const large = streams.MaxMessage / 2
	for name, tt := range map[string]struct {
		sizes []int
		want  []int // number of crops in each group
	}{
		"none":          {nil, nil},
		"by number":     {[]int{1, 1, 1, 1, 1}, []int{2, 2, 1}},
		"by bytes":      {[]int{large, 1, 1, large, large}, []int{1, 2, 1, 1}},
		"exactly full":  {[]int{large / 2, large / 2}, []int{2}},
		"one too large": {[]int{1, large + 1, 1}, []int{1, 1, 1}},
	} {
		var found lane.Detected
		for i, size := range tt.sizes {
			found.Regions = append(found.Regions, lane.Region{Label: "face"})
			found.Crops = append(found.Crops, lane.Crop{Region: i, Width: size, Height: 1, Channels: 1})
		}
		got := cropBatches(found, 2)
		if len(got) != len(tt.want) {
			t.Errorf("%s: %d groups, want %d", name, len(got), len(tt.want))
			continue
		}
		next := 0
		for i, crops := range got {
			if len(crops) != tt.want[i] {
				t.Errorf("%s: group %d has %d crops, want %d", name, i, len(crops), tt.want[i])
			}
			for _, c := range crops {
				if c.Region != next {
					t.Errorf("%s: the next crop is of region %d, want %d", name, c.Region, next)
				}
				if c.Label != "face" {
					t.Errorf("%s: the label of crop %d is %q, want face as its region", name, c.Region, c.Label)
				}
				next++
			}
		}
	}
}
