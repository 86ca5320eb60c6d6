// Package engines chooses what runs the network of a model.
package engines

import (
	"errors"
	"fmt"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
	"github.com/sightmesh/sightmesh/services/internal/nets/onnxruntime"
	"github.com/sightmesh/sightmesh/services/internal/nets/opencv"
)

// Open loads the network of a model with the first of its engines that is there.
// OpenCV always is. The library of ONNX Runtime is looked for in the folder of models
// and in the system; one that is there and cannot be used is an error.
func Open(m *model.Model, models string) (nets.Net, error) {
	var absent error
	for _, e := range m.Engines {
		if e == model.OpenCV {
			return opencv.Open(m)
		}
		path, err := onnxruntime.Find("", models)
		if errors.Is(err, onnxruntime.ErrNotFound) {
			absent = err
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("load model %s: %w", m.Name, err)
		}
		return openONNX(m, path)
	}
	return nil, fmt.Errorf("load model %s: engines: %v: %w", m.Name, m.Engines, absent)
}

// openONNX loads a network with the library at path.
func openONNX(m *model.Model, path string) (nets.Net, error) {
	if _, _, err := m.ReadWeights(); err != nil { // which checks them
		return nil, err
	}
	library, err := onnxruntime.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", m.Name, err)
	}
	net, err := library.Load(m.WeightsPath(), onnxruntime.Options{})
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", m.Name, err)
	}
	return net, nil
}
