// Package decoders decodes the outputs of classification networks. It is pure: its input is
// tensors, its output labels, text and vectors.
//
// Each kind of model has one file with the constructor of its [Decoder], and a line in
// [New].
package decoders

import (
	"fmt"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// A Decoder decodes the outputs of one network.
type Decoder interface {
	// Outputs returns the names of the outputs that Decode needs, in this order.
	Outputs() []string
	// Decode returns the outcome for one crop. It returns an error if the outputs are not
	// those that the model declares.
	Decode(outputs []nets.Tensor, crop lane.Crop) (lane.CropLabel, error)
}

// Options are settings of a pipeline that replace those of the model.
type Options struct {
	// Threshold is the minimum score of a label; nil means the threshold of the model.
	Threshold *float64
	// Top is the maximum number of labels, the best first; 0 means 5.
	Top int
}

// Kinds of classification networks.
const (
	Classifier = "classifier"
	Angle      = "angle"
	Embedding  = "embedding"
	CTCText    = "ctc-text"
)

// A Maker creates the decoder of a model. outputs are the names of all outputs of the
// network. An error names the field of model.yaml, or the setting, that is wrong.
type Maker func(m *model.Model, outputs []string, o Options) (Decoder, error)

// New returns the constructor of the decoders for a kind of model.
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
	return nil, fmt.Errorf("kind: %q, want a kind of classification models (docs/models.md lists them)", kind)
}
