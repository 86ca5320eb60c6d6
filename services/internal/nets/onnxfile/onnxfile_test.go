package onnxfile

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

const realdata = "../../../../../shared/realdata"

// message returns a message of fields.
func message(fields ...[]byte) []byte { return slices.Concat(fields...) }

// nested returns a field with a message of fields.
func nested(number protowire.Number, fields ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), message(fields...))
}

// text returns a field with a string.
func text(number protowire.Number, s string) []byte { return nested(number, []byte(s)) }

// count returns a field with a number.
func count(number protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), n)
}

const (
	graphNode = 1
	floats    = 1 // the type of elements
)

// typed returns the fields of an input, an output or another value, with a shape unless
// there are no dimensions.
func typed(name string, dims ...[]byte) []byte {
	tensor := [][]byte{count(1, floats)}
	if len(dims) > 0 {
		tensor = append(tensor, nested(typeTensorShape, dims...))
	}
	return message(text(valueInfoName, name), nested(valueInfoType, nested(typeTensor, tensor...)), text(3, "about "+name))
}

// dims returns dimensions of these numbers.
func dims(numbers ...uint64) [][]byte {
	var all [][]byte
	for _, n := range numbers {
		all = append(all, nested(shapeDim, count(dimValue, n)))
	}
	return all
}

var (
	// long is a number that an encoder would write in one byte: what is not changed stays
	// as it is.
	long     = []byte{0x08, 0x86, 0x80, 0x00}
	node     = nested(graphNode, text(1, "images"), text(2, "mid"), text(4, "Relu"))
	weight   = nested(graphInitializer, count(1, 2), text(tensorName, "w"), text(9, "12345678"))
	images   = nested(graphInput, typed("images", dims(1, 3, 416, 416)...))
	declared = nested(graphValueInfo, typed("mid", dims(1, 8, 208, 208)...))
	output   = nested(graphOutput, typed("output", dims(1, 3549, 85)...))
	bare     = nested(graphOutput, typed("output"))
	opset    = nested(8, count(2, 11))
)

// TestResize compares every byte.
func TestResize(t *testing.T) {
	t.Parallel()
	resized := nested(graphInput, typed("images", dims(1, 3, 608, 320)...))
	weightInput := nested(graphInput, typed("w", dims(8, 3, 3, 3)...))
	named := func(dim ...[]byte) []byte { return nested(shapeDim, dim...) }
	const meaning = 3 // field of a dimension
	for name, tt := range map[string]struct{ file, want []byte }{
		"all": {
			message(long, nested(modelGraph, node, weight, images, output, declared, text(2, "main"), declared), opset),
			message(long, nested(modelGraph, node, weight, resized, bare, text(2, "main")), opset),
		},
		"weights that are inputs": {
			nested(modelGraph, weightInput, images, output, weight),
			nested(modelGraph, weightInput, resized, bare, weight),
		},
		"dimensions with names": {
			nested(modelGraph, nested(graphInput, typed("images", named(text(dimParam, "batch")), named(count(dimValue, 3)),
				named(text(dimParam, "height"), text(meaning, "DATA_FEATURE")), named()))),
			nested(modelGraph, nested(graphInput, typed("images", named(text(dimParam, "batch")), named(count(dimValue, 3)),
				named(text(meaning, "DATA_FEATURE"), count(dimValue, 608)), named(count(dimValue, 320))))),
		},
		"outputs that are no tensors": {
			nested(modelGraph, images, nested(graphOutput, text(valueInfoName, "list"), nested(valueInfoType, nested(4)))),
			nested(modelGraph, resized, nested(graphOutput, text(valueInfoName, "list"), nested(valueInfoType, nested(4)))),
		},
		"a graph in two pieces": {
			message(nested(modelGraph, images, declared), nested(modelGraph, weightInput, weight, output)),
			message(nested(modelGraph, resized), nested(modelGraph, weightInput, weight, bare)),
		},
	} {
		before := bytes.Clone(tt.file)
		got, err := Resize(tt.file, 608, 320)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(got, tt.want) {
			t.Errorf("%s:\n%q, want\n%q", name, got, tt.want)
		}
		if !bytes.Equal(tt.file, before) {
			t.Errorf("%s: the file itself was changed", name)
		}
	}
}

