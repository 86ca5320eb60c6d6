package onnxruntime

/*
#include "capi.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// Options says how a net is run. The zero value runs it on the CPU.
type Options struct {
	// Providers are tried in this order for each operator. Operators that none of
	// them supports run on the CPU.
	Providers []lane.Provider
}

// Net is a loaded net. It runs on one thread and belongs to one goroutine at a time.
type Net struct {
	library *Library
	path    string
	session *C.OrtSession
	input   port
	outputs []port
}

var _ nets.Net = (*Net)(nil)

// port is an input or an output.
type port struct {
	name    string
	cname   *C.char // allocated by the library's allocator
	shape   []int   // -1 means any size
	element C.int   // type of its elements; 0 for a value that is not a tensor
}

// Engine returns the name and the version of the library.
func (n *Net) Engine() string { return "onnxruntime " + n.library.version }

// Load loads the net of an .onnx file. The net must have one input, of float32.
func (l *Library) Load(path string, o Options) (*Net, error) {
	return l.load(path, o, func(options *C.OrtSessionOptions) (session *C.OrtSession, err error) {
		cpath := C.CString(path)
		defer C.free(unsafe.Pointer(cpath))
		err = l.error(C.create_session(l.api, l.env, cpath, options, &session))
		return session, err
	})
}

// LoadBytes is [Library.Load] for the content of an .onnx file, which the caller may have
// changed after reading it. The path is used in errors only: weights in other files beside
// it are not read.
func (l *Library) LoadBytes(path string, file []byte, o Options) (*Net, error) {
	return l.load(path, o, func(options *C.OrtSessionOptions) (session *C.OrtSession, err error) {
		data := unsafe.Pointer(unsafe.SliceData(file)) // the library copies what it needs
		err = l.error(C.create_session_from_array(l.api, l.env, data, C.size_t(len(file)), options, &session))
		return session, err
	})
}

// createSession creates the session of a net.
type createSession func(*C.OrtSessionOptions) (*C.OrtSession, error)

func (l *Library) load(path string, o Options, create createSession) (*Net, error) {
	n := &Net{library: l, path: path}
	if err := n.load(o, create); err != nil {
		n.Close()
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return n, nil
}

func (n *Net) load(o Options, create createSession) error {
	l := n.library
	var options *C.OrtSessionOptions
	defer func() { C.release_options(l.api, options) }()
	if err := l.error(C.lane_options(l.api, &options)); err != nil {
		return fmt.Errorf("options: %w", err)
	}
	for _, p := range o.Providers {
		if err := l.appendProvider(options, p); err != nil {
			return fmt.Errorf("provider %q: %w", p.Name, err)
		}
	}
	var err error
	if n.session, err = create(options); err != nil {
		return err
	}
	return n.describe()
}

// appendProvider adds a provider to the options of a session.
func (l *Library) appendProvider(options *C.OrtSessionOptions, p lane.Provider) error {
	names := map[string]string{
		"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider",
	}
	name, known := names[p.Name]
	switch {
	case !known:
		return fmt.Errorf("unknown; known are %s", strings.Join(slices.Sorted(maps.Keys(names)), ", "))
	case p.Device < 0:
		return fmt.Errorf("device is %d", p.Device)
	case !slices.Contains(l.providers, name):
		return fmt.Errorf("%s, version %s, has no %s, only %s", l.path, l.version, name, strings.Join(l.providers, ", "))
	case p.Name == "cpu":
		return nil // every session has it
	}
	if reason := C.missing_driver(); reason != nil {
		defer C.free(unsafe.Pointer(reason))
		return fmt.Errorf("the NVIDIA driver is missing: %s", C.GoString(reason))
	}
	settings := maps.Clone(p.Settings)
	if settings == nil {
		settings = make(map[string]string)
	}
	settings["device_id"] = strconv.Itoa(p.Device)
	var keys, values []*C.char
	for k, v := range settings {
		key, value := C.CString(k), C.CString(v)
		defer C.free(unsafe.Pointer(key))
		defer C.free(unsafe.Pointer(value))
		keys, values = append(keys, key), append(values, value)
	}
	if p.Name == "cuda" {
		return l.error(C.append_cuda(l.api, options, &keys[0], &values[0], C.size_t(len(keys))))
	}
	return l.error(C.append_tensorrt(l.api, options, &keys[0], &values[0], C.size_t(len(keys))))
}

// describe reads the inputs and outputs of the loaded net, and checks the input.
func (n *Net) describe() error {
	l := n.library
	var inputs, outputs C.size_t
	if err := l.error(C.input_count(l.api, n.session, &inputs)); err != nil {
		return fmt.Errorf("inputs: %w", err)
	}
	if err := l.error(C.output_count(l.api, n.session, &outputs)); err != nil {
		return fmt.Errorf("outputs: %w", err)
	}
	if inputs != 1 {
		return fmt.Errorf("the net has %d inputs; it must have one", inputs)
	}
	var t *C.OrtTypeInfo
	if err := l.error(C.input_name(l.api, n.session, 0, l.allocator, &n.input.cname)); err != nil {
		return fmt.Errorf("name of input 0: %w", err)
	}
	if err := l.error(C.input_type(l.api, n.session, 0, &t)); err != nil {
		return fmt.Errorf("type of input 0: %w", err)
	}
	if err := l.describePort(&n.input, t); err != nil {
		return fmt.Errorf("input 0: %w", err)
	}
	if n.input.element != C.ELEMENT_FLOAT {
		return fmt.Errorf("input %q is of %s; it must be of float32", n.input.name, elementName(n.input.element))
	}
	n.outputs = make([]port, outputs)
	for i := range n.outputs {
		p, t := &n.outputs[i], (*C.OrtTypeInfo)(nil)
		if err := l.error(C.output_name(l.api, n.session, C.size_t(i), l.allocator, &p.cname)); err != nil {
			return fmt.Errorf("name of output %d: %w", i, err)
		}
		if err := l.error(C.output_type(l.api, n.session, C.size_t(i), &t)); err != nil {
			return fmt.Errorf("type of output %d: %w", i, err)
		}
		if err := l.describePort(p, t); err != nil {
			return fmt.Errorf("output %d: %w", i, err)
		}
	}
	return nil
}

// describePort sets name, shape and element type of p from the type t, which it frees.
func (l *Library) describePort(p *port, t *C.OrtTypeInfo) error {
	defer C.release_type(l.api, t)
	p.name = C.GoString(p.cname)
	var info *C.OrtTensorInfo
	if err := l.error(C.tensor_info(l.api, t, &info)); err != nil || info == nil {
		return err
	}
	var err error
	p.shape, p.element, err = l.shape(info)
	return err
}

// shape returns the dimensions of a tensor, and the type of its elements.
func (l *Library) shape(info *C.OrtTensorInfo) (shape []int, element C.int, err error) {
	if err := l.error(C.element_type(l.api, info, &element)); err != nil {
		return nil, 0, err
	}
	var rank C.size_t
	if err := l.error(C.dimension_count(l.api, info, &rank)); err != nil {
		return nil, 0, err
	}
	dims := make([]C.int64_t, rank)
	if err := l.error(C.dimensions(l.api, info, unsafe.SliceData(dims), rank)); err != nil {
		return nil, 0, err
	}
	shape = make([]int, rank)
	for i, d := range dims {
		shape[i] = int(d)
	}
	return shape, element, nil
}

// Inputs describes the one input.
func (n *Net) Inputs() []nets.Input {
	return []nets.Input{{Name: n.input.name, Shape: slices.Clone(n.input.shape)}}
}

// Outputs describes the outputs.
func (n *Net) Outputs() []nets.Output {
	out := make([]nets.Output, len(n.outputs))
	for i, p := range n.outputs {
		out[i] = nets.Output{Name: p.name, Shape: slices.Clone(p.shape)}
	}
	return out
}

// Close frees the net.
func (n *Net) Close() {
	l := n.library
	for _, p := range append(n.outputs, n.input) {
		if p.cname != nil {
			C.allocator_free(l.api, l.allocator, unsafe.Pointer(p.cname))
		}
	}
	if n.session != nil {
		C.release_session(l.api, n.session)
	}
	n.session, n.input, n.outputs = nil, port{}, nil
}

// Run runs the net. Outputs of integers, booleans and other floating-point types are
// converted to float32.
func (n *Net) Run(in nets.Tensor, outputs ...string) ([]nets.Tensor, error) {
	if n.session == nil {
		return nil, fmt.Errorf("run %s: the net is closed", n.path)
	}
	if err := n.input.checkTensor(in); err != nil {
		return nil, fmt.Errorf("run %s: %w", n.path, err)
	}
	ports, err := n.selectOutputs(outputs)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", n.path, err)
	}
	out, err := n.run(in, ports)
	if err != nil {
		return nil, fmt.Errorf("run %s on %s: %w", n.path, in, err)
	}
	return out, nil
}

// checkTensor returns an error if a tensor does not fit the port.
func (p *port) checkTensor(in nets.Tensor) error {
	// An empty shape is that of a scalar, or of a net that does not declare one.
	fits, size := len(p.shape) == 0 || len(p.shape) == len(in.Shape), 1
	for i, d := range in.Shape {
		fits = fits && d > 0 && (len(p.shape) == 0 || p.shape[i] < 0 || p.shape[i] == d)
		size *= d
	}
	if !fits {
		return fmt.Errorf("input %q has shape %v; %v was given", p.name, p.shape, in.Shape)
	}
	if size != len(in.Data) {
		return fmt.Errorf("input %q: shape %v needs %d numbers; %d were given", p.name, in.Shape, size, len(in.Data))
	}
	return nil
}

// selectOutputs returns the named outputs, or all outputs when there are no names.
func (n *Net) selectOutputs(names []string) ([]port, error) {
	if len(names) == 0 {
		return n.outputs, nil
	}
	ports := make([]port, len(names))
	for i, name := range names {
		at := slices.IndexFunc(n.outputs, func(p port) bool { return p.name == name })
		if at < 0 {
			var have []string
			for _, p := range n.outputs {
				have = append(have, strconv.Quote(p.name))
			}
			return nil, fmt.Errorf("no output %q; the net has %s", name, strings.Join(have, ", "))
		}
		ports[i] = n.outputs[at]
	}
	return ports, nil
}

func (n *Net) run(in nets.Tensor, ports []port) ([]nets.Tensor, error) {
	l := n.library
	// The library reads the numbers in place.
	var pin runtime.Pinner
	defer pin.Unpin()
	data := unsafe.SliceData(in.Data)
	pin.Pin(data)
	dims := make([]C.int64_t, len(in.Shape))
	for i, d := range in.Shape {
		dims[i] = C.int64_t(d)
	}
	var input *C.OrtValue
	if err := l.error(C.create_tensor(l.api, l.memory, unsafe.Pointer(data), C.size_t(len(in.Data))*C.sizeof_float,
		unsafe.SliceData(dims), C.size_t(len(dims)), &input)); err != nil {
		return nil, fmt.Errorf("input %q: %w", n.input.name, err)
	}
	defer C.release_value(l.api, input)

	names, values := make([]*C.char, len(ports)), make([]*C.OrtValue, len(ports))
	for i, p := range ports {
		names[i] = p.cname
	}
	defer func() {
		for _, v := range values {
			C.release_value(l.api, v)
		}
	}()
	if err := l.error(C.run(l.api, n.session, n.input.cname, input,
		unsafe.SliceData(names), C.size_t(len(names)), unsafe.SliceData(values))); err != nil {
		return nil, err
	}
	out := make([]nets.Tensor, len(ports))
	for i, v := range values {
		var err error
		if out[i], err = l.tensor(v); err != nil {
			return nil, fmt.Errorf("output %q: %w", ports[i].name, err)
		}
	}
	return out, nil
}

// tensor copies a value of the library into a Tensor.
func (l *Library) tensor(v *C.OrtValue) (nets.Tensor, error) {
	var info *C.OrtTensorInfo
	if err := l.error(C.value_info(l.api, v, &info)); err != nil {
		return nets.Tensor{}, err
	}
	if info == nil {
		return nets.Tensor{}, errors.New("it is not a tensor")
	}
	defer C.release_tensor_info(l.api, info)
	shape, element, err := l.shape(info)
	if err != nil {
		return nets.Tensor{}, err
	}
	out := nets.NewTensor(shape...)
	if len(out.Data) == 0 {
		return out, nil
	}
	var data unsafe.Pointer
	if element != C.ELEMENT_STRING {
		if err := l.error(C.value_data(l.api, v, &data)); err != nil {
			return nets.Tensor{}, err
		}
	}
	switch element {
	case C.ELEMENT_FLOAT:
		copy(out.Data, unsafe.Slice((*float32)(data), len(out.Data)))
	case C.ELEMENT_DOUBLE:
		convert[float64](out.Data, data)
	case C.ELEMENT_INT64:
		convert[int64](out.Data, data)
	case C.ELEMENT_INT32:
		convert[int32](out.Data, data)
	case C.ELEMENT_INT8:
		convert[int8](out.Data, data)
	case C.ELEMENT_UINT8, C.ELEMENT_BOOL:
		convert[uint8](out.Data, data)
	case C.ELEMENT_FLOAT16:
		for i, bits := range unsafe.Slice((*uint16)(data), len(out.Data)) {
			out.Data[i] = float16(bits)
		}
	default:
		return nets.Tensor{}, fmt.Errorf("it is of %s, which is not supported", elementName(element))
	}
	return out, nil
}

// convert converts len(dst) numbers at src to float32.
func convert[T int8 | uint8 | int32 | int64 | float64](dst []float32, src unsafe.Pointer) {
	for i, v := range unsafe.Slice((*T)(src), len(dst)) {
		dst[i] = float32(v)
	}
}

// float16 converts an IEEE 754 half-precision number to float32.
func float16(bits uint16) float32 {
	sign, exponent, fraction := uint32(bits>>15), int(bits>>10&0x1f), uint32(bits&0x3ff)
	switch exponent {
	case 0: // zero and subnormal numbers
		v := float32(math.Ldexp(float64(fraction), -24))
		return math.Float32frombits(sign<<31 | math.Float32bits(v))
	case 0x1f: // infinity and NaN
		return math.Float32frombits(sign<<31 | 0xff<<23 | fraction<<13)
	}
	return math.Float32frombits(sign<<31 | uint32(exponent-15+127)<<23 | fraction<<13)
}

// elementName returns the name of an element type, for errors.
func elementName(element C.int) string {
	names := []string{"not a tensor", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool",
		"float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16"}
	if int(element) < len(names) {
		return names[element]
	}
	return fmt.Sprintf("element type %d", element)
}
