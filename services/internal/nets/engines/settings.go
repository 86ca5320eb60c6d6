package engines

import (
	"errors"
	"fmt"

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

// Load reads the model folder. A name without a slash is looked up in the folder models.
func (s Settings) Load(models string) (*model.Model, error) {
	dir, err := model.Find(models, s.Model)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	m, err := model.Load(dir)
	if errors.Is(err, model.ErrNotFound) {
		err = fmt.Errorf("%w; sightmesh models pull fetches models, see docs/models.md", err)
	}
	return m, err
}

// ShouldFallBack reports whether the fallback replaces the model after this error: only when
// the model folder or the engine is missing. A model that exists and cannot be used is
// never replaced.
func (s Settings) ShouldFallBack(err error) bool {
	return s.Fallback != nil && (errors.Is(err, model.ErrNotFound) || errors.Is(err, onnxruntime.ErrNotFound))
}
