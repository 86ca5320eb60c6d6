// Package engines chooses what runs the network of a model.
package engines

import (
	"fmt"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
	"github.com/sightmesh/sightmesh/services/internal/nets/opencv"
)

// Open loads the network of a model with the first of its engines that is there.
func Open(m *model.Model) (nets.Net, error) {
	for _, e := range m.Engines {
		if e == model.OpenCV {
			return opencv.Open(m)
		}
	}
	return nil, fmt.Errorf("load model %s: engines: %v, and %s is the only one there is", m.Name, m.Engines, model.OpenCV)
}
