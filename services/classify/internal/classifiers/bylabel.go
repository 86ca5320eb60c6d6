package classifiers

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/nets/engines"
)

// byLabel classifies each crop with the classifier for its label. A crop with another label
// has an empty outcome.
type byLabel map[string]classifier

func newByLabel(setup lane.Setup, o engines.Options) (classifier, lane.Loaded, error) {
	if setup.Kind != "" {
		return nil, lane.Loaded{}, errors.New("kind and by_label: both given, want only one")
	}
	c := byLabel{}
	var all lane.Loaded
	for _, label := range slices.Sorted(maps.Keys(setup.ByLabel)) {
		of := setup.ByLabel[label]
		of.Batch = setup.Batch
		one, loaded, err := newClassifier(of, o)
		if err == nil {
			err = warmUp(one, of.Batch) // Start's warm-up does not reach it: blank crops have no label
		}
		if err != nil {
			return nil, lane.Loaded{}, fmt.Errorf("by_label.%s: %w", label, err)
		}
		c[label] = one
		for _, m := range loaded.Models {
			if !slices.Contains(all.Models, m) {
				all.Models = append(all.Models, m)
			}
		}
		all.Networks = append(all.Networks, loaded.Networks...)
	}
	return c, all, nil
}

// channels returns 0: classifyCrops converts the crops for each classifier.
func (byLabel) channels() int { return 0 }

func (b byLabel) classify(crops []crop) ([]lane.CropLabel, error) {
	labels := make([]lane.CropLabel, len(crops))
	for label, c := range b {
		if err := classifySome(c, crops, labels, func(i int) bool { return crops[i].Label == label }); err != nil {
			return nil, err
		}
	}
	return labels, nil
}
