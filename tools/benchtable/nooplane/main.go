// Command nooplane is a lane program that does no work. Its settings are the numbers
// of regions and of bytes of crops that it returns. benchtable builds it to measure
// the cost of the mesh itself.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

type settings struct {
	Crops int `json:"crops"` // regions of each image
	Bytes int `json:"bytes"` // size of all crops together
}

type noop map[string]settings

func main() {
	if err := lane.Run(noop{}); err != nil {
		fmt.Fprintln(os.Stderr, "nooplane:", err)
		os.Exit(1)
	}
}

// Start stores the settings of each pipeline.
func (n noop) Start(s lane.Start) (map[string]lane.Loaded, error) {
	out := map[string]lane.Loaded{}
	for name, p := range s.Pipelines {
		cfg := settings{Crops: 1, Bytes: 100 << 10}
		if len(p.Settings) > 0 {
			if err := json.Unmarshal(p.Settings, &cfg); err != nil {
				return nil, fmt.Errorf("read settings: %w", err)
			}
		}
		n[name] = cfg
		out[name] = lane.Loaded{Models: []v1.Model{{Name: "noop", Version: "1"}}}
	}
	return out, nil
}

// Detect returns the regions.
func (n noop) Detect(d lane.Detect, _ []byte) (lane.Detected, [][]byte, error) {
	cfg := n[d.Pipeline]
	out := lane.Detected{Width: 320, Height: 320, Orientation: 1}
	size := cfg.Bytes / cfg.Crops
	var pixels [][]byte
	for i := range cfg.Crops {
		out.Regions = append(out.Regions, lane.Region{
			Box: v1.Box{X: i, Y: i, Width: 10, Height: 10}, Score: 1, Label: "nothing",
		})
		out.Crops = append(out.Crops, lane.Crop{Region: i, Width: size / 16, Height: 16, Channels: 1})
		pixels = append(pixels, make([]byte, size/16*16))
	}
	return out, pixels, nil
}

// Classify returns a label for each crop.
func (n noop) Classify(c lane.Classify, _ []byte) (lane.Classified, error) {
	var out lane.Classified
	for _, crop := range c.Crops {
		out.Answers = append(out.Answers, lane.CropLabel{Region: crop.Region, Labels: []v1.Label{{Label: "noop", Score: 1}}})
	}
	return out, nil
}
