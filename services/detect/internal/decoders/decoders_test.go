package decoders

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// described returns a model of an input of 64 × 32 pixels and three classes.
func described(kind string, o model.Output) *model.Model {
	m := &model.Model{Kind: kind, Output: o, Input: model.Input{Width: 64, Height: 32}, Classes: 3, ClassNames: []string{"a", "b", "c"}}
	if kind == YuNet {
		m.Classes, m.ClassNames = 1, []string{"face"}
	}
	return m
}

// decoderOf returns the decoder of a model.
func decoderOf(m *model.Model, outputs []string) (Decoder, error) {
	maker, err := New(m.Kind)
	if err != nil {
		return nil, err
	}
	return maker(m, outputs)
}

// Two boxes that every format can say: both lie in a cell of stride 16 and of stride 32.
var (
	one = Box{X0: 4, Y0: 2, X1: 24, Y1: 18, Score: 0.9, Class: 2}  // around 14, 10
	two = Box{X0: 36, Y0: 4, X1: 60, Y1: 28, Score: 0.6, Class: 1} // around 48, 16
)

// filled returns a tensor into which a function writes.
func filled(fill func(at func(indices ...int) *float32), shape ...int) nets.Tensor {
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

func set(values []float64, at func(i int) *float32) {
	for i, v := range values {
		*at(i) = float32(v)
	}
}

func (b Box) center() (cx, cy, w, h float64) {
	return (b.X0 + b.X1) / 2, (b.Y0 + b.Y1) / 2, b.X1 - b.X0, b.Y1 - b.Y0
}

func logit(p float64) float64 { return math.Log(p / (1 - p)) }

// formats are the outputs of networks that have found the boxes one and two.
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
	all["yolox"] = format{described(YOLO, model.Output{Format: "yolox", Strides: []int{16, 32}}), []nets.Tensor{
		filled(func(at func(...int) *float32) {
			for i, cell := range []struct{ row, column, line, stride int }{{0, 0, 0, 16}, {8 + 1, 1, 0, 32}} {
				b, s := both[i], float64(cell.stride)
				cx, cy, w, h := b.center()
				set([]float64{cx/s - float64(cell.column), cy/s - float64(cell.line), math.Log(w / s), math.Log(h / s), 1},
					func(k int) *float32 { return at(0, cell.row, k) })
				*at(0, cell.row, 5+b.Class) = float32(b.Score)
			}
		}, 1, 8+2, 8),
	}}
	all["yolov5"] = format{described(YOLO, model.Output{Format: "yolov5"}), []nets.Tensor{
		filled(func(at func(...int) *float32) {
			for i, b := range both {
				cx, cy, w, h := b.center()
				set([]float64{cx, cy, w, h, 0.5 * b.Score}, func(k int) *float32 { return at(0, 3*i, k) })
				*at(0, 3*i, 5+b.Class) = 2
			}
		}, 1, 7, 8),
	}}
	all["yolov8"] = format{described(YOLO, model.Output{Format: "yolov8"}), []nets.Tensor{
		filled(func(at func(...int) *float32) {
			for i, b := range both {
				cx, cy, w, h := b.center()
				set([]float64{cx, cy, w, h}, func(k int) *float32 { return at(0, k, 3*i) })
				*at(0, 4+b.Class, 3*i) = float32(b.Score)
			}
		}, 1, 7, 9),
	}}
	all["yolov10"] = format{described(YOLO, model.Output{Format: "yolov10"}), []nets.Tensor{
		filled(func(at func(...int) *float32) {
			for i, b := range both {
				set([]float64{b.X0, b.Y0, b.X1, b.Y1, b.Score, float64(b.Class)}, func(k int) *float32 { return at(0, 2*i, k) })
			}
		}, 1, 5, 6),
	}}
	all["fastestdet"] = format{described(YOLO, model.Output{Format: "fastestdet"}), []nets.Tensor{
		filled(func(at func(...int) *float32) { // 4 x 2 cells
			for i, cell := range [][2]int{{0, 0}, {3, 1}} {
				b := both[i]
				cx, cy, w, h := b.center()
				set([]float64{b.Score, math.Atanh(cx/64*4 - float64(cell[0])), math.Atanh(cy/32*2 - float64(cell[1])), logit(w / 64), logit(h / 32)},
					func(k int) *float32 { return at(0, k, cell[1], cell[0]) })
				*at(0, 5+b.Class, cell[1], cell[0]) = float32(b.Score) // score^0.6 * score^0.4
			}
		}, 1, 8, 2, 4),
	}}
	all["rtdetr"] = format{described(YOLO, model.Output{Format: "rtdetr"}), []nets.Tensor{
		filled(func(at func(...int) *float32) {
			for q := range 5 {
				set([]float64{-9, -9, -9}, func(k int) *float32 { return at(0, q, k) })
			}
			for i, b := range both {
				*at(0, 2*i, b.Class) = float32(logit(b.Score))
			}
		}, 1, 5, 3),
		filled(func(at func(...int) *float32) {
			for i, b := range both {
				cx, cy, w, h := b.center()
				set([]float64{cx / 64, cy / 32, w / 64, h / 32}, func(k int) *float32 { return at(0, 2*i, k) })
			}
		}, 1, 5, 4),
	}}
	all["ssd"] = format{described(SSD, model.Output{}), []nets.Tensor{
		filled(func(at func(...int) *float32) {
			for i, b := range both {
				set([]float64{0, float64(b.Class), b.Score, b.X0 / 64, b.Y0 / 32, b.X1 / 64, b.Y1 / 32},
					func(k int) *float32 { return at(0, 0, 2*i, k) })
			}
		}, 1, 1, 6, 7),
	}}
	all["ultraface corners"] = format{described(UltraFace, model.Output{Format: "corners"}), []nets.Tensor{
		filled(func(at func(...int) *float32) {
			for i, b := range both {
				*at(0, 2*i, b.Class) = float32(b.Score)
			}
		}, 1, 5, 3),
		filled(func(at func(...int) *float32) {
			for i, b := range both {
				set([]float64{b.X0 / 64, b.Y0 / 32, b.X1 / 64, b.Y1 / 32}, func(k int) *float32 { return at(0, 2*i, k) })
			}
		}, 1, 5, 4),
	}}
	// Priors: squares of 8 and 16 in 4 x 2 cells of stride 16, of 64 in 2 x 1 of stride 32.
	// The last is higher than the input, and cut.
	all["ultraface priors"] = format{
		described(UltraFace, model.Output{
			Format: "priors", Strides: []int{16, 32}, Priors: [][]float64{{8, 16}, {64}}, Variances: []float64{0.1, 0.2},
		}), []nets.Tensor{
			filled(func(at func(...int) *float32) {
				*at(0, 1, one.Class) = float32(one.Score)
				*at(0, 17, two.Class) = float32(two.Score)
			}, 1, 18, 3),
			filled(func(at func(...int) *float32) {
				for row, p := range map[int]struct{ prior, box Box }{1: {centered(8, 8, 16, 16), one}, 17: {centered(48, 16, 64, 32), two}} {
					px, py, pw, ph := p.prior.center()
					cx, cy, w, h := p.box.center()
					set([]float64{(cx - px) / pw / 0.1, (cy - py) / ph / 0.1, math.Log(w/pw) / 0.2, math.Log(h/ph) / 0.2},
						func(k int) *float32 { return at(0, row, k) })
				}
			}, 1, 18, 4),
		},
	}
	return all
}

