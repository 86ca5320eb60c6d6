package onnxruntime_test

import (
	"bytes"
	"math"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/nets"
	"github.com/sightmesh/sightmesh/services/internal/nets/onnxfile"
	"github.com/sightmesh/sightmesh/services/internal/nets/onnxruntime"
)

// loadNet loads a net until the test ends.
func loadNet(t testing.TB, library *onnxruntime.Library, path string) *onnxruntime.Net {
	t.Helper()
	net, err := library.Load(path, onnxruntime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	return net
}

// sumFile writes a net that adds 1, 2 and 3 to each row of three numbers. The number of
// rows is dynamic.
func sumFile(t testing.TB) string {
	return netFile(t,
		[]onnx{node("Add", []string{"x", "one"}, "sum"), node("Identity", []string{"x"}, "same")},
		[]onnx{constant("one", []int{3}, []float32{1, 2, 3})},
		[]onnx{value("x", typeFloat, -1, 3)},
		[]onnx{value("sum", typeFloat, -1, 3), value("same", typeFloat, -1, 3)})
}

func TestNet_DescribesInputAndOutputs(t *testing.T) {
	net := loadNet(t, openOrSkip(t), sumFile(t))
	inputs, outputs := net.Inputs(), net.Outputs()
	if want := []nets.Input{{Name: "x", Shape: []int{-1, 3}}}; !reflect.DeepEqual(inputs, want) {
		t.Errorf("inputs are %v, want %v", inputs, want)
	}
	want := []nets.Output{{Name: "sum", Shape: []int{-1, 3}}, {Name: "same", Shape: []int{-1, 3}}}
	if !reflect.DeepEqual(outputs, want) {
		t.Errorf("outputs are %v, want %v", outputs, want)
	}
}

func TestNet_RunsWithADynamicDimension(t *testing.T) {
	net := loadNet(t, openOrSkip(t), sumFile(t))
	for _, rows := range []int{1, 4, 2} {
		in := nets.NewTensor(rows, 3)
		for i := range in.Data {
			in.Data[i] = float32(i)
		}
		out, err := net.Run(in)
		if err != nil {
			t.Fatal(err)
		}
		if len(out) != 2 {
			t.Fatalf("%d outputs, not both", len(out))
		}
		if !slices.Equal(out[0].Shape, []int{rows, 3}) {
			t.Fatalf("shape is %v with %d rows", out[0].Shape, rows)
		}
		for i, v := range out[0].Data {
			if want := in.Data[i] + float32(i%3+1); v != want {
				t.Fatalf("number %d is %v, not %v", i, v, want)
			}
		}
		if !slices.Equal(out[1].Data, in.Data) {
			t.Fatalf("the second output is %v, not %v", out[1].Data, in.Data)
		}
	}
}

func TestNet_ReturnsTheNamedOutputs(t *testing.T) {
	net := loadNet(t, openOrSkip(t), sumFile(t))
	out, err := net.Run(nets.NewTensor(1, 3), "same", "sum", "same")
	if err != nil {
		t.Fatal(err)
	}
	want := [][]float32{{0, 0, 0}, {1, 2, 3}, {0, 0, 0}}
	for i := range want {
		if !slices.Equal(out[i].Data, want[i]) {
			t.Errorf("output %d is %v, not %v", i, out[i].Data, want[i])
		}
	}
}

func TestNet_LaterRunKeepsEarlierResult(t *testing.T) {
	net := loadNet(t, openOrSkip(t), sumFile(t))
	first, err := net.Run(nets.NewTensor(1, 3), "sum")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := net.Run(nets.Tensor{Shape: []int{1, 3}, Data: []float32{7, 7, 7}}, "sum"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(first[0].Data, []float32{1, 2, 3}) {
		t.Errorf("a later run changed the result to %v", first[0].Data)
	}
}

func TestNet_ConvertsOutputsToFloat32(t *testing.T) {
	elements := map[string]uint64{"float64": typeDouble, "float16": typeFloat16, "int64": typeInt64,
		"int32": typeInt32, "int8": typeInt8, "uint8": typeUint8, "bool": typeBool}
	var nodes, outputs []onnx
	for name, element := range elements {
		nodes = append(nodes, cast(name, element))
		outputs = append(outputs, value(name, element, -1))
	}
	net := loadNet(t, openOrSkip(t), netFile(t, nodes, nil, []onnx{value("x", typeFloat, -1)}, outputs))
	in := []float32{0, 1, 2.5, 65504, -2, 6.1e-5, 6e-8}
	for name, want := range map[string][]float32{
		"float64": in,
		// Among them the largest number, a normal number near the smallest normal one, and
		// the smallest subnormal one.
		"float16": {0, 1, 2.5, 65504, -2, 1023.0 / (1 << 24), 1.0 / (1 << 24)},
		"int64":   {0, 1, 2, 65504, -2, 0, 0},
		"int32":   {0, 1, 2, 65504, -2, 0, 0},
		"bool":    {0, 1, 1, 1, 1, 1, 1},
	} {
		out, err := net.Run(nets.Tensor{Shape: []int{len(in)}, Data: in}, name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(out[0].Data, want) {
			t.Errorf("%s: %v, not %v", name, out[0].Data, want)
		}
	}
	out, err := net.Run(nets.Tensor{Shape: []int{2}, Data: []float32{3, 100}}, "int8", "uint8")
	if err != nil {
		t.Fatal(err)
	}
	for i := range out {
		if !slices.Equal(out[i].Data, []float32{3, 100}) {
			t.Errorf("eight bits: %v", out[i].Data)
		}
	}
	out, err = net.Run(nets.Tensor{Shape: []int{2}, Data: []float32{1e9, float32(math.NaN())}}, "float16")
	if err != nil {
		t.Fatal(err)
	}
	if got := out[0].Data[0]; !math.IsInf(float64(got), 1) {
		t.Errorf("1e9 is converted to %v, want +Inf", got)
	}
	if got := out[0].Data[1]; !math.IsNaN(float64(got)) {
		t.Errorf("NaN is converted to %v, want NaN", got)
	}
}

// TestNet_ProductsOf8BitsAreExact multiplies the largest numbers of 8 bits, as a quantized network does. Without the
// option of the library, their sums overflow on some processors.
func TestNet_ProductsOf8BitsAreExact(t *testing.T) {
	const rows, columns = 64, 16
	weights := onnx{}.int(2, typeInt8).string(8, "w").int(1, rows).int(1, columns).
		bytes(9, bytes.Repeat([]byte{127}, rows*columns))
	zero := func(name string, element uint64) onnx {
		return onnx{}.int(2, element).string(8, name).bytes(9, []byte{0})
	}
	net := loadNet(t, openOrSkip(t), netFile(t,
		[]onnx{cast("a", typeUint8), node("MatMulInteger", []string{"a", "w", "a zero", "w zero"}, "y")},
		[]onnx{weights, zero("a zero", typeUint8), zero("w zero", typeInt8)},
		[]onnx{value("x", typeFloat, 1, rows)}, []onnx{value("y", typeInt32, 1, columns)}))
	out, err := net.Run(nets.Tensor{Shape: []int{1, rows}, Data: slices.Repeat([]float32{255}, rows)})
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Repeat([]float32{rows * 255 * 127}, columns); !slices.Equal(out[0].Data, want) {
		t.Errorf("got %v, want %v", out[0].Data, want)
	}
}

func TestNet_ReturnsAnEmptyOutput(t *testing.T) {
	net := loadNet(t, openOrSkip(t), netFile(t, []onnx{node("NonZero", []string{"x"}, "at")}, nil,
		[]onnx{value("x", typeFloat, 4)}, []onnx{value("at", typeInt64, 1, -1)}))
	out, err := net.Run(nets.NewTensor(4))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(out[0].Shape, []int{1, 0}) {
		t.Errorf("shape is %v", out[0].Shape)
	}
}

func TestNet_RejectsAnInputThatDoesNotFit(t *testing.T) {
	net := loadNet(t, openOrSkip(t), sumFile(t))
	for name, c := range map[string]struct {
		in   nets.Tensor
		want string
	}{
		"dimension": {nets.NewTensor(2, 4), `input "x" has shape [-1 3]; [2 4] was given`},
		"rank":      {nets.NewTensor(1, 2, 3), `input "x" has shape [-1 3]; [1 2 3] was given`},
		"empty":     {nets.NewTensor(0, 3), `input "x" has shape [-1 3]; [0 3] was given`},
		"negative":  {nets.Tensor{Shape: []int{-1, 3}, Data: make([]float32, 3)}, `[-1 3] was given`},
		"nothing":   {nets.Tensor{}, `input "x" has shape [-1 3]; [] was given`},
		"data": {nets.Tensor{Shape: []int{2, 3}, Data: make([]float32, 5)},
			`input "x": shape [2 3] needs 6 numbers; 5 were given`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := net.Run(c.in)
			checkError(t, err, "test.onnx", c.want)
		})
	}
}

func TestNet_RejectsAnUnknownOutput(t *testing.T) {
	net := loadNet(t, openOrSkip(t), sumFile(t))
	_, err := net.Run(nets.NewTensor(1, 3), "sum", "boxes")
	checkError(t, err, `no output "boxes"; the net has "sum", "same"`)
}

func TestNet_RejectsAnOutputOfStrings(t *testing.T) {
	net := loadNet(t, openOrSkip(t), netFile(t, []onnx{cast("text", typeString), cast("number", typeInt32)}, nil,
		[]onnx{value("x", typeFloat, 2)}, []onnx{value("text", typeString, 2), value("number", typeInt32, 2)}))
	_, err := net.Run(nets.NewTensor(2), "text")
	checkError(t, err, `output "text": it is of string, which is not supported`)
	if _, err := net.Run(nets.NewTensor(2), "number"); err != nil {
		t.Errorf("the other output: %v", err)
	}
}

func TestNet_ReturnsTheErrorOfTheLibrary(t *testing.T) {
	// Three rows of 4 cannot be reshaped into this, which only the run finds out.
	shape := onnx{}.int(2, typeInt64).string(8, "shape").int(1, 2).
		bytes(9, []byte{8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0})
	net := loadNet(t, openOrSkip(t), netFile(t, []onnx{node("Reshape", []string{"x", "shape"}, "y")}, []onnx{shape},
		[]onnx{value("x", typeFloat, -1, 4)}, []onnx{value("y", typeFloat, 8, 2)}))
	_, err := net.Run(nets.NewTensor(3, 4))
	checkError(t, err, "test.onnx on [3 4]", "Reshape")
	if _, err := net.Run(nets.NewTensor(4, 4)); err != nil {
		t.Errorf("a valid input afterwards: %v", err)
	}
}

func TestNet_RejectsARunAfterClose(t *testing.T) {
	net := loadNet(t, openOrSkip(t), sumFile(t))
	net.Close()
	net.Close()
	_, err := net.Run(nets.NewTensor(1, 3))
	checkError(t, err, "the net is closed")
}

func TestLoad_RejectsUnsupportedInputs(t *testing.T) {
	library := openOrSkip(t)
	for name, c := range map[string]struct {
		inputs []onnx
		want   string
	}{
		"two inputs": {[]onnx{value("x", typeFloat, 1), value("y", typeFloat, 1)}, "the net has 2 inputs; it must have one"},
		"bytes":      {[]onnx{value("x", typeUint8, 1)}, `input "x" is of uint8; it must be of float32`},
	} {
		t.Run(name, func(t *testing.T) {
			element := uint64(typeFloat)
			if name == "bytes" {
				element = typeUint8
			}
			path := netFile(t, []onnx{node("Identity", []string{"x"}, "out")}, nil, c.inputs, []onnx{value("out", element, 1)})
			_, err := library.Load(path, onnxruntime.Options{})
			checkError(t, err, path, c.want)
		})
	}
}

func TestLoad_RejectsAnUnknownOperator(t *testing.T) {
	path := netFile(t, []onnx{node("Telepathy", []string{"x"}, "y")}, nil,
		[]onnx{value("x", typeFloat, 1)}, []onnx{value("y", typeFloat, 1)})
	_, err := openOrSkip(t).Load(path, onnxruntime.Options{})
	checkError(t, err, path, "Telepathy")
}

func TestLoad_RejectsAMissingFile(t *testing.T) {
	_, err := openOrSkip(t).Load("/nonexistent/net.onnx", onnxruntime.Options{})
	checkError(t, err, "/nonexistent/net.onnx", "doesn't exist")
}

func TestLoad_RejectsUnavailableProviders(t *testing.T) {
	library, path := openOrSkip(t), sumFile(t)
	for name, c := range map[string]struct {
		provider lane.Provider
		want     string
	}{
		"unknown": {lane.Provider{Name: "gpu"}, `provider "gpu": unknown; known are cpu, cuda, tensorrt`},
		"device":  {lane.Provider{Name: "cuda", Device: -1}, `provider "cuda": device is -1`},
		"missing": {lane.Provider{Name: "tensorrt"}, "has no TensorrtExecutionProvider, only "},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "missing" && slices.Contains(library.Providers(), "TensorrtExecutionProvider") {
				t.Skip("the library has TensorRT")
			}
			_, err := library.Load(path, onnxruntime.Options{Providers: []lane.Provider{c.provider}})
			checkError(t, err, path, c.want)
		})
	}
}

