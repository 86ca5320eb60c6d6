package detectors

import (
	"encoding/binary"
	"fmt"
	"image"
	"math"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
)

// hog finds objects of one kind by histograms of oriented gradients (Dalal and Triggs,
// "Histograms of Oriented Gradients for Human Detection", 2005), in windows of 64 × 128
// pixels.
type hog struct {
	// LongSide is the longer side, in pixels, to which larger images are reduced.
	LongSide int `json:"long_side"`

	label      string
	descriptor gocv.HOGDescriptor
}

// The window size of OpenCV's descriptor, and the number of weights of its linear
// classifier.
const (
	hogWidth, hogHeight = 64, 128
	hogWeights          = 3781
)

func newHOG(m *model.Model) (finder, error) {
	d := &hog{LongSide: 2000, label: m.ClassNames[0]}
	if err := m.DecodeSettings(d); err != nil {
		return nil, err
	}
	if d.LongSide < 1 {
		return nil, m.FieldError(fmt.Errorf("settings.long_side: %d, want 1 or more", d.LongSide))
	}
	weights, _, err := m.ReadWeights()
	if err != nil {
		return nil, err
	}
	if len(weights) != 4*hogWeights {
		return nil, m.FieldError(fmt.Errorf("weights: %s has %d bytes, want %d numbers of float32, which are %d",
			m.Weights, len(weights), hogWeights, 4*hogWeights))
	}
	for i := range hogWeights {
		v := float64(math.Float32frombits(binary.LittleEndian.Uint32(weights[4*i:])))
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, m.FieldError(fmt.Errorf("weights: %s: number %d is %v", m.Weights, i, v))
		}
	}
	vector, err := gocv.NewMatFromBytes(hogWeights, 1, gocv.MatTypeCV32F, weights)
	if err != nil {
		return nil, m.FieldError(fmt.Errorf("weights: %w", err))
	}
	defer vector.Close()
	d.descriptor = gocv.NewHOGDescriptor()
	if err := d.descriptor.SetSVMDetector(vector); err != nil { // copies it
		return nil, m.FieldError(fmt.Errorf("weights: %w", err))
	}
	return d, nil
}

// find returns every region with the score 1: gocv does not return the weights.
func (d *hog) find(m gocv.Mat, most int) ([]lane.Region, error) {
	work, scale := m, 1.0
	if long := max(m.Cols(), m.Rows()); long > d.LongSide {
		work = gocv.NewMat()
		defer work.Close()
		scale = reduce(m, &work, d.LongSide)
	}
	if work.Cols() < hogWidth || work.Rows() < hogHeight {
		return nil, nil
	}
	return newRegions(d.descriptor.DetectMultiScale(work), scale, image.Pt(m.Cols(), m.Rows()), d.label, most), nil
}
