package engines

import (
	"errors"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets/onnxruntime"
)

// Settings are the settings of the kind model that both stages have.
type Settings struct {
	// Model is the name of a folder in the folder of models, or the path of a folder.
	Model string `json:"model"`
	// Threshold replaces the threshold of the model; nil keeps that of the model.
	Threshold *float64 `json:"threshold"`
	// Fallback is the detector or classifier that is used when the model folder does
	// not exist or no engine of the model is available; nil means none.
	Fallback *lane.Setup `json:"fallback"`
}

// ShouldFallBack reports whether the fallback replaces the model after this error: only when
// the model folder or the engine is missing. A model that exists and cannot be used is
// never replaced.
func (s Settings) ShouldFallBack(err error) bool {
	return s.Fallback != nil && (errors.Is(err, model.ErrNotFound) || errors.Is(err, onnxruntime.ErrNotFound))
}
