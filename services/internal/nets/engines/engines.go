// Package engines chooses what runs the network of a model.
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

// Options says where engines are and how they run. The zero value finds ONNX Runtime in
// the system, and runs on the CPU.
type Options struct {
	// Models is the folder of models, which may hold the library of ONNX Runtime.
	Models string
	// Library is the path of that library, instead of those that would be found.
	Library string
	// Providers run networks in ONNX Runtime.
	Providers []lane.Provider
}

// FromStart returns the options that a worker gives to its lanes.
func FromStart(s lane.Start) Options {
	o := Options{Models: s.Models}
	if s.ONNXRuntime != nil {
		o.Library, o.Providers = s.ONNXRuntime.Library, s.ONNXRuntime.Providers
	}
	return o
}

// Open loads the network of a model with the first of its engines that is there.
// OpenCV always is. The library of ONNX Runtime is looked for in the folder of models
// and in the system unless its path is given; one that is there and cannot be used is
// an error. The error wraps [onnxruntime.ErrNotFound] when none of the engines is there.
func Open(m *model.Model, o Options) (nets.Net, error) {
	if err := m.Require("engines", "weights", "input"); err != nil {
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

// Loaded returns what a pipeline that uses a model, with its networks, tells its worker.
func Loaded(m *model.Model, networks ...nets.Net) lane.Loaded {
	loaded := lane.Loaded{Models: []v1.Model{{Name: m.Name, Version: m.Version}}}
	for _, n := range networks {
		loaded.Networks = append(loaded.Networks, nets.Describe(m.Name, n))
	}
	return loaded
}

// openONNX loads a network with the library at path.
func openONNX(m *model.Model, path string, providers []lane.Provider) (nets.Net, error) {
	weights, _, err := m.ReadWeights() // which checks them
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

// loadONNX loads a network from its file, or from its weights once they declare the size
// of the input that the model has.
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
