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

// message returns a message with these fields.
func message(fields ...[]byte) []byte { return slices.Concat(fields...) }

// sub returns a field whose value is a message with these fields.
func sub(number protowire.Number, fields ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), message(fields...))
}

// str returns a field whose value is a string.
func str(number protowire.Number, s string) []byte { return sub(number, []byte(s)) }

// num returns a field whose value is a number.
func num(number protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), n)
}

const (
	graphNode = 1
	floats    = 1 // the type of elements
)

// valueInfo returns the fields of a ValueInfoProto: an input, an output or an intermediate
// value. Without dimensions it has no shape.
func valueInfo(name string, dims ...[]byte) []byte {
	tensor := [][]byte{num(1, floats)}
	if len(dims) > 0 {
		tensor = append(tensor, sub(typeTensorShape, dims...))
	}
	valueType := sub(valueInfoType, sub(typeTensor, tensor...))
	return message(str(valueInfoName, name), valueType, str(3, "about "+name))
}

// dims returns dimensions with these values.
func dims(numbers ...uint64) [][]byte {
	var all [][]byte
	for _, n := range numbers {
		all = append(all, sub(shapeDim, num(dimValue, n)))
	}
	return all
}

var (
	// longVarint is a varint of three bytes that an encoder would write as one byte. It shows
	// that unchanged fields are not encoded again.
	longVarint = []byte{0x08, 0x86, 0x80, 0x00}
	node       = sub(graphNode, str(1, "images"), str(2, "mid"), str(4, "Relu"))
	weight     = sub(graphInitializer, num(1, 2), str(tensorName, "w"), str(9, "12345678"))
	images     = sub(graphInput, valueInfo("images", dims(1, 3, 416, 416)...))
	declared   = sub(graphValueInfo, valueInfo("mid", dims(1, 8, 208, 208)...))
	output     = sub(graphOutput, valueInfo("output", dims(1, 3549, 85)...))
	bare       = sub(graphOutput, valueInfo("output"))
	opset      = sub(8, num(2, 11))
)

// TestResize compares every byte of the files.
func TestResize(t *testing.T) {
	t.Parallel()
	resized := sub(graphInput, valueInfo("images", dims(1, 3, 608, 320)...))
	weightInput := sub(graphInput, valueInfo("w", dims(8, 3, 3, 3)...))
	dimension := func(dim ...[]byte) []byte { return sub(shapeDim, dim...) }
	const meaning = 3 // the field denotation of a dimension
	for name, tt := range map[string]struct{ file, want []byte }{
		"all": {
			message(longVarint, sub(modelGraph, node, weight, images, output, declared, str(2, "main"), declared), opset),
			message(longVarint, sub(modelGraph, node, weight, resized, bare, str(2, "main")), opset),
		},
		"weights that are inputs": {
			sub(modelGraph, weightInput, images, output, weight),
			sub(modelGraph, weightInput, resized, bare, weight),
		},
		"dimensions with names": {
			sub(modelGraph, sub(graphInput, valueInfo("images", dimension(str(dimParam, "batch")), dimension(num(dimValue, 3)),
				dimension(str(dimParam, "height"), str(meaning, "DATA_FEATURE")), dimension()))),
			sub(modelGraph, sub(graphInput, valueInfo("images", dimension(str(dimParam, "batch")), dimension(num(dimValue, 3)),
				dimension(str(meaning, "DATA_FEATURE"), num(dimValue, 608)), dimension(num(dimValue, 320))))),
		},
		"outputs that are no tensors": {
			sub(modelGraph, images, sub(graphOutput, str(valueInfoName, "list"), sub(valueInfoType, sub(4)))),
			sub(modelGraph, resized, sub(graphOutput, str(valueInfoName, "list"), sub(valueInfoType, sub(4)))),
		},
		"a graph in two pieces": {
			message(sub(modelGraph, images, declared), sub(modelGraph, weightInput, weight, output)),
			message(sub(modelGraph, resized), sub(modelGraph, weightInput, weight, bare)),
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
			t.Errorf("%s: Resize changed its argument", name)
		}
	}
}

func TestResize_Rejects(t *testing.T) {
	t.Parallel()
	location := sub(tensorExternalData, str(1, "location"), str(2, "w.bin"))
	outside := sub(graphInitializer, str(tensorName, "w"), location)
	weightInput := sub(graphInput, valueInfo("w", dims(1)...))
	input := func(dims ...[]byte) []byte { return sub(modelGraph, sub(graphInput, valueInfo("x", dims...))) }
	const damaged = "not an ONNX file, or damaged: "
	for name, tt := range map[string]struct {
		file []byte
		want string
	}{
		"nothing":             {nil, "it has 0 inputs, want one"},
		"only weights":        {sub(modelGraph, weight, weightInput), "it has 0 inputs, want one"},
		"two inputs":          {sub(modelGraph, images, images), "it has 2 inputs, want one"},
		"no shape":            {input(), `input "x": it is declared with 0 dimensions, want 4`},
		"three dimensions":    {input(dims(3, 4, 5)...), `input "x": it is declared with 3 dimensions, want 4`},
		"five dimensions":     {input(dims(1, 3, 4, 5, 6)...), `input "x": it is declared with 5 dimensions, want 4`},
		"a graph of a number": {num(modelGraph, 5), "it has 0 inputs, want one"},
		"weights outside":     {sub(modelGraph, images, outside), "it has weights in other files, want all in one file"},
		"cut":                 {message(opset, images[:len(images)-3]), damaged + "field 11: unexpected EOF"},
		"cut within":          {sub(modelGraph, images[:len(images)-3]), damaged + "field 11: unexpected EOF"},
		"a cut height": {
			input(sub(shapeDim), sub(shapeDim), sub(shapeDim, []byte{8}), sub(shapeDim)),
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

// TestResize_OfRealFiles resizes published networks, which have versions 4 to 8 of the
// format: their nodes and weights must stay the same.
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
				t.Error("a second Resize changed the file again")
			}
			for _, part := range []protowire.Number{graphNode, graphInitializer} {
				if a, b := rawFields(t, file, part), rawFields(t, resized, part); !bytes.Equal(a, b) {
					t.Errorf("field %d of the graph: %d bytes, were %d", part, len(b), len(a))
				}
			}
		})
	}
}

// rawFields returns all fields of a graph with this number, concatenated.
func rawFields(t *testing.T, file []byte, number protowire.Number) []byte {
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
	// These are valid networks, with useless weights or a dynamic shape.
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

// FuzzResize checks that any file is rejected or resized, and that a second Resize of a
// resized file changes nothing.
func FuzzResize(f *testing.F) {
	f.Add(message(longVarint, sub(modelGraph, node, weight, images, output, declared), opset), 608, 320)
	f.Add(sub(modelGraph, images, images), 1, 1)
	f.Add([]byte("\x3b\x3b\x3c\x3c"), 1, 1) // groups
	f.Fuzz(func(t *testing.T, file []byte, height, width int) {
		resized, err := Resize(file, height, width)
		if err != nil {
			return
		}
		if len(rawFields(t, resized, graphValueInfo)) > 0 {
			t.Error("the resized file still declares intermediate values")
		}
		again, err := Resize(resized, height, width)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, resized) {
			t.Errorf("a second Resize changed the file again:\n%q\n%q", again, resized)
		}
	})
}
