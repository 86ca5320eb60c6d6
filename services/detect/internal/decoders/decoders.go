// Package decoders decodes the outputs of detection networks into boxes. It is pure: its
// input is tensors, its output boxes.
//
// Each kind of model has one file with the constructor of its [Decoder], and a line in
// [New].
package decoders

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// A Box is an object that a network has found, in pixels of its input. It may extend beyond
// the input.
type Box struct {
	X0, Y0, X1, Y1 float64
	Score          float64
	// Class is an index into the labels of the model.
	Class int
	// Landmarks are in the order of [Decoder.Landmarks].
	Landmarks []Point
}

// A Point is a point in the input of a network, in pixels.
type Point struct{ X, Y float64 }

// A Decoder decodes the outputs of one network.
type Decoder interface {
	// Outputs returns the names of the outputs that Decode needs, in this order.
	Outputs() []string
	// Landmarks returns the names of the landmarks of each box, nil for none.
	Landmarks() []string
	// Decode returns the boxes whose score is at least threshold, in any order. It
	// returns an error if the outputs are not those that the model declares.
	Decode(outputs []nets.Tensor, threshold float64) ([]Box, error)
}

// Kinds of detection networks.
const (
	YuNet     = "yunet"
	YOLO      = "yolo"
	UltraFace = "ultraface"
	SSD       = "ssd"
)

// A Maker creates the decoder of a model. outputs are the names of all outputs of the
// network. An error names the field of model.yaml that is wrong.
type Maker func(m *model.Model, outputs []string) (Decoder, error)

// New returns the constructor of the decoders for a kind of model.
func New(kind string) (Maker, error) {
	switch kind {
	case YuNet:
		return newYuNet, nil
	case YOLO:
		return newYOLO, nil
	case UltraFace:
		return newUltraFace, nil
	case SSD:
		return newSSD, nil
	}
	return nil, fmt.Errorf("kind: %q, want a kind of detection models (docs/models.md lists them)", kind)
}

// noLandmarks is embedded in decoders without landmarks.
type noLandmarks struct{}

func (noLandmarks) Landmarks() []string { return nil }

// grids returns the number of columns and rows of the grid of each stride, and the total
// number of cells.
func grids(m *model.Model, strides []int) (cells [][2]int, total int) {
	for _, s := range strides {
		c := [2]int{ceilDiv(m.Input.Width, s), ceilDiv(m.Input.Height, s)}
		cells = append(cells, c)
		total += c[0] * c[1]
	}
	return cells, total
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// newCenteredBox returns the box with this center, width and height.
func newCenteredBox(cx, cy, w, h float64) Box {
	return Box{X0: cx - w/2, Y0: cy - h/2, X1: cx + w/2, Y1: cy + h/2}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// Suppress applies non-maximum suppression: it removes each box whose intersection over
// union with a box of the same class and a higher score is above limit. A limit of 0
// disables this. It also removes boxes that are empty, infinite or NaN. The remaining boxes
// are sorted by score, the highest first.
func Suppress(boxes []Box, limit float64) []Box {
	boxes = slices.DeleteFunc(slices.Clone(boxes), func(b Box) bool {
		w, h := b.X1-b.X0, b.Y1-b.Y0
		return !(w > 0 && h > 0) || math.IsInf(w, 0) || math.IsInf(h, 0) // the first is also true for NaN
	})
	slices.SortStableFunc(boxes, func(a, b Box) int { return cmp.Compare(b.Score, a.Score) })
	if limit == 0 {
		return boxes
	}
	kept := boxes[:0]
	for _, b := range boxes {
		if !slices.ContainsFunc(kept, func(k Box) bool { return k.Class == b.Class && iou(k, b) > limit }) {
			kept = append(kept, b)
		}
	}
	return kept
}

// iou returns the intersection over union of two boxes.
func iou(a, b Box) float64 {
	w, h := min(a.X1, b.X1)-max(a.X0, b.X0), min(a.Y1, b.Y1)-max(a.Y0, b.Y0)
	if w <= 0 || h <= 0 {
		return 0
	}
	area := func(b Box) float64 { return (b.X1 - b.X0) * (b.Y1 - b.Y0) }
	return w * h / (area(a) + area(b) - w*h)
}
