package decoders

import (
	"cmp"
	"fmt"
	"math"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// yolo decodes networks of the YOLO family, each with its own output format.
type yolo struct {
	noLandmarks
	names         []string
	classes       int
	width, height float64
	strides       []int
	cells         [][2]int
	total         int // number of cells
	decode        func(outputs []nets.Tensor, threshold float64) ([]Box, error)
}

func newYOLO(m *model.Model, outputs []string) (Decoder, error) {
	used := []string{"labels", "classes", "threshold", "nms", "output.format", "output.names"}
	if m.Output.Format == "yolox" {
		used = append(used, "output.strides")
	}
	if err := cmp.Or(m.CheckNetwork(used...), m.CheckClasses(1)); err != nil {
		return nil, err
	}
	d := &yolo{
		classes: m.Classes, width: float64(m.Input.Width), height: float64(m.Input.Height), strides: m.Output.Strides,
	}
	formats := map[string]func([]nets.Tensor, float64) ([]Box, error){
		"yolox": d.yolox, "yolov5": d.yolov5, "yolov8": d.yolov8, "yolov10": d.yolov10,
		"fastestdet": d.fastestDet, "rtdetr": d.rtDETR,
	}
	var ok bool
	if d.decode, ok = formats[m.Output.Format]; !ok {
		return nil, fmt.Errorf("output.format: %q, want yolox, yolov5, yolov8, yolov10, fastestdet or rtdetr",
			m.Output.Format)
	}
	if m.Output.Format == "yolox" {
		if len(d.strides) == 0 {
			d.strides = []int{8, 16, 32}
		}
		d.cells, d.total = grids(m, d.strides)
	}
	var err error
	if m.Output.Format == "rtdetr" {
		d.names, err = m.OutputNames("logits", "pred_boxes")
	} else {
		d.names, err = m.OnlyOutput(outputs)
	}
	return d, err
}

func (d *yolo) Outputs() []string { return d.names }

func (d *yolo) Decode(outputs []nets.Tensor, threshold float64) ([]Box, error) {
	return d.decode(outputs, threshold)
}

// yolox decodes one row per cell, for all strides: the center relative to the cell and the
// logarithms of the sides, in units of the stride, the object score and the class scores.
func (d *yolo) yolox(outputs []nets.Tensor, threshold float64) ([]Box, error) {
	width := 5 + d.classes
	if err := outputs[0].CheckShape(d.names[0], 1, d.total, width); err != nil {
		return nil, err
	}
	rows := outputs[0].Data
	var boxes []Box
	for level, stride := range d.strides {
		columns, s := d.cells[level][0], float64(stride)
		for i := range columns * d.cells[level][1] {
			r := rows[:width]
			rows = rows[width:]
			class, score := bestClass(r[4], r[5:])
			if !(score >= threshold) {
				continue
			}
			b := newCenteredBox((float64(r[0])+float64(i%columns))*s, (float64(r[1])+float64(i/columns))*s,
				math.Exp(float64(r[2]))*s, math.Exp(float64(r[3]))*s)
			b.Class, b.Score = class, score
			boxes = append(boxes, b)
		}
	}
	return boxes, nil
}

// bestClass returns the best class and its score, the product of object score and class score.
func bestClass(object float32, classes []float32) (int, float64) {
	class, score := nets.ArgMax(classes)
	return class, float64(object) * score
}

// yolov5 decodes one row per box: center and sides in pixels, the object score and the class
// scores.
func (d *yolo) yolov5(outputs []nets.Tensor, threshold float64) ([]Box, error) {
	width := 5 + d.classes
	if err := outputs[0].CheckShape(d.names[0], 1, -1, width); err != nil {
		return nil, err
	}
	var boxes []Box
	for r := outputs[0].Data; len(r) > 0; r = r[width:] {
		class, score := bestClass(r[4], r[5:width])
		if !(score >= threshold) {
			continue
		}
		b := newCenteredBox(float64(r[0]), float64(r[1]), float64(r[2]), float64(r[3]))
		b.Class, b.Score = class, score
		boxes = append(boxes, b)
	}
	return boxes, nil
}

// yolov8 decodes one column per box: center and sides in pixels, and the class scores.
func (d *yolo) yolov8(outputs []nets.Tensor, threshold float64) ([]Box, error) {
	if err := outputs[0].CheckShape(d.names[0], 1, 4+d.classes, -1); err != nil {
		return nil, err
	}
	n, data := outputs[0].Shape[2], outputs[0].Data
	at := func(row, column int) float64 { return float64(data[row*n+column]) }
	var boxes []Box
	for i := range n {
		class, score := 0, at(4, i)
		for c := 1; c < d.classes; c++ {
			if s := at(4+c, i); s > score {
				class, score = c, s
			}
		}
		if !(score >= threshold) {
			continue
		}
		b := newCenteredBox(at(0, i), at(1, i), at(2, i), at(3, i))
		b.Class, b.Score = class, score
		boxes = append(boxes, b)
	}
	return boxes, nil
}

// yolov10 decodes one row per box: left, top, right and bottom in pixels, score and class.
func (d *yolo) yolov10(outputs []nets.Tensor, threshold float64) ([]Box, error) {
	const width = 6
	if err := outputs[0].CheckShape(d.names[0], 1, -1, width); err != nil {
		return nil, err
	}
	var boxes []Box
	for r := outputs[0].Data; len(r) > 0; r = r[width:] {
		if !(float64(r[4]) >= threshold) {
			continue
		}
		class := int(r[5])
		if class < 0 || class >= d.classes {
			return nil, fmt.Errorf("output %s has class %v, but the model has classes 0 to %d",
				d.names[0], r[5], d.classes-1)
		}
		boxes = append(boxes, Box{
			X0: float64(r[0]), Y0: float64(r[1]), X1: float64(r[2]), Y1: float64(r[3]), Score: float64(r[4]), Class: class,
		})
	}
	return boxes, nil
}

// fastestDet decodes one plane of the grid per value: the object score, the center relative
// to the cell (tanh), the sides as fractions of the input (sigmoid), and the class scores.
func (d *yolo) fastestDet(outputs []nets.Tensor, threshold float64) ([]Box, error) {
	if err := outputs[0].CheckShape(d.names[0], 1, 5+d.classes, -1, -1); err != nil {
		return nil, err
	}
	rows, columns, data := outputs[0].Shape[2], outputs[0].Shape[3], outputs[0].Data
	n := rows * columns
	classes := make([]float32, d.classes)
	var boxes []Box
	for i := range n {
		at := func(plane int) float64 { return float64(data[plane*n+i]) }
		for c := range classes {
			classes[c] = data[(5+c)*n+i]
		}
		class, score := nets.ArgMax(classes)
		score = math.Pow(at(0), 0.6) * math.Pow(score, 0.4)
		if !(score >= threshold) {
			continue
		}
		b := newCenteredBox((float64(i%columns)+math.Tanh(at(1)))/float64(columns)*d.width,
			(float64(i/columns)+math.Tanh(at(2)))/float64(rows)*d.height, sigmoid(at(3))*d.width, sigmoid(at(4))*d.height)
		b.Class, b.Score = class, score
		boxes = append(boxes, b)
	}
	return boxes, nil
}

// rtDETR decodes RT-DETR and similar networks, such as D-FINE. They have one output with the
// logits of each class, and one with centers and sides as fractions of the input.
func (d *yolo) rtDETR(outputs []nets.Tensor, threshold float64) ([]Box, error) {
	if err := outputs[0].CheckShape(d.names[0], 1, -1, d.classes); err != nil {
		return nil, err
	}
	n := outputs[0].Shape[1]
	if err := outputs[1].CheckShape(d.names[1], 1, n, 4); err != nil {
		return nil, err
	}
	var boxes []Box
	for i := range n {
		class, logit := nets.ArgMax(outputs[0].Data[d.classes*i : d.classes*(i+1)])
		score := sigmoid(logit)
		if !(score >= threshold) {
			continue
		}
		p := outputs[1].Data[4*i : 4*i+4]
		b := newCenteredBox(float64(p[0])*d.width, float64(p[1])*d.height, float64(p[2])*d.width, float64(p[3])*d.height)
		b.Class, b.Score = class, score
		boxes = append(boxes, b)
	}
	return boxes, nil
}
