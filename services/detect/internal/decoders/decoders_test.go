package decoders

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// newModel returns a model with an input of 64 × 32 pixels and three classes, or one class
// for YuNet.
func newModel(kind string, o model.Output) *model.Model {
	m := &model.Model{
		Kind: kind, Output: o, Input: model.Input{Width: 64, Height: 32},
		Classes: 3, ClassNames: []string{"a", "b", "c"},
	}
	if kind == YuNet {
		m.Classes, m.ClassNames = 1, []string{"face"}
	}
	return m
}

// newDecoder returns the decoder of a model whose network has these outputs.
func newDecoder(m *model.Model, outputs []string) (Decoder, error) {
	maker, err := New(m.Kind)
	if err != nil {
		return nil, err
	}
	return maker(m, outputs)
}

// Two boxes that every format can represent: each center is in a cell of stride 16 and in
// one of stride 32.
var (
	one = Box{X0: 4, Y0: 2, X1: 24, Y1: 18, Score: 0.9, Class: 2}  // around 14, 10
	two = Box{X0: 36, Y0: 4, X1: 60, Y1: 28, Score: 0.6, Class: 1} // around 48, 16
)

// fillTensor returns a tensor with the values that fill writes. at returns the address of an
// element.
func fillTensor(fill func(at func(indices ...int) *float32), shape ...int) nets.Tensor {
	t := nets.NewTensor(shape...)
	fill(func(indices ...int) *float32 {
		n := 0
		for i, x := range indices {
			n = n*shape[i] + x
		}
		return &t.Data[n]
	})
	return t
}

// setValues writes values to the addresses that at returns.
func setValues(values []float64, at func(i int) *float32) {
	for i, v := range values {
		*at(i) = float32(v)
	}
}

func (b Box) center() (cx, cy, w, h float64) {
	return (b.X0 + b.X1) / 2, (b.Y0 + b.Y1) / 2, b.X1 - b.X0, b.Y1 - b.Y0
}

func logit(p float64) float64 { return math.Log(p / (1 - p)) }

