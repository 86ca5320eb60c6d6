//go:build matprofile

package classifiers

import (
	"testing"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/lane"
)

// TestHandler_NoMatrixLeaks is not parallel: gocv counts the matrices of the process.
func TestHandler_NoMatrixLeaks(t *testing.T) {
	h := loadHandler(t)
	root := t.TempDir()
	files := editModelYAML(t, "scale: 0.01", "scale: 0.001", "threshold: 0.5", "threshold: 0.2")
	writeColoursModel(t, root, "colours", files)
	network, _ := startModel(t, root, "colours", nil)
	h.classifiers["network"] = network.classifiers["p"]
	crop, pixels := drawLine("nothing leaks")
	for _, p := range []string{"text", "faces", "network"} {
		before := gocv.MatProfile.Count()
		_, err := h.Classify(lane.Classify{Pipeline: p, Crops: []lane.Crop{crop}}, pixels)
		if err != nil {
			t.Errorf("%s: %v", p, err)
		}
		if after := gocv.MatProfile.Count(); after != before {
			t.Errorf("%s: %d matrices became %d", p, before, after)
		}
	}
}
