//go:build matprofile

package classifiers

import (
	"testing"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/lane"
)

// TestNoMatrixIsLeft is not parallel: gocv counts the matrices of the process.
func TestNoMatrixIsLeft(t *testing.T) {
	h := loaded(t)
	root := t.TempDir()
	coloursFolder(t, root, "colours", described(t, "scale: 0.01", "scale: 0.001", "threshold: 0.5", "threshold: 0.2"))
	network, _ := startModel(t, root, "colours", nil)
	h.classifiers["network"] = network.classifiers["p"]
	crop, pixels := drawn("nothing is left")
	for _, p := range []string{"text", "faces", "network"} {
		before := gocv.MatProfile.Count()
		_, err := h.Classify(lane.Classify{Pipeline: p, Crops: []lane.Crop{crop}}, pixels)
		if after := gocv.MatProfile.Count(); err != nil || after != before {
			t.Errorf("%s: %d matrices became %d (error %v)", p, before, after, err)
		}
	}
}