// formats returns a model of each format, and outputs of its network that contain the boxes
// one and two.
func formats() map[string]struct {
	model   *model.Model
	outputs []nets.Tensor
} {
	type format = struct {
		model   *model.Model
		outputs []nets.Tensor
	}
	both := []Box{one, two}
	all := map[string]format{}

	// YOLOX: 4 x 2 cells of stride 16, then 2 x 1 of stride 32.
	all["yolox"] = format{newModel(YOLO, model.Output{Format: "yolox", Strides: []int{16, 32}}), []nets.Tensor{
		fillTensor(func(at func(...int) *float32) {
			for i, cell := range []struct{ row, column, line, stride int }{{0, 0, 0, 16}, {8 + 1, 1, 0, 32}} {
				b, s := both[i], float64(cell.stride)
				cx, cy, w, h := b.center()
				x, y := cx/s-float64(cell.column), cy/s-float64(cell.line)
				setValues([]float64{x, y, math.Log(w / s), math.Log(h / s), 1},
					func(k int) *float32 { return at(0, cell.row, k) })
				*at(0, cell.row, 5+b.Class) = float32(b.Score)
			}
		}, 1, 8+2, 8),
	}}
	all["yolov5"] = format{newModel(YOLO, model.Output{Format: "yolov5"}), []nets.Tensor{
		fillTensor(func(at func(...int) *float32) {
			for i, b := range both {
				cx, cy, w, h := b.center()
				setValues([]float64{cx, cy, w, h, 0.5 * b.Score}, func(k int) *float32 { return at(0, 3*i, k) })
				*at(0, 3*i, 5+b.Class) = 2
			}
		}, 1, 7, 8),
	}}
	all["yolov8"] = format{newModel(YOLO, model.Output{Format: "yolov8"}), []nets.Tensor{
		fillTensor(func(at func(...int) *float32) {
			for i, b := range both {
				cx, cy, w, h := b.center()
				setValues([]float64{cx, cy, w, h}, func(k int) *float32 { return at(0, k, 3*i) })
				*at(0, 4+b.Class, 3*i) = float32(b.Score)
			}
		}, 1, 7, 9),
	}}
	all["yolov10"] = format{newModel(YOLO, model.Output{Format: "yolov10"}), []nets.Tensor{
		fillTensor(func(at func(...int) *float32) {
			for i, b := range both {
				setValues([]float64{b.X0, b.Y0, b.X1, b.Y1, b.Score, float64(b.Class)},
					func(k int) *float32 { return at(0, 2*i, k) })
			}
		}, 1, 5, 6),
	}}
	all["fastestdet"] = format{newModel(YOLO, model.Output{Format: "fastestdet"}), []nets.Tensor{
		fillTensor(func(at func(...int) *float32) { // 4 x 2 cells
			for i, cell := range [][2]int{{0, 0}, {3, 1}} {
				b := both[i]
				cx, cy, w, h := b.center()
				x, y := math.Atanh(cx/64*4-float64(cell[0])), math.Atanh(cy/32*2-float64(cell[1]))
				setValues([]float64{b.Score, x, y, logit(w / 64), logit(h / 32)},
					func(k int) *float32 { return at(0, k, cell[1], cell[0]) })
				*at(0, 5+b.Class, cell[1], cell[0]) = float32(b.Score) // score^0.6 * score^0.4
			}
		}, 1, 8, 2, 4),
	}}
	all["rtdetr"] = format{newModel(YOLO, model.Output{Format: "rtdetr"}), []nets.Tensor{
		fillTensor(func(at func(...int) *float32) {
			for q := range 5 {
				setValues([]float64{-9, -9, -9}, func(k int) *float32 { return at(0, q, k) })
			}
			for i, b := range both {
				*at(0, 2*i, b.Class) = float32(logit(b.Score))
			}
		}, 1, 5, 3),
		fillTensor(func(at func(...int) *float32) {
			for i, b := range both {
				cx, cy, w, h := b.center()
				setValues([]float64{cx / 64, cy / 32, w / 64, h / 32}, func(k int) *float32 { return at(0, 2*i, k) })
			}
		}, 1, 5, 4),
	}}
	all["ssd"] = format{newModel(SSD, model.Output{}), []nets.Tensor{
		fillTensor(func(at func(...int) *float32) {
			for i, b := range both {
				setValues([]float64{0, float64(b.Class), b.Score, b.X0 / 64, b.Y0 / 32, b.X1 / 64, b.Y1 / 32},
					func(k int) *float32 { return at(0, 0, 2*i, k) })
			}
		}, 1, 1, 6, 7),
	}}
	all["ultraface corners"] = format{newModel(UltraFace, model.Output{Format: "corners"}), []nets.Tensor{
		fillTensor(func(at func(...int) *float32) {
			for i, b := range both {
				*at(0, 2*i, b.Class) = float32(b.Score)
			}
		}, 1, 5, 3),
		fillTensor(func(at func(...int) *float32) {
			for i, b := range both {
				setValues([]float64{b.X0 / 64, b.Y0 / 32, b.X1 / 64, b.Y1 / 32}, func(k int) *float32 { return at(0, 2*i, k) })
			}
		}, 1, 5, 4),
	}}
	// Priors: squares of 8 and 16 pixels in 4 x 2 cells of stride 16, and of 64 pixels in 2 x 1
	// cells of stride 32. The latter are reduced to the height of the input.
	all["ultraface priors"] = format{
		newModel(UltraFace, model.Output{
			Format: "priors", Strides: []int{16, 32}, Priors: [][]float64{{8, 16}, {64}}, Variances: []float64{0.1, 0.2},
		}), []nets.Tensor{
			fillTensor(func(at func(...int) *float32) {
				*at(0, 1, one.Class) = float32(one.Score)
				*at(0, 17, two.Class) = float32(two.Score)
			}, 1, 18, 3),
			fillTensor(func(at func(...int) *float32) {
				for row, p := range map[int]struct{ prior, box Box }{
					1: {newCenteredBox(8, 8, 16, 16), one}, 17: {newCenteredBox(48, 16, 64, 32), two},
				} {
					px, py, pw, ph := p.prior.center()
					cx, cy, w, h := p.box.center()
					x, y := (cx-px)/pw/0.1, (cy-py)/ph/0.1
					setValues([]float64{x, y, math.Log(w/pw) / 0.2, math.Log(h/ph) / 0.2},
						func(k int) *float32 { return at(0, row, k) })
				}
			}, 1, 18, 4),
		},
	}
	return all
}

