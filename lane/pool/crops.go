package pool

import (
	"fmt"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// selectCrops returns the crops of a reply that were requested, each with the number of its
// region, and their pixels. It overwrites the memory of pixels. The error is a [*v1.Problem]
// for invalid crops.
func selectCrops(r lane.Detect, found lane.Detected, pixels []byte) (crops []lane.Crop, kept []byte, err error) {
	if !r.Crops {
		return nil, nil, nil
	}
	var all, wanted []int // numbers of regions
	for i, region := range found.Regions {
		all = append(all, i)
		if r.WantsCrop(region.Label) {
			wanted = append(wanted, i)
		}
	}
	regions := all
	switch len(found.Crops) {
	case len(all):
	case len(wanted):
		regions = wanted
	default:
		alternative := ""
		if len(wanted) != len(all) {
			alternative = fmt.Sprintf(", or of the %d whose crops were requested", len(wanted))
		}
		return nil, nil, newReplyProblem("crops: %d of them, want one for each of %d regions%s",
			len(found.Crops), len(all), alternative)
	}
	kept = pixels[:0]
	for i, c := range found.Crops {
		field := fmt.Sprintf("crops.%d", i)
		if c.Width < 1 || c.Height < 1 || c.Width > v1.MaxCropSide || c.Height > v1.MaxCropSide ||
			(c.Channels != 1 && c.Channels != 3) {
			return nil, nil, newReplyProblem("%s: %d x %d x %d, want 1 to %d pixels a side and 1 or 3 channels",
				field, c.Width, c.Height, c.Channels, v1.MaxCropSide)
		}
		size := c.Width * c.Height * c.Channels
		if size > len(pixels) {
			return nil, nil, newReplyProblem("%s: %d x %d x %d with %d bytes of pixels left",
				field, c.Width, c.Height, c.Channels, len(pixels))
		}
		if c.Region = regions[i]; r.WantsCrop(found.Regions[c.Region].Label) {
			crops, kept = append(crops, c), append(kept, pixels[:size]...)
		}
		pixels = pixels[size:]
	}
	return crops, kept, nil
}
