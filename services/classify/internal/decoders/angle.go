package decoders

import (
	"fmt"
	"slices"

	"github.com/sightmesh/sightmesh/services/internal/model"
)

// newAngle returns the decoder of a network that says by how many degrees a line of text
// is turned: a classifier of two classes that gives the better one.
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