// TestDecoder_FindsKnownBoxes decodes outputs of each format that contain two known boxes.
func TestDecoder_FindsKnownBoxes(t *testing.T) {
	t.Parallel()
	for name, tt := range formats() {
		d, err := newDecoder(tt.model, []string{"out"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(d.Outputs()) != len(tt.outputs) {
			t.Fatalf("%s: needs the outputs %q, want %d", name, d.Outputs(), len(tt.outputs))
		}
		boxes, err := d.Decode(tt.outputs, 0.3)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if boxes = Suppress(boxes, 0.5); len(boxes) != 2 {
			t.Errorf("%s: %d boxes, want 2: %+v", name, len(boxes), boxes)
			continue
		}
		for i, want := range []Box{one, two} {
			got := boxes[i]
			if o := iou(got, want); o < 0.999 {
				t.Errorf("%s: box %d overlaps by %v: %+v, want %+v", name, i, o, got, want)
			}
			if got.Class != want.Class {
				t.Errorf("%s: box %d has class %d, want %d", name, i, got.Class, want.Class)
			}
			if math.Abs(got.Score-want.Score) > 1e-5 {
				t.Errorf("%s: box %d has score %v, want %v", name, i, got.Score, want.Score)
			}
		}
		if boxes, err = d.Decode(tt.outputs, 0.7); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(boxes) != 1 {
			t.Errorf("%s: %d boxes with a score of 0.7 or more, want 1", name, len(boxes))
		}
	}
}

// checkError checks that err contains want.
func checkError(t *testing.T, name string, err error, want string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %q", name, want)
	} else if !strings.Contains(err.Error(), want) {
		t.Errorf("%s: the error is %q, want %q in it", name, err, want)
	}
}

// TestDecoder_RejectsShapes checks that outputs with another shape than declared are an
// error that names the output.
func TestDecoder_RejectsShapes(t *testing.T) {
	t.Parallel()
	for name, tt := range formats() {
		d, err := newDecoder(tt.model, []string{"out"})
		if err != nil {
			t.Fatal(err)
		}
		for i, output := range d.Outputs() {
			for _, shape := range [][]int{{}, {1}, {1, 1, 1, 1, 1}, {2, 9, 8}, {1, 3, 5}, {1, 1, 4, 6}} {
				outputs := slices.Clone(tt.outputs)
				outputs[i] = nets.NewTensor(shape...)
				_, err := d.Decode(outputs, 0.3)
				checkError(t, fmt.Sprint(name, shape), err, "output "+output+" has the shape")
			}
		}
	}
}

// TestDecoder_RejectsClasses checks that a class without a label in the outputs is an error.
func TestDecoder_RejectsClasses(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"yolov10", "ssd"} {
		f := formats()[name]
		f.model.Classes, f.model.ClassNames = 2, []string{"a", "b"}
		d, err := newDecoder(f.model, []string{"out"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Decode(f.outputs, 0.3)
		checkError(t, name, err, "has class 2")
	}
}

func TestYuNet_FindsFaceWithLandmarks(t *testing.T) {
	t.Parallel()
	m := newModel(YuNet, model.Output{Strides: []int{16, 32}})
	d, err := newDecoder(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"cls_16", "obj_16", "bbox_16", "kps_16", "cls_32", "obj_32", "bbox_32", "kps_32"}
	if !slices.Equal(d.Outputs(), want) {
		t.Fatalf("needs the outputs %q, want %q", d.Outputs(), want)
	}
	var outputs []nets.Tensor
	for _, cells := range []int{8, 2} {
		for _, width := range []int{1, 1, 4, 10} {
			outputs = append(outputs, nets.NewTensor(1, cells, width))
		}
	}
	// A face in cell 1, 1 of stride 16, with its center at 24, 20, 20 pixels wide and 12 high.
	const cell = 5
	outputs[0].Data[cell], outputs[1].Data[cell] = 0.81, 1.5 // scores above 1 count as 1
	copy(outputs[2].Data[4*cell:], []float32{0.5, 0.25, float32(math.Log(20. / 16)), float32(math.Log(12. / 16))})
	copy(outputs[3].Data[10*cell:], []float32{0, 0, 1, 0, 0.5, 0.5, 0.25, 0.75, 0.75, 0.75})
	boxes, err := d.Decode(outputs, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	if len(boxes) != 1 {
		t.Fatalf("%d boxes, want 1", len(boxes))
	}
	b := boxes[0]
	if want := (Box{X0: 14, Y0: 14, X1: 34, Y1: 26}); iou(b, want) < 0.999 {
		t.Errorf("the box is %+v, want %+v", b, want)
	}
	if math.Abs(b.Score-0.9) > 1e-6 {
		t.Errorf("the score is %v, want 0.9", b.Score)
	}
	if marks := []Point{{16, 16}, {32, 16}, {24, 24}, {20, 28}, {28, 28}}; !slices.Equal(b.Landmarks, marks) {
		t.Errorf("landmarks %v, want %v", b.Landmarks, marks)
	}
	if len(d.Landmarks()) != len(b.Landmarks) {
		t.Errorf("%d names for %d landmarks", len(d.Landmarks()), len(b.Landmarks))
	}
	outputs[7] = nets.NewTensor(1, 2, 8)
	_, err = d.Decode(outputs, 0.5)
	checkError(t, "four landmarks", err, "output kps_32 has the shape [1 2 8]")
}

// TestNew_NamesField checks that the error names the field of model.yaml that does not fit
// the kind.
func TestNew_NamesField(t *testing.T) {
	t.Parallel()
	priors := model.Output{Format: "priors", Strides: []int{8}, Priors: [][]float64{{8}}, Variances: []float64{0.1, 0.2}}
	for name, tt := range map[string]struct {
		kind    string
		change  func(*model.Model)
		outputs []string
		want    string
	}{
		"unknown kind": {"oracle", func(*model.Model) {}, nil, `kind: "oracle"`},
		"unknown YOLO": {
			YOLO, func(m *model.Model) { m.Output.Format = "yolov99" },
			nil, `output.format: "yolov99"`,
		},
		"no format": {YOLO, func(*model.Model) {}, nil, `output.format: ""`},
		"several outputs": {
			YOLO, func(m *model.Model) { m.Output.Format = "yolov8" },
			[]string{"a", "b"}, `output.names: missing, and the network has the outputs ["a" "b"]`,
		},
		"too many names": {
			YOLO, func(m *model.Model) { m.Output = model.Output{Format: "yolov8", Names: []string{"a", "b"}} },
			[]string{"a", "b"}, "output.names: 2 names, want 1",
		},
		"no classes": {
			YOLO, func(m *model.Model) { m.Classes, m.ClassNames = 0, nil },
			nil, "classes: 0",
		},
		"no labels": {
			YOLO, func(m *model.Model) { m.ClassNames = nil },
			nil, "labels: missing",
		},
		"one class of SSD": {
			SSD, func(m *model.Model) { m.Classes, m.ClassNames = 1, []string{"a"} },
			nil, "classes: 1",
		},
		"two classes of face": {
			YuNet, func(m *model.Model) { m.Classes, m.ClassNames = 2, []string{"a", "b"} },
			nil, "classes: 2",
		},
		"names of YuNet": {
			YuNet, func(m *model.Model) { m.Output.Names = []string{"a"} },
			nil, "output.names: 1 names, want 12",
		},
		"no UltraFace": {UltraFace, func(*model.Model) {}, nil, `output.format: ""`},
		"no priors": {
			UltraFace, func(m *model.Model) { m.Output = priors; m.Output.Priors = nil },
			nil, "output.priors",
		},
		"no variances": {
			UltraFace, func(m *model.Model) { m.Output = priors; m.Output.Variances = nil },
			nil, "output.variances",
		},
	} {
		m := newModel(tt.kind, model.Output{})
		tt.change(m)
		_, err := newDecoder(m, tt.outputs)
		checkError(t, name, err, tt.want)
	}
}

func TestSuppress(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	a := Box{X1: 10, Y1: 10, Score: 0.5}
	shifted := Box{X0: 1, X1: 11, Y1: 10, Score: 0.9} // overlaps a by 9 of 11
	other := Box{X0: 1, X1: 11, Y1: 10, Score: 0.7, Class: 1}
	for name, tt := range map[string]struct {
		boxes []Box
		limit float64
		want  []float64 // the scores
	}{
		"higher score stays": {[]Box{a, shifted}, 0.5, []float64{0.9}},
		"within the limit":   {[]Box{a, shifted}, 0.9, []float64{0.9, 0.5}},
		"different classes":  {[]Box{a, other}, 0.5, []float64{0.7, 0.5}},
		"disabled":           {[]Box{a, a}, 0, []float64{0.5, 0.5}},
		"invalid boxes": {
			[]Box{a, {X0: nan, X1: 1, Y1: 1}, {X1: inf, Y1: 1}, {X0: 5, X1: 5, Y1: 5}, {X0: -inf, X1: inf, Y1: 1}},
			0.5, []float64{0.5},
		},
	} {
		var scores []float64
		for _, b := range Suppress(tt.boxes, tt.limit) {
			scores = append(scores, b.Score)
		}
		if !slices.Equal(scores, tt.want) {
			t.Errorf("%s: %v, want %v", name, scores, tt.want)
		}
	}
}
