package onnxruntime_test

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// An onnx is a protobuf message of an .onnx file. The tests encode it by hand, so that they
// need no published net.
type onnx []byte

func (m onnx) int(field int, v uint64) onnx {
	return binary.AppendUvarint(binary.AppendUvarint(m, uint64(field)<<3), v)
}

func (m onnx) bytes(field int, v []byte) onnx {
	return append(binary.AppendUvarint(binary.AppendUvarint(m, uint64(field)<<3|2), uint64(len(v))), v...)
}

func (m onnx) string(field int, v string) onnx { return m.bytes(field, []byte(v)) }

// The element types that the tests use.
const (
	typeFloat   = 1
	typeUint8   = 2
	typeInt8    = 3
	typeInt32   = 6
	typeInt64   = 7
	typeString  = 8
	typeBool    = 9
	typeFloat16 = 10
	typeDouble  = 11
)

// netFile writes a net of these nodes, initializers, inputs and outputs, and returns its path.
func netFile(t testing.TB, nodes, initializers, inputs, outputs []onnx) string {
	t.Helper()
	graph := onnx{}.string(2, "test")
	for field, list := range map[int][]onnx{1: nodes, 5: initializers, 11: inputs, 12: outputs} {
		for _, m := range list {
			graph = graph.bytes(field, m)
		}
	}
	model := onnx{}.int(1, 8).bytes(8, onnx{}.int(2, 17)).bytes(7, graph)
	path := filepath.Join(t.TempDir(), "test.onnx")
	if err := os.WriteFile(path, model, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// node returns a node that applies an operator.
func node(operator string, inputs []string, output string, attributes ...onnx) onnx {
	m := onnx{}
	for _, in := range inputs {
		m = m.string(1, in)
	}
	m = m.string(2, output).string(4, operator)
	for _, a := range attributes {
		m = m.bytes(5, a)
	}
	return m
}

// cast returns a node that converts x to an element type.
func cast(output string, to uint64) onnx {
	return node("Cast", []string{"x"}, output, onnx{}.string(1, "to").int(20, 2).int(3, to))
}

// value declares an input or output. A dimension of -1 means any size.
func value(name string, element uint64, shape ...int) onnx {
	dims := onnx{}
	for _, d := range shape {
		if d < 0 {
			dims = dims.bytes(1, onnx{}.string(2, "any"))
		} else {
			dims = dims.bytes(1, onnx{}.int(1, uint64(d)))
		}
	}
	return onnx{}.string(1, name).bytes(2, onnx{}.bytes(1, onnx{}.int(1, element).bytes(2, dims)))
}

// constant returns an initializer of float32.
func constant(name string, shape []int, data []float32) onnx {
	m := onnx{}.int(2, typeFloat).string(8, name)
	for _, d := range shape {
		m = m.int(1, uint64(d))
	}
	raw := []byte{}
	for _, v := range data {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return m.bytes(9, raw)
}
