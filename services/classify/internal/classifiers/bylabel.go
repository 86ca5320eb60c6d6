package classifiers

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/nets/engines"
)

// byLabel asks the classifier of the label that a crop has. It says nothing of a crop of
// another label.
type byLabel map[string]classifier

func newByLabel(setup lane.Setup, o engines.Options) (classifier, lane.Loaded, error) {
	if setup.Kind != "" {
		return nil, lane.Loaded{}, errors.New("kind and by_label: given both")
	}
	c := byLabel{}
	var all lane.Loaded
	for _, label := range slices.Sorted(maps.Keys(setup.ByLabel)) {
		of := setup.ByLabel[label]
		of.Batch = setup.Batch
		one, loaded, err := newClassifier(of, o)
		if err == nil {
			err = warmUp(one, of.Batch) // a crop without a label reaches none
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

// channels is any number: each classifier gets what it wants.
func (byLabel) channels() int { return 0 }

func (b byLabel) classify(crops []crop) ([]lane.CropLabel, error) {
	labels := make([]lane.CropLabel, len(crops))
	for label, c := range b {
		if err := classifyWhere(c, crops, labels, func(i int) bool { return crops[i].Label == label }); err != nil {
			return nil, err
		}
	}
	return labels, nil
}
