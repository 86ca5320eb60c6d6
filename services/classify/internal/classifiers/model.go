package classifiers

import (
	"cmp"
	"fmt"
	"image"
	"slices"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/classify/internal/decoders"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
	"github.com/sightmesh/sightmesh/services/internal/nets/engines"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// network classifies crops with the network of a model folder.
type network struct {
	model   *model.Model
	net     nets.Net
	decoder decoders.Decoder
	batch   int // maximum number of crops in one run of the network
}

// modelSettings are the settings of the kind model.
type modelSettings struct {
	engines.Settings
	// Top is the maximum number of labels; 0 means 5.
	Top int `json:"top"`
	// First is a classifier that runs before this one, for example a faster one. Only the
	// crops that it drops are classified by this one. nil means none.
	First *lane.Setup `json:"first"`

	batch int // the batch size of the stage
}

func newModel(setup lane.Setup, o engines.Options) (classifier, lane.Loaded, error) {
	s := modelSettings{batch: max(setup.Batch, 1)}
	if err := lane.DecodeSettings(setup.Settings, &s); err != nil {
		return nil, lane.Loaded{}, err
	}
	for _, other := range []*lane.Setup{s.First, s.Fallback} {
		if other != nil {
			other.Batch = cmp.Or(other.Batch, setup.Batch)
		}
	}
	c, loaded, err := openModel(s, o)
	if s.ShouldFallBack(err) {
		return newClassifier(*s.Fallback, o)
	}
	return c, loaded, err
}

// openModel creates the classifier of a model folder, combined with the one in First.
func openModel(s modelSettings, o engines.Options) (classifier, lane.Loaded, error) {
	m, err := model.Open(o.Models, s.Model)
	if err != nil {
		return nil, lane.Loaded{}, err
	}
	if s.First == nil {
		return openKind(m, s, o)
	}
	first, before, err := newClassifier(*s.First, o)
	if err != nil {
		return nil, lane.Loaded{}, fmt.Errorf("first: %w", err)
	}
	c, loaded, err := openKind(m, s, o)
	if err != nil {
		return nil, lane.Loaded{}, err
	}
	return chain{first, c}, lane.Loaded{
		Models: append(before.Models, loaded.Models...), Networks: append(before.Networks, loaded.Networks...),
	}, nil
}

// openKind creates the classifier of a model by its kind. Kinds that are not listed here are
// networks, see package decoders.
func openKind(m *model.Model, s modelSettings, o engines.Options) (classifier, lane.Loaded, error) {
	if m.Kind == "tesseract" {
		c, err := openReader(m, s)
		return c, engines.DescribeModel(m), err
	}
	c, err := openNetwork(m, s, o)
	if err != nil {
		return nil, lane.Loaded{}, err
	}
	return c, engines.DescribeModel(m, c.net), nil
}

// chain runs a second classifier on the crops that the first one drops.
type chain [2]classifier

// channels returns 0: classifyCrops converts the crops for each classifier.
func (chain) channels() int { return 0 }

func (t chain) classify(crops []crop) ([]lane.CropLabel, error) {
	labels, err := classifyCrops(t[0], crops)
	if err != nil {
		return nil, err
	}
	if err := classifySome(t[1], crops, labels, func(i int) bool { return labels[i].Drop }); err != nil {
		return nil, err
	}
	return labels, nil
}

// classifySome classifies the crops whose index is wanted, and sets their labels.
func classifySome(c classifier, crops []crop, labels []lane.CropLabel, wanted func(i int) bool) error {
	var places []int
	var some []crop
	for i := range crops {
		if wanted(i) {
			places, some = append(places, i), append(some, crops[i])
		}
	}
	if len(some) == 0 {
		return nil
	}
	outcomes, err := classifyCrops(c, some)
	for i := range outcomes {
		labels[places[i]] = outcomes[i]
	}
	return err
}

func openNetwork(m *model.Model, s modelSettings, o engines.Options) (*network, error) {
	maker, err := decoders.New(m.Kind)
	if err != nil {
		return nil, m.FieldError(err)
	}
	net, err := engines.Open(m, o)
	if err != nil {
		return nil, err
	}
	c := &network{model: m, net: net, batch: s.batch}
	if err := c.checkBatch(); err != nil {
		net.Close()
		return nil, fmt.Errorf("model %s: %w", m.Name, err)
	}
	if c.decoder, err = maker(m, nets.OutputNames(net),
		decoders.Options{Threshold: s.Threshold, Top: s.Top}); err != nil {
		net.Close()
		return nil, fmt.Errorf("model %s: %s with these settings: %w", m.Name, model.File, err)
	}
	return c, nil
}

// channels returns 3: the input of a network is made from a colour image.
func (c *network) channels() int { return 3 }

// checkBatch returns an error if batches are enabled and the network declares a fixed number
// of images: the last batch of a message may be smaller.
func (c *network) checkBatch() error {
	for _, in := range c.net.Inputs() {
		if c.batch > 1 && len(in.Shape) > 0 && in.Shape[0] != -1 {
			return fmt.Errorf("batch: %d, but input %q of its network has the shape %v, want a dynamic first dimension",
				c.batch, in.Name, in.Shape)
		}
	}
	return nil
}

// classify runs the network on batches of crops whose inputs have the same size.
func (c *network) classify(crops []crop) ([]lane.CropLabel, error) {
	var sizes []image.Point // in the order of the crops
	places := map[image.Point][]int{}
	for i, crop := range crops {
		size := vision.InputSize(crop.Width, crop.Height, c.model.Input)
		if places[size] == nil {
			sizes = append(sizes, size)
		}
		places[size] = append(places[size], i)
	}
	labels := make([]lane.CropLabel, len(crops))
	for _, size := range sizes {
		for batch := range slices.Chunk(places[size], c.batch) {
			if err := c.run(crops, batch, labels); err != nil {
				return nil, err
			}
		}
	}
	return labels, nil
}

// run classifies the crops at these indices with one run of the network, and sets their
// labels.
func (c *network) run(crops []crop, places []int, labels []lane.CropLabel) error {
	regions := make([]int, len(places))
	for i, place := range places {
		regions[i] = crops[place].Region
	}
	problemOf := func(err error, regions ...int) error {
		return &cropError{regions, fmt.Errorf("model %s: %w", c.model.Name, err)}
	}
	inputs := make([]nets.Tensor, len(places))
	for i, place := range places {
		var err error
		if inputs[i], err = c.input(crops[place]); err != nil {
			return problemOf(err, regions[i])
		}
	}
	outputs, err := nets.RunBatch(c.net, inputs, c.decoder.Outputs())
	if err != nil {
		return problemOf(err, regions...)
	}
	for i, place := range places {
		if labels[place], err = c.decoder.Decode(outputs[i], crops[place].Crop); err != nil {
			return problemOf(err, regions[i])
		}
	}
	return nil
}

// input returns the input of the network for a crop.
func (c *network) input(crop crop) (nets.Tensor, error) {
	m, err := gocv.NewMatFromBytes(crop.Height, crop.Width, gocv.MatTypeCV8UC3, crop.pixels)
	if err != nil {
		return nets.Tensor{}, fmt.Errorf("read crop: %w", err)
	}
	defer m.Close()
	input, _ := vision.Fit(m, c.model.Input)
	return input, nil
}