func TestResize_Rejects(t *testing.T) {
	t.Parallel()
	location := nested(tensorExternalData, text(1, "location"), text(2, "w.bin"))
	outside := nested(graphInitializer, text(tensorName, "w"), location)
	weightInput := nested(graphInput, typed("w", dims(1)...))
	input := func(dims ...[]byte) []byte { return nested(modelGraph, nested(graphInput, typed("x", dims...))) }
	const damaged = "it is no ONNX file, or damaged: "
	for name, tt := range map[string]struct {
		file []byte
		want string
	}{
		"nothing":             {nil, "it has 0 inputs, want one"},
		"only weights":        {nested(modelGraph, weight, weightInput), "it has 0 inputs, want one"},
		"two inputs":          {nested(modelGraph, images, images), "it has 2 inputs, want one"},
		"no shape":            {input(), `input "x": it is declared with 0 dimensions, want 4`},
		"three dimensions":    {input(dims(3, 4, 5)...), `input "x": it is declared with 3 dimensions, want 4`},
		"five dimensions":     {input(dims(1, 3, 4, 5, 6)...), `input "x": it is declared with 5 dimensions, want 4`},
		"a graph of a number": {count(modelGraph, 5), "it has 0 inputs, want one"},
		"weights outside":     {nested(modelGraph, images, outside), "it has weights in other files, want all in one"},
		"cut":                 {message(opset, images[:len(images)-3]), damaged + "field 11: unexpected EOF"},
		"cut within":          {nested(modelGraph, images[:len(images)-3]), damaged + "field 11: unexpected EOF"},
		"a cut height": {
			input(nested(shapeDim), nested(shapeDim), nested(shapeDim, []byte{8}), nested(shapeDim)),
			`input "x": ` + damaged + "field 1: unexpected EOF",
		},
		"text":        {[]byte("<!doctype html><title>not found</title>"), damaged},
		"endless tag": {bytes.Repeat([]byte{0xff}, 20), damaged},
	} {
		got, err := Resize(tt.file, 608, 608)
		if err == nil {
			t.Errorf("%s: no error, but %q", name, got)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestResize_OfRealFiles keeps what computes in networks of others, which are in versions
// 4 to 8 of the format.
func TestResize_OfRealFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(realdata, "models/*/*.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("not run without ../shared/realdata/models")
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			resized, err := Resize(file, 640, 320)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Resize(resized, 640, 320)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again, resized) {
				t.Error("changed again, the file is another one")
			}
			for _, part := range []protowire.Number{graphNode, graphInitializer} {
				if a, b := parts(t, file, part), parts(t, resized, part); !bytes.Equal(a, b) {
					t.Errorf("field %d of the graph: %d bytes, were %d", part, len(b), len(a))
				}
			}
		})
	}
}

// parts returns all fields of a graph that have a number, one after the other.
func parts(t *testing.T, file []byte, number protowire.Number) []byte {
	t.Helper()
	var all []byte
	for f, err := range fields(file, modelGraph, number) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f.raw...)
	}
	return all
}

func TestResize_OfHostileFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(realdata, "hostile/models/*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("not run without ../shared/realdata/hostile/models")
	}
	// Networks, though useless or dynamic ones.
	networks := []string{"nan_weights.onnx", "real_dynamic_shape_yunet.onnx"}
	for _, path := range files {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Resize(file, 640, 640)
		if network := slices.Contains(networks, filepath.Base(path)); network != (err == nil) {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
}

// FuzzResize: whatever the file is, it is refused or resized, and then to be resized again
// to the same.
func FuzzResize(f *testing.F) {
	f.Add(message(long, nested(modelGraph, node, weight, images, output, declared), opset), 608, 320)
	f.Add(nested(modelGraph, images, images), 1, 1)
	f.Add([]byte("\x3b\x3b\x3c\x3c"), 1, 1) // groups
	f.Fuzz(func(t *testing.T, file []byte, height, width int) {
		resized, err := Resize(file, height, width)
		if err != nil {
			return
		}
		if len(parts(t, resized, graphValueInfo)) > 0 {
			t.Error("values are declared")
		}
		again, err := Resize(resized, height, width)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, resized) {
			t.Errorf("changed again, the file is another one:\n%q\n%q", again, resized)
		}
	})
}
