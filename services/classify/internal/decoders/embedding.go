package decoders

import (
	"fmt"
	"math"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// embedding decodes networks whose output is a vector that is near to the vectors of similar
// crops.
type embedding struct{ names []string }

func newEmbedding(m *model.Model, outputs []string, o Options) (Decoder, error) {
	if err := m.CheckNetwork("output.names"); err != nil {
		return nil, err
	}
	switch {
	case o.Threshold != nil:
		return nil, fmt.Errorf("threshold: not used by %s, which has no scores", Embedding)
	case o.Top != 0:
		return nil, fmt.Errorf("top: not used by %s, which has no labels", Embedding)
	}
	names, err := m.OnlyOutput(outputs)
	return &embedding{names: names}, err
}

func (d *embedding) Outputs() []string { return d.names }

// Decode normalises the vector to length 1. A vector of length 0 has no direction; the crop
// then has no embedding.
func (d *embedding) Decode(outputs []nets.Tensor, _ lane.Crop) (lane.CropLabel, error) {
	if err := checkVector(d.names[0], outputs[0], -1); err != nil {
		return lane.CropLabel{}, err
	}
	vector := outputs[0].Data
	if len(vector) > lane.MaxEmbedding {
		return lane.CropLabel{}, fmt.Errorf("output %s has %d numbers, want at most %d",
			d.names[0], len(vector), lane.MaxEmbedding)
	}
	square := 0.0
	for _, v := range vector {
		square += float64(v) * float64(v)
	}
	length := math.Sqrt(square)
	if length == 0 {
		return lane.CropLabel{}, nil
	}
	unit := make([]float32, len(vector))
	for i, v := range vector {
		unit[i] = float32(float64(v) / length)
	}
	return lane.CropLabel{Embedding: unit}, nil
}
