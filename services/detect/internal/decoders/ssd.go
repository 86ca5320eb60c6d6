package decoders

import (
	"cmp"
	"fmt"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// ssd decodes networks that end with the layer DetectionOutput. It has one row per box:
// image, class, score, left, top, right and bottom, the last four as fractions of the input.
type ssd struct {
	noLandmarks
	names         []string
	classes       int
	width, height float64
}

func newSSD(m *model.Model, outputs []string) (Decoder, error) {
	used := []string{"labels", "classes", "threshold", "nms", "output.names"}
	if err := cmp.Or(m.CheckNetwork(used...), m.CheckClasses(2)); err != nil { // one is the background
		return nil, err
	}
	names, err := m.OnlyOutput(outputs)
	return &ssd{names: names, classes: m.Classes, width: float64(m.Input.Width), height: float64(m.Input.Height)}, err
}

func (d *ssd) Outputs() []string { return d.names }

func (d *ssd) Decode(outputs []nets.Tensor, threshold float64) ([]Box, error) {
	const row = 7
	if err := outputs[0].CheckShape(d.names[0], 1, 1, -1, row); err != nil {
		return nil, err
	}
	var boxes []Box
	for r := outputs[0].Data; len(r) > 0; r = r[row:] {
		class, score := int(r[1]), float64(r[2])
		if class < 1 || !(score >= threshold) { // unused rows are 0
			continue
		}
		if class >= d.classes {
			return nil, fmt.Errorf("output %s has class %d, but the model has classes 0 to %d",
				d.names[0], class, d.classes-1)
		}
		boxes = append(boxes, Box{
			X0: float64(r[3]) * d.width, Y0: float64(r[4]) * d.height,
			X1: float64(r[5]) * d.width, Y1: float64(r[6]) * d.height,
			Score: score, Class: class,
		})
	}
	return boxes, nil
}