func TestLoad_AcceptsTheCPUByName(t *testing.T) {
	net, err := openOrSkip(t).Load(sumFile(t), onnxruntime.Options{Providers: []lane.Provider{{Name: "cpu"}}})
	if err != nil {
		t.Fatal(err)
	}
	net.Close()
}

func TestNet_LeaksNoMemory(t *testing.T) {
	// The weights have 1 MiB, the outputs up to half a MiB. If they leaked, 200 rounds would
	// use 200 MiB more for weights, and 53 MiB more for outputs.
	const side, rounds, bound = 512, 200, 24 << 20
	library := openOrSkip(t)
	path := netFile(t, []onnx{node("MatMul", []string{"x", "w"}, "y")},
		[]onnx{constant("w", []int{side, side}, make([]float32, side*side))},
		[]onnx{value("x", typeFloat, -1, side)}, []onnx{value("y", typeFloat, -1, side)})
	loadAndRun := func() {
		for i := range rounds {
			net, err := library.Load(path, onnxruntime.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := net.Run(nets.NewTensor(16*(i%16+1), side)); err != nil {
				t.Fatal(err)
			}
			if _, err := net.Run(nets.NewTensor(1, 1)); err == nil {
				t.Fatal("a wrong shape was accepted")
			}
			net.Close()
		}
	}
	loadAndRun() // warms up the allocators of Go and C
	before := resident(t)
	loadAndRun()
	after := resident(t)
	t.Logf("resident: %d MiB, %d rounds later %d MiB", before>>20, rounds, after>>20)
	if after > before+bound {
		t.Errorf("%d rounds leaked %d MiB", rounds, (after-before)>>20)
	}
}

// resident returns the resident memory of the process in bytes, after Go has returned
// its free memory.
func resident(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(string(bytes.Fields(statm)[1]))
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// checkError checks that err contains each of want.
func checkError(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// reluFile writes a net that declares a fixed size for its input, its output and the value
// between them.
func reluFile(t testing.TB) string {
	return netFile(t,
		[]onnx{node("Relu", []string{"x"}, "mid"), node("Neg", []string{"mid"}, "y")}, nil,
		[]onnx{value("x", typeFloat, 1, 3, 4, 4)}, []onnx{value("y", typeFloat, 1, 3, 4, 4)})
}

func TestLoadBytes_ResizedFile(t *testing.T) {
	library, path := openOrSkip(t), reluFile(t)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if file, err = onnxfile.Resize(file, 2, 6); err != nil {
		t.Fatal(err)
	}
	net, err := library.LoadBytes(path, file, onnxruntime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	clear(file) // the library must have copied it
	if in := net.Inputs()[0]; !slices.Equal(in.Shape, []int{1, 3, 2, 6}) {
		t.Errorf("the input is %v", in)
	}
	if out := net.Outputs()[0]; !slices.Equal(out.Shape, []int{1, 3, 2, 6}) {
		t.Errorf("the output is %v", out)
	}
	in := nets.NewTensor(1, 3, 2, 6)
	in.Data[35] = 2
	out, err := net.Run(in)
	if err != nil {
		t.Fatal(err)
	}
	if last := out[0].Data[35]; last != -2 {
		t.Errorf("the last number is %v, want -2", last)
	}
	_, err = net.Run(nets.NewTensor(1, 3, 4, 4))
	checkError(t, err, path, `input "x" has shape [1 3 2 6]; [1 3 4 4] was given`)
}

func TestLoadBytes_RejectsAFileThatIsNotANet(t *testing.T) {
	for _, file := range [][]byte{nil, []byte("<!doctype html>")} {
		_, err := openOrSkip(t).LoadBytes("/models/x.onnx", file, onnxruntime.Options{})
		checkError(t, err, "load /models/x.onnx: ")
	}
}
