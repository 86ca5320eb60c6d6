package decoders

import (
	"fmt"
	"slices"

	"github.com/sightmesh/sightmesh/services/internal/model"
)

// newAngle returns the decoder of a network that classifies the rotation of a line of text,
// 0 or 180 degrees. It is a classifier with two classes that returns the better one.
func newAngle(m *model.Model, outputs []string, o Options) (Decoder, error) {
	if want := []string{"0", "180"}; !slices.Equal(m.ClassNames, want) {
		return nil, fmt.Errorf("labels: %q, want %q", m.ClassNames, want)
	}
	if o.Top != 0 {
		return nil, fmt.Errorf("top: not used by %s, which has one label", Angle)
	}
	o.Top = 1
	return newClassifier(m, outputs, o)
}
