// Package engines chooses the engine that runs the network of a model.
package engines

import (
	"errors"
	"fmt"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
	"github.com/sightmesh/sightmesh/services/internal/nets/onnxfile"
	"github.com/sightmesh/sightmesh/services/internal/nets/onnxruntime"
	"github.com/sightmesh/sightmesh/services/internal/nets/opencv"
)

// Options configures the engines. The zero value looks for ONNX Runtime in the system
// and runs networks on the CPU.
type Options struct {
	// Models is the folder of models, which may contain the library of ONNX Runtime.
	Models string
	// Library is the path of that library. When it is empty, the library is looked up
	// in Models and in the system.
	Library string
	// Providers are the execution providers of ONNX Runtime; none means the CPU.
	Providers []lane.Provider
}

// NewOptions returns the options in the Start message that a worker sends to a lane.
func NewOptions(s lane.Start) Options {
	o := Options{Models: s.Models}
	if s.ONNXRuntime != nil {
		o.Library, o.Providers = s.ONNXRuntime.Library, s.ONNXRuntime.Providers
	}
	return o
}

// Open loads the network of a model with the first engine of the model that is
// available. OpenCV is always available. ONNX Runtime is looked up in the folder of
// models and then in the system, unless the options give its path. A library that is
// found and cannot be used is an error. When no engine is available, the error wraps
// [onnxruntime.ErrNotFound].
func Open(m *model.Model, o Options) (nets.Net, error) {
	if err := m.RequireFields("engines", "weights", "input"); err != nil {
		return nil, err
	}
	var absent error
	for _, e := range m.Engines {
		if e == model.OpenCV {
			return opencv.Open(m)
		}
		path, err := onnxruntime.Find(o.Library, o.Models)
		if errors.Is(err, onnxruntime.ErrNotFound) {
			absent = err
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("load model %s: %w", m.Name, err)
		}
		return openONNX(m, path, o.Providers)
	}
	return nil, fmt.Errorf("load model %s: engines: %v: %w", m.Name, m.Engines, absent)
}

// DescribeModel returns what a lane reports to its worker about a model and its networks.
func DescribeModel(m *model.Model, networks ...nets.Net) lane.Loaded {
	loaded := lane.Loaded{Models: []v1.Model{{Name: m.Name, Version: m.Version}}}
	for _, n := range networks {
		loaded.Networks = append(loaded.Networks, nets.Describe(m.Name, n))
	}
	return loaded
}

// openONNX loads a network with the ONNX Runtime library at path.
func openONNX(m *model.Model, path string, providers []lane.Provider) (nets.Net, error) {
	weights, _, err := m.ReadWeights() // also checks the file
	if err != nil {
		return nil, err
	}
	library, err := onnxruntime.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", m.Name, err)
	}
	net, err := loadONNX(library, m, weights, onnxruntime.Options{Providers: providers})
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", m.Name, err)
	}
	return net, nil
}

// loadONNX loads a network from its file. For a resizable input it first changes the
// input size that the weights declare to that of the model.
func loadONNX(
	library *onnxruntime.Library, m *model.Model, weights []byte, o onnxruntime.Options,
) (*onnxruntime.Net, error) {
	if !m.Input.Resizable {
		return library.Load(m.WeightsPath(), o)
	}
	resized, err := onnxfile.Resize(weights, m.Input.Height, m.Input.Width)
	if err != nil {
		return nil, fmt.Errorf("%s: input.resizable: %w", m.WeightsPath(), err)
	}
	return library.LoadBytes(m.WeightsPath(), resized, o)
}
