// Package onnxfile changes the input size that an .onnx file declares. It does no I/O.
//
// A file is one Protocol Buffers message, a ModelProto of
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. The package parses only the
// messages that lead to a changed field:
//
//	ModelProto
//	└─ graph
//	   ├─ initializer          read: the names of weights
//	   ├─ input                the one that is not a weight
//	   │  └─ type … dim        changed: height and width
//	   ├─ output
//	   │  └─ type … shape      removed
//	   └─ value_info           removed: types and shapes of intermediate values
package onnxfile

import (
	"errors"
	"fmt"
	"iter"

	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of fields, named by message and field.
const (
	modelGraph = 7

	graphInitializer = 5
	graphInput       = 11
	graphOutput      = 12
	graphValueInfo   = 13

	tensorName         = 8
	tensorExternalData = 13

	valueInfoName = 1
	valueInfoType = 2

	typeTensor      = 1
	typeTensorShape = 2

	shapeDim = 1

	dimValue = 1
	dimParam = 2
)

// Resize returns the file of a network with the declared shape of its one input changed to
// batch × channels × height × width. The declared shapes of the outputs and of intermediate
// values are removed, because they follow from the input. All other bytes stay as they are.
// Resize does not check whether the network can be computed in this size. All weights must
// be in the file.
func Resize(file []byte, height, width int) ([]byte, error) {
	file, err := resize(file, height, width)
	if err != nil {
		return nil, fmt.Errorf("change the input size of an ONNX file: %w", err)
	}
	return file, nil
}

func resize(file []byte, height, width int) ([]byte, error) {
	weights, err := weightNames(file)
	if err != nil {
		return nil, err
	}
	inputs := 0
	file, err = rewrite(file, func(f field) ([]byte, error) {
		name, err := valueName(f.value)
		// Before version 4 of the format, weights are declared as inputs too.
		if err != nil || weights[name] {
			return f.raw, err
		}
		inputs++
		input, err := resizeInput(f.value, height, width)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", name, err)
		}
		return f.withValue(input), nil
	}, modelGraph, graphInput)
	if err != nil {
		return nil, err
	}
	if inputs != 1 {
		return nil, fmt.Errorf("it has %d inputs, want one", inputs)
	}
	file, err = rewrite(file, removeField, modelGraph, graphOutput, valueInfoType, typeTensor, typeTensorShape)
	if err != nil {
		return nil, err
	}
	return rewrite(file, removeField, modelGraph, graphValueInfo)
}

// weightNames returns the names of the weights. Weights in other files are an error,
// because a network that is loaded from memory has no folder in which to find them.
func weightNames(file []byte) (map[string]bool, error) {
	names := make(map[string]bool)
	for f, err := range fields(file, modelGraph, graphInitializer, tensorName) {
		if err != nil {
			return nil, err
		}
		names[string(f.value)] = true
	}
	for _, err := range fields(file, modelGraph, graphInitializer, tensorExternalData) {
		if err != nil {
			return nil, err
		}
		return nil, errors.New("it has weights in other files, want all in one file")
	}
	return names, nil
}

// valueName returns the name of an input.
func valueName(value []byte) (string, error) {
	name := ""
	for f, err := range fields(value, valueInfoName) {
		if err != nil {
			return "", err
		}
		name = string(f.value)
	}
	return name, nil
}

// resizeInput sets the height and the width of an input.
func resizeInput(value []byte, height, width int) ([]byte, error) {
	n := 0
	value, err := rewrite(value, func(f field) ([]byte, error) {
		n++
		switch n {
		case 3:
			return setDim(f, height)
		case 4:
			return setDim(f, width)
		}
		return f.raw, nil
	}, valueInfoType, typeTensor, typeTensorShape, shapeDim)
	if err == nil && n != 4 {
		err = fmt.Errorf("it is declared with %d dimensions, want 4: batch, channels, height and width", n)
	}
	return value, err
}

// setDim returns a dimension with n as its value. It replaces the value or the name.
func setDim(f field, n int) ([]byte, error) {
	var dim []byte
	for part, err := range fields(f.value) {
		if err != nil {
			return nil, err
		}
		if part.number != dimValue && part.number != dimParam {
			dim = append(dim, part.raw...)
		}
	}
	dim = protowire.AppendTag(dim, dimValue, protowire.VarintType)
	return f.withValue(protowire.AppendVarint(dim, uint64(n))), nil
}

// field is a field of a message.
type field struct {
	number protowire.Number
	raw    []byte // the whole field, with its tag
	value  []byte // its message, string or bytes; nil for numbers
}

// withValue returns the encoded field with another value.
func (f field) withValue(value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, f.number, protowire.BytesType), value)
}

// fields yields the fields of a message at a path of field numbers, in their order; without
// a path it yields all fields. It stops after an error. A message that occurs twice counts
// as one message, as in all of Protocol Buffers.
func fields(message []byte, path ...protowire.Number) iter.Seq2[field, error] {
	return func(yield func(field, error) bool) {
		for len(message) > 0 {
			f, err := parseField(message)
			if err != nil {
				yield(field{}, err)
				return
			}
			message = message[len(f.raw):]
			switch {
			case len(path) == 0 || len(path) == 1 && f.number == path[0]:
				if !yield(f, nil) {
					return
				}
			case f.number == path[0]:
				for inner, err := range fields(f.value, path[1:]...) {
					if !yield(inner, err) || err != nil {
						return
					}
				}
			}
		}
	}
}

// rewrite returns a copy of a message in which each field at a path of field numbers is
// replaced by the bytes that change returns.
func rewrite(
	message []byte, change func(field) ([]byte, error), path ...protowire.Number,
) ([]byte, error) {
	out := make([]byte, 0, len(message))
	for f, err := range fields(message) {
		if err != nil {
			return nil, err
		}
		raw := f.raw
		switch {
		case f.number != path[0]:
		case len(path) == 1:
			raw, err = change(f)
		case f.value != nil:
			var inner []byte
			inner, err = rewrite(f.value, change, path[1:]...)
			raw = f.withValue(inner)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, raw...)
	}
	return out, nil
}

// removeField is a change function for [rewrite] that removes the field.
func removeField(field) ([]byte, error) { return nil, nil }

// parseField returns the first field of a message.
func parseField(message []byte) (field, error) {
	number, kind, tag := protowire.ConsumeTag(message)
	if tag < 0 {
		return field{}, fmt.Errorf("not an ONNX file, or damaged: %w", protowire.ParseError(tag))
	}
	n := protowire.ConsumeFieldValue(number, kind, message[tag:])
	if n < 0 {
		return field{}, fmt.Errorf("not an ONNX file, or damaged: field %d: %w", number, protowire.ParseError(n))
	}
	f := field{number: number, raw: message[:tag+n]}
	if kind == protowire.BytesType {
		f.value, _ = protowire.ConsumeBytes(message[tag:])
	}
	return f, nil
}
