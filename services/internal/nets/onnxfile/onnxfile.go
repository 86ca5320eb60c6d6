// Package onnxfile changes the sizes that an .onnx file declares. It is pure.
//
// A file is one message of Protocol Buffers, a ModelProto of
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Only the messages on the way to
// what is changed are taken apart:
//
//	ModelProto
//	└─ graph
//	   ├─ initializer          read: the names of weights
//	   ├─ input                the one that is no weight
//	   │  └─ type … dim        changed: height and width
//	   ├─ output
//	   │  └─ type … shape      removed
//	   └─ value_info           removed: types and shapes of what is computed between
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

// Resize returns the file of a network with its one input declared to be of batch ×
// channels × height × width. The shapes of its outputs and of all between are not declared
// any more: they follow. Everything else is as it was, byte for byte. Whether the network
// can be computed in this size is not looked at. The weights have to be in the file.
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
		return f.with(input), nil
	}, modelGraph, graphInput)
	if err != nil {
		return nil, err
	}
	if inputs != 1 {
		return nil, fmt.Errorf("it has %d inputs, want one", inputs)
	}
	file, err = rewrite(file, remove, modelGraph, graphOutput, valueInfoType, typeTensor, typeTensorShape)
	if err != nil {
		return nil, err
	}
	return rewrite(file, remove, modelGraph, graphValueInfo)
}

// weightNames returns the names of the weights, all of which have to be in the file: what
// is loaded from memory has no folder in which others would be found.
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
		return nil, errors.New("it has weights in other files, want all in one")
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

// setDim returns a dimension with a number in place of its number or its name.
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
	return f.with(protowire.AppendVarint(dim, uint64(n))), nil
}

// field is a field of a message.
type field struct {
	number protowire.Number
	raw    []byte // all of it
	value  []byte // the message, string or bytes that it holds; nil for numbers
}

// with returns the field with another message, string or bytes.
func (f field) with(value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, f.number, protowire.BytesType), value)
}

// fields yields the fields at a path of numbers in a message, or all of the message for
// no path, in their order. An error is the last that it yields. A message that is given
// twice counts as one, as everywhere in Protocol Buffers.
func fields(message []byte, path ...protowire.Number) iter.Seq2[field, error] {
	return func(yield func(field, error) bool) {
		for len(message) > 0 {
			f, err := parse(message)
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

// rewrite returns a message in which change replaces each field at a path of numbers, by
// any number of bytes.
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
			raw = f.with(inner)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, raw...)
	}
	return out, nil
}

// remove is a change for [rewrite].
func remove(field) ([]byte, error) { return nil, nil }

// parse returns the first field of a message.
func parse(message []byte) (field, error) {
	number, kind, tag := protowire.ConsumeTag(message)
	if tag < 0 {
		return field{}, fmt.Errorf("it is no ONNX file, or damaged: %w", protowire.ParseError(tag))
	}
	n := protowire.ConsumeFieldValue(number, kind, message[tag:])
	if n < 0 {
		return field{}, fmt.Errorf("it is no ONNX file, or damaged: field %d: %w", number, protowire.ParseError(n))
	}
	f := field{number: number, raw: message[:tag+n]}
	if kind == protowire.BytesType {
		f.value, _ = protowire.ConsumeBytes(message[tag:])
	}
	return f, nil
}
