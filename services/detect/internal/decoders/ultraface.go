package decoders

import (
	"cmp"
	"fmt"
	"math"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// Formats of the boxes of ultraface.
const (
	// Corners are ready: left, top, right and bottom as fractions of the input.
	corners = "corners"
	// Priors are offsets against boxes that the decoder lays over the input.
	priors = "priors"
)

// ultraFace reads networks of two outputs, scores of a background and a face, and boxes,
// such as Ultra-Light-Fast-Generic-Face-Detector.
type ultraFace struct {
	noLandmarks
	names         []string // scores, boxes
	classes       int
	width, height float64
	// priors and variances are nil for boxes that are ready.
	priors    []Box
	variances []float64
}

func newUltraFace(m *model.Model, _ []string) (Decoder, error) {
	used := []string{"labels", "classes", "threshold", "nms", "output.format", "output.names"}
	if m.Output.Format == priors {
		used = append(used, "output.strides", "output.priors", "output.variances")
	}
	if err := cmp.Or(m.CheckNetwork(used...), m.CheckClasses(2)); err != nil {
		return nil, err
	}
	names, err := m.OutputNames("scores", "boxes")
	if err != nil {
		return nil, err
	}
	d := &ultraFace{names: names, classes: m.Classes, width: float64(m.Input.Width), height: float64(m.Input.Height)}
	switch m.Output.Format {
	case corners:
	case priors:
		if len(m.Output.Strides) == 0 || len(m.Output.Priors) != len(m.Output.Strides) {
			return nil, fmt.Errorf("output.priors: those of %d strides, want %d, and some", len(m.Output.Priors), len(m.Output.Strides))
		}
		if len(m.Output.Variances) != 2 {
			return nil, fmt.Errorf("output.variances: %d numbers, want 2", len(m.Output.Variances))
		}
		d.priors, d.variances = layPriors(m), m.Output.Variances
	default:
		return nil, fmt.Errorf("output.format: %q, want %s or %s", m.Output.Format, corners, priors)
	}
	return d, nil
}

// layPriors returns the boxes that the network begins with: of each grid, row by row,
// each cell has a square for each of its sides, at most as wide and high as the input.
func layPriors(m *model.Model) []Box {
	cells, _ := grids(m, m.Output.Strides)
	width, height := float64(m.Input.Width), float64(m.Input.Height)
	var all []Box
	for level, sides := range m.Output.Priors {
		stride := float64(m.Output.Strides[level])
		for y := range cells[level][1] {
			for x := range cells[level][0] {
				cx, cy := min((float64(x)+0.5)*stride, width), min((float64(y)+0.5)*stride, height)
				for _, side := range sides {
					all = append(all, centered(cx, cy, min(side, width), min(side, height)))
				}
			}
		}
	}
	return all
}

func (d *ultraFace) Outputs() []string { return d.names }

func (d *ultraFace) Decode(outputs []nets.Tensor, threshold float64) ([]Box, error) {
	n := -1
	if d.priors != nil {
		n = len(d.priors)
	}
	if err := outputs[0].CheckShape(d.names[0], 1, n, d.classes); err != nil {
		return nil, err
	}
	n = outputs[0].Shape[1]
	if err := outputs[1].CheckShape(d.names[1], 1, n, 4); err != nil {
		return nil, err
	}
	scores, coordinates := outputs[0].Data, outputs[1].Data
	var boxes []Box
	for i := range n {
		class, score := nets.ArgMax(scores[d.classes*i+1 : d.classes*(i+1)]) // the first is the background
		if !(score >= threshold) {
			continue
		}
		b := d.box(i, coordinates[4*i:4*i+4])
		b.Score, b.Class = score, class+1
		boxes = append(boxes, b)
	}
	return boxes, nil
}

func (d *ultraFace) box(i int, p []float32) Box {
	if d.priors == nil {
		return Box{X0: float64(p[0]) * d.width, Y0: float64(p[1]) * d.height, X1: float64(p[2]) * d.width, Y1: float64(p[3]) * d.height}
	}
	prior := d.priors[i]
	w, h := prior.X1-prior.X0, prior.Y1-prior.Y0
	return centered(
		(prior.X0+prior.X1)/2+float64(p[0])*d.variances[0]*w, (prior.Y0+prior.Y1)/2+float64(p[1])*d.variances[0]*h,
		w*math.Exp(float64(p[2])*d.variances[1]), h*math.Exp(float64(p[3])*d.variances[1]))
}
