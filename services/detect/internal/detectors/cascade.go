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
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// cascade finds objects of one kind with a Haar cascade (Viola and Jones,
// "Rapid Object Detection using a Boosted Cascade of Simple Features", 2001).
type cascade struct {
	// Scale, Neighbors and MinSize are those of OpenCV's detectMultiScale.
	Scale     float64 `json:"scale"`
	Neighbors int     `json:"neighbors"`
	MinSize   int     `json:"min_size"` // pixels
	// LongSide is the longer side, in pixels, to which larger images are reduced: the time
	// is proportional to the number of pixels.
	LongSide int `json:"long_side"`

	label      string
	classifier gocv.CascadeClassifier
}

func newCascade(settings json.RawMessage) (detector, lane.Loaded, error) {
	s := struct {
		Cascade string `json:"cascade"` // file name without .xml
		Dir     string `json:"dir"`     // folder of the file
		Label   string `json:"label"`   // of every region
		*cascade
	}{Label: "object", cascade: defaultCascade()}
	if err := lane.DecodeSettings(settings, &s); err != nil {
		return nil, lane.Loaded{}, err
	}
	if err := s.validate(); err != nil {
		return nil, lane.Loaded{}, fmt.Errorf("settings.%w", err)
	}
	c, model, err := vision.LoadCascade(s.Dir, s.Cascade)
	if err != nil {
		return nil, lane.Loaded{}, err
	}
	s.classifier, s.label = c, s.Label
	return cropper{s.cascade, defaultCropping()}, lane.Loaded{Models: []v1.Model{model}}, nil
}

// newCascadeModel returns the finder of a model folder that contains a cascade.
func newCascadeModel(m *model.Model) (finder, error) {
	d := defaultCascade()
	if err := m.DecodeSettings(d); err != nil {
		return nil, err
	}
	if err := d.validate(); err != nil {
		return nil, m.FieldError(fmt.Errorf("settings.%w", err))
	}
	if _, _, err := m.ReadWeights(); err != nil { // checks the file
		return nil, err
	}
	c, err := vision.OpenCascade(m.WeightsPath())
	if err != nil {
		return nil, m.FieldError(fmt.Errorf("weights: %w", err))
	}
	d.classifier, d.label = c, m.ClassNames[0]
	return d, nil
}

func defaultCascade() *cascade {
	return &cascade{Scale: 1.1, Neighbors: 3, MinSize: 30, LongSide: 2000}
}

func (d *cascade) validate() error {
	switch {
	case d.Scale < 1.01: // at 1 OpenCV ends the process, and just above 1 it takes forever
		return fmt.Errorf("scale: %v, want 1.01 or more", d.Scale)
	case d.Neighbors < 0:
		return fmt.Errorf("neighbors: %d, want 0 or more", d.Neighbors)
	case d.MinSize < 1:
		return fmt.Errorf("min_size: %d, want 1 or more", d.MinSize)
	case d.LongSide < 1:
		return fmt.Errorf("long_side: %d, want 1 or more", d.LongSide)
	}
	return nil
}

// find returns every region with the score 1: a cascade has no score, and gocv v0.31.0 does
// not return its levels.
func (d *cascade) find(m gocv.Mat, most int) ([]lane.Region, error) {
	grey := vision.ToGrey(m)
	defer grey.Close()
	work, scale := grey, 1.0
	if long := max(grey.Cols(), grey.Rows()); long > d.LongSide {
		work = gocv.NewMat()
		defer work.Close()
		scale = reduce(grey, &work, d.LongSide)
	}
	least := image.Pt(d.MinSize, d.MinSize)
	boxes := d.classifier.DetectMultiScaleWithParams(work, d.Scale, d.Neighbors, 0, least, image.Point{})
	return newRegions(boxes, scale, image.Pt(m.Cols(), m.Rows()), d.label, most), nil
}

// newRegions returns regions with the score 1 and one label. boxes are in pixels of an image
// that was scaled by scale; size is the size of the original image.
func newRegions(boxes []image.Rectangle, scale float64, size image.Point, label string, most int) []lane.Region {
	full := image.Rectangle{Max: size}
	for i, b := range boxes {
		boxes[i] = scaleBox(b, 1/scale).Intersect(full)
	}
	boxes = slices.DeleteFunc(boxes, image.Rectangle.Empty)
	if len(boxes) > most { // keep the largest boxes
		slices.SortStableFunc(boxes, func(a, b image.Rectangle) int { return cmp.Compare(b.Dx()*b.Dy(), a.Dx()*a.Dy()) })
		boxes = boxes[:most]
	}
	slices.SortFunc(boxes, func(a, b image.Rectangle) int {
		return cmp.Or(cmp.Compare(a.Min.X, b.Min.X), cmp.Compare(a.Min.Y, b.Min.Y))
	})
	regions := make([]lane.Region, len(boxes))
	for i, b := range boxes {
		regions[i] = lane.Region{Box: toBox(b), Score: 1, Label: label}
	}
	return regions
}
