// Package opencv runs networks with OpenCV's module dnn.
//
// It is a thin layer of C++ over OpenCV, and not gocv, because OpenCV reports a
// model that it cannot read or run by an exception, and gocv catches none: the
// process would end with every pipeline that it serves. Here it is an error of Go. A
// network can still end its process, by what it does to memory, or never come back,
// so that it belongs into a lane all the same.
//
// OpenCV uses as many threads as the process allows it, see vision.SingleThread.
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

// net is a network of OpenCV.
type net struct {
	net   *C.sightmesh_net
	names []string // of the outputs
}

// Engine returns the name and the version of the library.
func (n *net) Engine() string { return "opencv " + C.GoString(C.sightmesh_opencv_version()) }

// maxReason is how many bytes of the message of an exception are kept.
const maxReason = 2048

// Open loads the network of a model. Weights named .onnx are read as ONNX, and those
// named .caffemodel as Caffe, with the model's configuration.
func Open(m *model.Model) (nets.Net, error) {
	weights, config, err := m.ReadWeights()
	if err != nil {
		return nil, err
	}
	n, err := read(filepath.Ext(m.Weights), weights, config)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %s: %w", m.Name, filepath.Join(m.Dir, m.Weights), err)
	}
	return n, nil
}

func read(format string, weights, config []byte) (*net, error) {
	why := (*C.char)(C.calloc(1, maxReason))
	defer C.free(unsafe.Pointer(why))
	var n *C.sightmesh_net
	switch {
	case format == ".onnx" && config == nil:
		n = C.sightmesh_net_onnx(pointer(weights), C.size_t(len(weights)), why, maxReason)
	case format == ".onnx":
		return nil, errors.New("ONNX has no config")
	case format == ".caffemodel" && config != nil:
		n = C.sightmesh_net_caffe(pointer(config), C.size_t(len(config)), pointer(weights), C.size_t(len(weights)), why, maxReason)
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

func pointer(b []byte) *C.char { return (*C.char)(unsafe.Pointer(unsafe.SliceData(b))) }

// reason makes one line of the message of an exception.
func reason(why *C.char) string { return strings.Join(strings.Fields(C.GoString(why)), " ") }

// Inputs returns nothing: OpenCV does not say what it wants.
func (n *net) Inputs() []nets.Input { return nil }

// Outputs returns the names of the outputs.
func (n *net) Outputs() []nets.Output {
	out := make([]nets.Output, len(n.names))
	for i, name := range n.names {
		out[i].Name = name
	}
	return out
}

// Run computes all outputs at once and returns those that are asked for.
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

// Close frees the network. It may not be used afterwards.
func (n *net) Close() { C.sightmesh_net_close(n.net) }
