package decoders

import (
	"cmp"
	"fmt"
	"math"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// Output formats of ultraface.
const (
	// corners are left, top, right and bottom as fractions of the input.
	corners = "corners"
	// priors are offsets relative to default boxes, which the decoder computes.
	priors = "priors"
)

// ultraFace decodes networks such as Ultra-Light-Fast-Generic-Face-Detector. They have two
// outputs: the scores of background and face, and the boxes.
type ultraFace struct {
	noLandmarks
	names         []string // scores, boxes
	classes       int
	width, height float64
	// priors and variances are nil for the format corners.
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
			return nil, fmt.Errorf("output.priors: for %d strides, want as many as output.strides, which has %d, "+
				"and at least one", len(m.Output.Priors), len(m.Output.Strides))
		}
		if len(m.Output.Variances) != 2 {
			return nil, fmt.Errorf("output.variances: %d numbers, want 2", len(m.Output.Variances))
		}
		d.priors, d.variances = newPriorBoxes(m), m.Output.Variances
	default:
		return nil, fmt.Errorf("output.format: %q, want %s or %s", m.Output.Format, corners, priors)
	}
	return d, nil
}

// newPriorBoxes returns the default boxes of the network, grid by grid and row by row. Each cell
// has one square per side in output.priors, at most as wide and as high as the input.
func newPriorBoxes(m *model.Model) []Box {
	cells, _ := grids(m, m.Output.Strides)
	width, height := float64(m.Input.Width), float64(m.Input.Height)
	var all []Box
	for level, sides := range m.Output.Priors {
		stride := float64(m.Output.Strides[level])
		for y := range cells[level][1] {
			for x := range cells[level][0] {
				cx, cy := min((float64(x)+0.5)*stride, width), min((float64(y)+0.5)*stride, height)
				for _, side := range sides {
					all = append(all, newCenteredBox(cx, cy, min(side, width), min(side, height)))
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
		class, score := nets.ArgMax(scores[d.classes*i+1 : d.classes*(i+1)]) // class 0 is the background
		if !(score >= threshold) {
			continue
		}
		b := d.box(i, coordinates[4*i:4*i+4])
		b.Score, b.Class = score, class+1
		boxes = append(boxes, b)
	}
	return boxes, nil
}

// box returns box i, whose coordinates are p.
func (d *ultraFace) box(i int, p []float32) Box {
	if d.priors == nil {
		return Box{
			X0: float64(p[0]) * d.width, Y0: float64(p[1]) * d.height,
			X1: float64(p[2]) * d.width, Y1: float64(p[3]) * d.height,
		}
	}
	prior := d.priors[i]
	w, h := prior.X1-prior.X0, prior.Y1-prior.Y0
	return newCenteredBox(
		(prior.X0+prior.X1)/2+float64(p[0])*d.variances[0]*w,
		(prior.Y0+prior.Y1)/2+float64(p[1])*d.variances[0]*h,
		w*math.Exp(float64(p[2])*d.variances[1]), h*math.Exp(float64(p[3])*d.variances[1]))
}