// TestDecoder_FindsKnownBoxes writes two boxes as a network of each format does, and
// reads them.
func TestDecoder_FindsKnownBoxes(t *testing.T) {
	t.Parallel()
	for name, tt := range formats() {
		d, err := decoderOf(tt.model, []string{"out"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(d.Outputs()) != len(tt.outputs) {
			t.Fatalf("%s: asks for %q", name, d.Outputs())
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
			if o := overlap(got, want); o < 0.999 {
				t.Errorf("%s: box %d overlaps by %v: %+v, want %+v", name, i, o, got, want)
			}
			if got.Class != want.Class {
				t.Errorf("%s: box %d has class %d, want %d", name, i, got.Class, want.Class)
			}
			if math.Abs(got.Score-want.Score) > 1e-5 {
				t.Errorf("%s: box %d has score %v, want %v", name, i, got.Score, want.Score)
			}
		}
		if boxes, err := d.Decode(tt.outputs, 0.7); err != nil || len(boxes) != 1 {
			t.Errorf("%s: from 0.7 on %d boxes, %v, want 1", name, len(boxes), err)
		}
	}
}

// TestDecoder_RejectsShapes: outputs of another shape than declared are an error that
// names the output, and never read.
func TestDecoder_RejectsShapes(t *testing.T) {
	t.Parallel()
	for name, tt := range formats() {
		d, err := decoderOf(tt.model, []string{"out"})
		if err != nil {
			t.Fatal(err)
		}
		for i, output := range d.Outputs() {
			for _, shape := range [][]int{{}, {1}, {1, 1, 1, 1, 1}, {2, 9, 8}, {1, 3, 5}, {1, 1, 4, 6}} {
				outputs := slices.Clone(tt.outputs)
				outputs[i] = nets.NewTensor(shape...)
				if _, err := d.Decode(outputs, 0.3); err == nil || !strings.Contains(err.Error(), "output "+output+" has the shape") {
					t.Errorf("%s: %v of %s: %v, want an error", name, shape, output, err)
				}
			}
		}
	}
}

// TestDecoder_RejectsClasses: a network that names a class without a label is declared
// wrongly.
func TestDecoder_RejectsClasses(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"yolov10", "ssd"} {
		f := formats()[name]
		f.model.Classes, f.model.ClassNames = 2, []string{"a", "b"}
		d, err := decoderOf(f.model, []string{"out"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Decode(f.outputs, 0.3); err == nil || !strings.Contains(err.Error(), "has class 2") {
			t.Errorf("%s: %v, want an error that names class 2", name, err)
		}
	}
}

func TestYuNet_FindsFaceWithLandmarks(t *testing.T) {
	t.Parallel()
	m := described(YuNet, model.Output{Strides: []int{16, 32}})
	d, err := decoderOf(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"cls_16", "obj_16", "bbox_16", "kps_16", "cls_32", "obj_32", "bbox_32", "kps_32"}
	if !slices.Equal(d.Outputs(), want) {
		t.Fatalf("asks for %q, want %q", d.Outputs(), want)
	}
	var outputs []nets.Tensor
	for _, cells := range []int{8, 2} {
		for _, width := range []int{1, 1, 4, 10} {
			outputs = append(outputs, nets.NewTensor(1, cells, width))
		}
	}
	// In cell 1, 1 of stride 16: around 24, 20, 20 pixels wide and 12 high.
	const cell = 5
	outputs[0].Data[cell], outputs[1].Data[cell] = 0.81, 1.5 // above 1 counts as 1
	copy(outputs[2].Data[4*cell:], []float32{0.5, 0.25, float32(math.Log(20. / 16)), float32(math.Log(12. / 16))})
	copy(outputs[3].Data[10*cell:], []float32{0, 0, 1, 0, 0.5, 0.5, 0.25, 0.75, 0.75, 0.75})
	boxes, err := d.Decode(outputs, 0.5)
	if err != nil || len(boxes) != 1 {
		t.Fatalf("%d boxes, %v", len(boxes), err)
	}
	b := boxes[0]
	if overlap(b, Box{X0: 14, Y0: 14, X1: 34, Y1: 26}) < 0.999 || math.Abs(b.Score-0.9) > 1e-6 {
		t.Errorf("box %+v", b)
	}
	if marks := []Point{{16, 16}, {32, 16}, {24, 24}, {20, 28}, {28, 28}}; !slices.Equal(b.Landmarks, marks) {
		t.Errorf("landmarks %v, want %v", b.Landmarks, marks)
	}
	if len(d.Landmarks()) != len(b.Landmarks) {
		t.Errorf("%d names for %d landmarks", len(d.Landmarks()), len(b.Landmarks))
	}
	outputs[7] = nets.NewTensor(1, 2, 8)
	if _, err := d.Decode(outputs, 0.5); err == nil || !strings.Contains(err.Error(), "output kps_32 has the shape [1 2 8]") {
		t.Errorf("other landmarks: %v", err)
	}
}

// TestNew_NamesField says which field of model.yaml does not fit its kind.
func TestNew_NamesField(t *testing.T) {
	t.Parallel()
	priors := model.Output{Format: "priors", Strides: []int{8}, Priors: [][]float64{{8}}, Variances: []float64{0.1, 0.2}}
	for name, tt := range map[string]struct {
		kind    string
		change  func(*model.Model)
		outputs []string
		want    string
	}{
		"unknown kind":        {"oracle", func(*model.Model) {}, nil, `kind: "oracle"`},
		"unknown YOLO":        {YOLO, func(m *model.Model) { m.Output.Format = "yolov99" }, nil, `output.format: "yolov99"`},
		"no format":           {YOLO, func(*model.Model) {}, nil, `output.format: ""`},
		"several outputs":     {YOLO, func(m *model.Model) { m.Output.Format = "yolov8" }, []string{"a", "b"}, `output.names: missing, and the network has the outputs ["a" "b"]`},
		"too many names":      {YOLO, func(m *model.Model) { m.Output = model.Output{Format: "yolov8", Names: []string{"a", "b"}} }, []string{"a", "b"}, "output.names: 2 names, want 1"},
		"no classes":          {YOLO, func(m *model.Model) { m.Classes, m.ClassNames = 0, nil }, nil, "classes: 0"},
		"no labels":           {YOLO, func(m *model.Model) { m.ClassNames = nil }, nil, "labels: missing"},
		"one class of SSD":    {SSD, func(m *model.Model) { m.Classes, m.ClassNames = 1, []string{"a"} }, nil, "classes: 1"},
		"two classes of face": {YuNet, func(m *model.Model) { m.Classes, m.ClassNames = 2, []string{"a", "b"} }, nil, "classes: 2"},
		"names of YuNet":      {YuNet, func(m *model.Model) { m.Output.Names = []string{"a"} }, nil, "output.names: 1 names, want 12"},
		"no UltraFace":        {UltraFace, func(*model.Model) {}, nil, `output.format: ""`},
		"no priors":           {UltraFace, func(m *model.Model) { m.Output = priors; m.Output.Priors = nil }, nil, "output.priors"},
		"no variances":        {UltraFace, func(m *model.Model) { m.Output = priors; m.Output.Variances = nil }, nil, "output.variances"},
	} {
		m := described(tt.kind, model.Output{})
		tt.change(m)
		if _, err := decoderOf(m, tt.outputs); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
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
		"the better stays":    {[]Box{a, shifted}, 0.5, []float64{0.9}},
		"within the limit":    {[]Box{a, shifted}, 0.9, []float64{0.9, 0.5}},
		"classes are apart":   {[]Box{a, other}, 0.5, []float64{0.7, 0.5}},
		"no limit":            {[]Box{a, a}, 0, []float64{0.5, 0.5}},
		"boxes without place": {[]Box{a, {X0: nan, X1: 1, Y1: 1}, {X1: inf, Y1: 1}, {X0: 5, X1: 5, Y1: 5}, {X0: -inf, X1: inf, Y1: 1}}, 0.5, []float64{0.5}},
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
