// Package opencv runs networks with OpenCV's module dnn.
//
// It is a thin C++ layer over OpenCV. It does not use gocv, because OpenCV throws an
// exception for a model that it cannot read or run, and gocv does not catch exceptions:
// the process would end, with every pipeline that it serves. This package returns the
// exception as a Go error. A network can still corrupt memory and crash its process, or
// run forever, so it must run in a lane.
//
// The number of OpenCV's threads is set for the process, see vision.UseSingleThread.
package opencv

/*
#cgo pkg-config: opencv4
#cgo CXXFLAGS: --std=c++11
#include <stdlib.h>
#include "net.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// net is a network that OpenCV has loaded.
type net struct {
	net   *C.sightmesh_net
	names []string // names of the outputs
}

// Engine returns the name and the version of the library.
func (n *net) Engine() string { return "opencv " + C.GoString(C.sightmesh_opencv_version()) }

// maxReason is the size of the buffer for the message of an exception, in bytes.
const maxReason = 2048

// Open loads the network of a model. Weights named .onnx are read as ONNX. Weights named
// .caffemodel are read as Caffe, with the configuration that the model names.
func Open(m *model.Model) (nets.Net, error) {
	weights, config, err := m.ReadWeights()
	if err != nil {
		return nil, err
	}
	n, err := readNet(filepath.Ext(m.Weights), weights, config)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %s: %w", m.Name, filepath.Join(m.Dir, m.Weights), err)
	}
	return n, nil
}

func readNet(format string, weights, config []byte) (*net, error) {
	why := (*C.char)(C.calloc(1, maxReason))
	defer C.free(unsafe.Pointer(why))
	var n *C.sightmesh_net
	switch {
	case format == ".onnx" && config == nil:
		n = C.sightmesh_net_onnx(cPointer(weights), C.size_t(len(weights)), why, maxReason)
	case format == ".onnx":
		return nil, errors.New("ONNX has no config")
	case format == ".caffemodel" && config != nil:
		n = C.sightmesh_net_caffe(
			cPointer(config), C.size_t(len(config)), cPointer(weights), C.size_t(len(weights)), why, maxReason)
	case format == ".caffemodel":
		return nil, errors.New("a Caffe network needs a config")
	default:
		return nil, fmt.Errorf("OpenCV reads files named .onnx and .caffemodel, not %q", format)
	}
	if n == nil {
		return nil, fmt.Errorf("OpenCV cannot read the network: %s", reason(why))
	}
	loaded := &net{net: n}
	for i := range C.sightmesh_net_outputs(n) {
		loaded.names = append(loaded.names, C.GoString(C.sightmesh_net_output_name(n, i)))
	}
	return loaded, nil
}

func cPointer(b []byte) *C.char { return (*C.char)(unsafe.Pointer(unsafe.SliceData(b))) }

// reason returns the message of an exception as one line.
func reason(why *C.char) string { return strings.Join(strings.Fields(C.GoString(why)), " ") }

// Inputs returns nil, because OpenCV does not describe inputs.
func (n *net) Inputs() []nets.Input { return nil }

// Outputs returns the names of the outputs, without shapes.
func (n *net) Outputs() []nets.Output {
	out := make([]nets.Output, len(n.names))
	for i, name := range n.names {
		out[i].Name = name
	}
	return out
}

// Run computes all outputs at once and returns the named ones, or all.
func (n *net) Run(in nets.Tensor, outputs ...string) ([]nets.Tensor, error) {
	if len(outputs) == 0 {
		outputs = n.names
	}
	places := make([]int, len(outputs))
	for i, name := range outputs {
		if places[i] = slices.Index(n.names, name); places[i] < 0 {
			return nil, fmt.Errorf("run network: it has no output %q, but %q", name, n.names)
		}
	}
	shape := make([]C.int, len(in.Shape))
	size := 1
	for i, d := range in.Shape {
		shape[i] = C.int(d)
		size *= d
	}
	if size < 1 || size != len(in.Data) {
		return nil, fmt.Errorf("run network: %d numbers for an input of %v", len(in.Data), in)
	}
	why := (*C.char)(C.calloc(1, maxReason))
	defer C.free(unsafe.Pointer(why))
	data := (*C.float)(unsafe.Pointer(unsafe.SliceData(in.Data)))
	if C.sightmesh_net_run(n.net, data, unsafe.SliceData(shape), C.int(len(shape)), why, maxReason) == 0 {
		return nil, fmt.Errorf("run network with an input of %v: %s", in, reason(why))
	}
	tensors := make([]nets.Tensor, len(places))
	for i, place := range places {
		tensors[i] = n.output(C.size_t(place))
	}
	return tensors, nil
}

// output copies an output of the last run.
func (n *net) output(i C.size_t) nets.Tensor {
	var sides *C.int
	data := C.sightmesh_net_output(n.net, i, &sides) //nolint:gocritic // dupSubExpr sees what cgo makes of it
	shape := make([]int, C.sightmesh_net_output_dimensions(n.net, i))
	for j, d := range unsafe.Slice(sides, len(shape)) {
		shape[j] = int(d)
	}
	t := nets.NewTensor(shape...)
	copy(t.Data, unsafe.Slice((*float32)(unsafe.Pointer(data)), len(t.Data)))
	return t
}

// Close frees the network, which must not be used afterwards.
func (n *net) Close() { C.sightmesh_net_close(n.net) }
