//go:build matprofile

package detectors

import (
	"image"
	"maps"
	"testing"

	"gocv.io/x/gocv"

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
	damaged := lines[:len(lines)/2]
	for _, file := range [][]byte{lines, damaged, newTextPage(t, 255, 255), withCode} {
		for _, p := range []string{"text", "faces", "rows", "hog", "codes"} {
			_, _, err := h.Detect(lane.Detect{Pipeline: p, MaxRegions: 10, Crops: true}, file)
			if after := gocv.MatProfile.Count(); after != before {
				t.Errorf("%s: %d matrices became %d (error %v)", p, before, after, err)
			}
		}
		_, _, err := h.Draw(lane.Draw{MediaType: "image/png"}, file)
		if after := gocv.MatProfile.Count(); after != before {
			t.Errorf("draw: %d matrices became %d (error %v)", before, after, err)
		}
	}
	defaultCropping().cropBox(grey, image.Rect(0, 0, 400, 300)) // there is no face on a page
	if after := gocv.MatProfile.Count(); after != before {
		t.Errorf("cropping a face: %d matrices became %d", before, after)
	}
}
