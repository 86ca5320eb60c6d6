package detectors

import (
	"cmp"
	"encoding/json"
	"fmt"
	"image"
	"slices"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// cascade finds objects of one kind with a Haar cascade (Viola and Jones,
// "Rapid Object Detection using a Boosted Cascade of Simple Features", 2001).
type cascade struct {
	Cascade string `json:"cascade"` // file name without .xml
	Dir     string `json:"dir"`     // folder of the file
	Label   string `json:"label"`   // of every region
	// Scale, Neighbors and MinSize are those of OpenCV's detectMultiScale.
	Scale     float64 `json:"scale"`
	Neighbors int     `json:"neighbors"`
	MinSize   int     `json:"min_size"` // pixels
	// LongSide is the size, in pixels, to which a larger picture is reduced:
	// the time grows with the number of pixels.
	LongSide int `json:"long_side"`

	classifier gocv.CascadeClassifier
}

func newCascade(settings json.RawMessage) (detector, lane.Loaded, error) {
	d := &cascade{Label: "object", Scale: 1.1, Neighbors: 3, MinSize: 30, LongSide: 2000}
	if err := lane.DecodeSettings(settings, d); err != nil {
		return nil, lane.Loaded{}, err
	}
	switch {
	case d.Scale < 1.01: // at 1 OpenCV ends the process, just above it takes forever
		return nil, lane.Loaded{}, fmt.Errorf("settings: scale: %v, want 1.01 or more", d.Scale)
	case d.Neighbors < 0:
		return nil, lane.Loaded{}, fmt.Errorf("settings: neighbors: %d, want 0 or more", d.Neighbors)
	case d.MinSize < 1:
		return nil, lane.Loaded{}, fmt.Errorf("settings: min_size: %d, want 1 or more", d.MinSize)
	case d.LongSide < 1:
		return nil, lane.Loaded{}, fmt.Errorf("settings: long_side: %d, want 1 or more", d.LongSide)
	}
	c, model, err := vision.LoadCascade(d.Dir, d.Cascade)
	if err != nil {
		return nil, lane.Loaded{}, err
	}
	d.classifier = c
	return d, lane.Loaded{Models: []v1.Model{model}}, nil
}

// detect gives every region the score 1: the cascade says yes or no, and
// gocv v0.31.0 does not hand out its levels.
func (d *cascade) detect(m gocv.Mat, most int, crops bool) ([]lane.Region, []crop, error) {
	grey := vision.Grey(m)
	defer grey.Close()
	work, scale := grey, 1.0
	if long := max(grey.Cols(), grey.Rows()); long > d.LongSide {
		work = gocv.NewMat()
		defer work.Close()
		scale = reduce(grey, &work, d.LongSide)
	}
	boxes := d.classifier.DetectMultiScaleWithParams(work, d.Scale, d.Neighbors, 0, image.Pt(d.MinSize, d.MinSize), image.Point{})
	full := image.Rect(0, 0, grey.Cols(), grey.Rows())
	for i, b := range boxes {
		boxes[i] = scaled(b, 1/scale).Intersect(full)
	}
	boxes = slices.DeleteFunc(boxes, image.Rectangle.Empty)
	if len(boxes) > most { // the largest are the surest
		slices.SortStableFunc(boxes, func(a, b image.Rectangle) int { return cmp.Compare(b.Dx()*b.Dy(), a.Dx()*a.Dy()) })
		boxes = boxes[:most]
	}
	slices.SortFunc(boxes, func(a, b image.Rectangle) int {
		return cmp.Or(cmp.Compare(a.Min.X, b.Min.X), cmp.Compare(a.Min.Y, b.Min.Y))
	})
	regions := make([]lane.Region, len(boxes))
	var cut []crop
	for i, b := range boxes {
		regions[i] = lane.Region{Box: toBox(b), Score: 1, Label: d.Label}
		if crops {
			cut = append(cut, defaultCropping().cutBox(grey, b))
		}
	}
	return regions, cut, nil
}
