//go:build matprofile

package detectors

import (
	"image"
	"maps"
	"testing"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// TestHandler_NoMatrixLeaks is not parallel: gocv counts the matrices of the process.
func TestHandler_NoMatrixLeaks(t *testing.T) {
	h := loadHandler(t)
	root := t.TempDir()
	writeRowsModel(t, root, "rows", nil)
	writeHOGModel(t, root, "hog")
	models, _ := startModels(t, root, map[string]any{"channels": "bgr", "padding": 0.1}, "rows", "hog")
	maps.Copy(h.detectors, models.detectors)
	grey := gocv.NewMatWithSize(400, 400, gocv.MatTypeCV8UC1)
	defer grey.Close()
	before := gocv.MatProfile.Count()
	lines := newTextPage(t, 0, 255, "The first line,", "and the second")
	sheet := drawSheet(t, map[image.Point]string{{100, 100}: "a code"})
	withCode := encodePNG(t, sheet)
	sheet.Close()
	for _, tt := range []struct {
		name string
		file []byte
		want v1.Code
	}{
		{"lines", lines, ""},
		{"half a file", lines[:len(lines)/2], v1.Damaged},
		{"blank", newTextPage(t, 255, 255), ""},
		{"code", withCode, ""},
	} {
		for _, p := range []string{"text", "faces", "rows", "hog", "codes"} {
			_, _, err := h.Detect(lane.Detect{Pipeline: p, MaxRegions: 10, Crops: true}, tt.file)
			checkProblem(t, p+", "+tt.name, err, tt.want)
			if after := gocv.MatProfile.Count(); after != before {
				t.Errorf("%s, %s: %d matrices became %d", p, tt.name, before, after)
			}
		}
		_, _, err := h.Draw(lane.Draw{MediaType: "image/png"}, tt.file)
		checkProblem(t, "draw, "+tt.name, err, tt.want)
		if after := gocv.MatProfile.Count(); after != before {
			t.Errorf("draw, %s: %d matrices became %d", tt.name, before, after)
		}
	}
	defaultCropping().cropBox(grey, image.Rect(0, 0, 400, 300)) // there is no face on a page
	if after := gocv.MatProfile.Count(); after != before {
		t.Errorf("cropping a face: %d matrices became %d", before, after)
	}
}
