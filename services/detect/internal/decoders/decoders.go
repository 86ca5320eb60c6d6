// Package decoders reads the boxes of detector networks from their outputs. It is
// pure: tensors in, boxes out.
//
// A kind of model is one file with a function that makes its [Decoder], and a line in
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

// A Box is something that a network has found, in pixels of its input. It may reach
// beyond the input.
type Box struct {
	X0, Y0, X1, Y1 float64
	Score          float64
	// Class counts from 0; it is a line of the labels of the model.
	Class int
	// Landmarks are in the order of [Decoder.Landmarks].
	Landmarks []Point
}

// A Point is a place in pixels of the input of a network.
type Point struct{ X, Y float64 }

// A Decoder reads the outputs of one network.
type Decoder interface {
	// Outputs names those that Decode gets, in this order.
	Outputs() []string
	// Landmarks names those of each box, none for a network without.
	Landmarks() []string
	// Decode returns the boxes with at least the score threshold, in any order. An
	// error says that the network has not the outputs that the model declares.
	Decode(outputs []nets.Tensor, threshold float64) ([]Box, error)
}

// Kinds of models that detect.
const (
	YuNet     = "yunet"
	YOLO      = "yolo"
	UltraFace = "ultraface"
	SSD       = "ssd"
)

// A Maker makes the decoder of a model whose network has the outputs of these names. An
// error names the field of model.yaml that is wrong.
type Maker func(m *model.Model, outputs []string) (Decoder, error)

// New returns what makes the decoders of a kind of models.
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
	return nil, fmt.Errorf("kind: %q, want one that detects (docs/models.md lists them)", kind)
}

// noLandmarks is part of decoders without.
type noLandmarks struct{}

func (noLandmarks) Landmarks() []string { return nil }

// grids returns the columns and rows of the cells of each stride.
func grids(m *model.Model, strides []int) (cells [][2]int, total int) {
	for _, s := range strides {
		c := [2]int{ceilDiv(m.Input.Width, s), ceilDiv(m.Input.Height, s)}
		cells = append(cells, c)
		total += c[0] * c[1]
	}
	return cells, total
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// centered returns a box by its center and its sides.
func centered(cx, cy, w, h float64) Box {
	return Box{X0: cx - w/2, Y0: cy - h/2, X1: cx + w/2, Y1: cy + h/2}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// Suppress drops each box that overlaps a better one of its class by more than the
// limit, as intersection over union, and boxes without an area or a place. The rest is
// returned, best first. A limit of 0 drops none for its overlap.
func Suppress(boxes []Box, limit float64) []Box {
	boxes = slices.DeleteFunc(slices.Clone(boxes), func(b Box) bool {
		w, h := b.X1-b.X0, b.Y1-b.Y0
		return !(w > 0 && h > 0) || math.IsInf(w, 0) || math.IsInf(h, 0) // the first is true of what is no number
	})
	slices.SortStableFunc(boxes, func(a, b Box) int { return cmp.Compare(b.Score, a.Score) })
	if limit == 0 {
		return boxes
	}
	kept := boxes[:0]
	for _, b := range boxes {
		if !slices.ContainsFunc(kept, func(k Box) bool { return k.Class == b.Class && overlap(k, b) > limit }) {
			kept = append(kept, b)
		}
	}
	return kept
}

// overlap is the intersection over union of two boxes.
func overlap(a, b Box) float64 {
	w, h := min(a.X1, b.X1)-max(a.X0, b.X0), min(a.Y1, b.Y1)-max(a.Y0, b.Y0)
	if w <= 0 || h <= 0 {
		return 0
	}
	area := func(b Box) float64 { return (b.X1 - b.X0) * (b.Y1 - b.Y0) }
	return w * h / (area(a) + area(b) - w*h)
}
