package decoders

import (
	"cmp"
	"fmt"
	"math"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// yuNet decodes YuNet (Wu and others, "YuNet: A Tiny Millisecond-level Face Detector",
// 2023). For each stride it has four outputs, with the class score, the object score, the
// box and the five landmarks of each cell.
type yuNet struct {
	names   []string // the four outputs of the first stride, then of the second, ...
	strides []int
	cells   [][2]int
}

func newYuNet(m *model.Model, _ []string) (Decoder, error) {
	used := []string{"labels", "classes", "threshold", "nms", "output.names", "output.strides"}
	if err := cmp.Or(m.CheckNetwork(used...), m.CheckClasses(1)); err != nil {
		return nil, err
	}
	if m.Classes != 1 {
		return nil, fmt.Errorf("classes: %d, want 1", m.Classes)
	}
	d := &yuNet{strides: m.Output.Strides}
	if len(d.strides) == 0 {
		d.strides = []int{8, 16, 32}
	}
	d.cells, _ = grids(m, d.strides)
	var usual []string
	for _, s := range d.strides {
		for _, part := range []string{"cls", "obj", "bbox", "kps"} {
			usual = append(usual, fmt.Sprintf("%s_%d", part, s))
		}
	}
	var err error
	d.names, err = m.OutputNames(usual...)
	return d, err
}

func (d *yuNet) Outputs() []string { return d.names }

// Landmarks names left and right from the person's view: the right eye is usually at the
// left of the image.
func (d *yuNet) Landmarks() []string {
	return []string{"right-eye", "left-eye", "nose", "right-mouth", "left-mouth"}
}

func (d *yuNet) Decode(outputs []nets.Tensor, threshold float64) ([]Box, error) {
	marks := len(d.Landmarks())
	var boxes []Box
	for level, stride := range d.strides {
		columns, rows := d.cells[level][0], d.cells[level][1]
		part := outputs[4*level : 4*level+4]
		for i, width := range []int{1, 1, 4, 2 * marks} {
			if err := part[i].CheckShape(d.names[4*level+i], 1, columns*rows, width); err != nil {
				return nil, err
			}
		}
		cls, obj, bbox, kps := part[0].Data, part[1].Data, part[2].Data, part[3].Data
		s := float64(stride)
		for i := range columns * rows {
			score := math.Sqrt(clampToUnit(cls[i]) * clampToUnit(obj[i]))
			if !(score >= threshold) {
				continue
			}
			x, y := float64(i%columns), float64(i/columns)
			p := bbox[4*i : 4*i+4]
			b := newCenteredBox((x+float64(p[0]))*s, (y+float64(p[1]))*s,
				math.Exp(float64(p[2]))*s, math.Exp(float64(p[3]))*s)
			b.Score = score
			for k := range marks {
				px, py := kps[2*marks*i+2*k], kps[2*marks*i+2*k+1]
				b.Landmarks = append(b.Landmarks, Point{(x + float64(px)) * s, (y + float64(py)) * s})
			}
			boxes = append(boxes, b)
		}
	}
	return boxes, nil
}

// clampToUnit limits a score to 0 to 1.
func clampToUnit(f float32) float64 { return min(max(float64(f), 0), 1) }
