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
	crop, pixels := drawn("nothing is left")
	for _, p := range []string{"text", "faces"} {
		before := gocv.MatProfile.Count()
		_, err := h.Classify(lane.Classify{Pipeline: p, Crops: []lane.Crop{crop}}, pixels)
		if after := gocv.MatProfile.Count(); err != nil || after != before {
			t.Errorf("%s: %d matrices became %d (error %v)", p, before, after, err)
		}
	}
}
