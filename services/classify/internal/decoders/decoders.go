// Package decoders reads what networks say of a crop from their outputs. It is pure:
// tensors in, labels and vectors out.
//
// A kind of model is one file with a function that makes its [Decoder], and a line in
// [New].
package decoders

import (
	"fmt"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// A Decoder reads the outputs of one network.
type Decoder interface {
	// Outputs names those that Decode gets, in this order.
	Outputs() []string
	// Decode returns what the outputs say of one crop. An error says that the network has
	// not the outputs that the model declares.
	Decode(outputs []nets.Tensor, crop lane.Crop) (lane.CropLabel, error)
}

// Options are what the settings of a pipeline say in place of the model.
type Options struct {
	// Threshold is the score from which on a label is given; nil for that of the model.
	Threshold *float64
	// Top is how many labels are given at most, the best first; 0 stands for 5.
	Top int
}

// Kinds of models that classify.
const (
	Classifier = "classifier"
	Angle      = "angle"
	Embedding  = "embedding"
	CTCText    = "ctc-text"
)

// A Maker makes the decoder of a model whose network has the outputs of these names. An
// error names the field of model.yaml, or the setting, that is wrong.
type Maker func(m *model.Model, outputs []string, o Options) (Decoder, error)

// New returns what makes the decoders of a kind of models.
func New(kind string) (Maker, error) {
	switch kind {
	case Classifier:
		return newClassifier, nil
	case Angle:
		return newAngle, nil
	case Embedding:
		return newEmbedding, nil
	case CTCText:
		return newCTCText, nil
	}
	return nil, fmt.Errorf("kind: %q, want one that classifies (docs/models.md lists them)", kind)
}
