package classifiers

import (
	"encoding/json"
	"fmt"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/classify/internal/decoders"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
	"github.com/sightmesh/sightmesh/services/internal/nets/engines"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// network says of a crop what a network of a model folder says.
type network struct {
	model   *model.Model
	net     nets.Net
	decoder decoders.Decoder
}

// modelSettings are those of the kind model.
type modelSettings struct {
	engines.Settings
	// Top is how many labels are given at most.
	Top int `json:"top"`
	// First is a classifier that is asked before, such as one that costs less: what it
	// says of a crop is kept unless it drops the crop.
	First *lane.Setup `json:"first"`
}

func newModel(settings json.RawMessage, o engines.Options) (classifier, lane.Loaded, error) {
	var s modelSettings
	if err := lane.DecodeSettings(settings, &s); err != nil {
		return nil, lane.Loaded{}, err
	}
	c, loaded, err := openModel(s, o)
	if s.FallsBack(err) {
		return newClassifier(*s.Fallback, o)
	}
	return c, loaded, err
}

// openModel makes the classifier of a model folder, and the one before it.
func openModel(s modelSettings, o engines.Options) (classifier, lane.Loaded, error) {
	m, err := s.Load(o.Models)
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
	return inTurn{first, c}, lane.Loaded{
		Models: append(before.Models, loaded.Models...), Networks: append(before.Networks, loaded.Networks...),
	}, nil
}

// openKind makes the classifier of a model by its kind: that of a network is in package
// decoders, another one has a line here.
func openKind(m *model.Model, s modelSettings, o engines.Options) (classifier, lane.Loaded, error) {
	if m.Kind == "tesseract" {
		c, err := openReader(m, s)
		return c, engines.Loaded(m), err
	}
	c, err := openNetwork(m, s, o)
	if err != nil {
		return nil, lane.Loaded{}, err
	}
	return c, engines.Loaded(m, c.net), nil
}

// inTurn asks a second classifier about the crops that the first one drops.
type inTurn [2]classifier

// channels is any number: each of both gets what it wants.
func (inTurn) channels() int { return 0 }

func (t inTurn) classify(crop lane.Crop, pixels []byte) (lane.CropLabel, error) {
	label, err := classifyCrop(t[0], crop, pixels)
	if err != nil || !label.Drop {
		return label, err
	}
	return classifyCrop(t[1], crop, pixels)
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
	c := &network{model: m, net: net}
	if c.decoder, err = maker(m, nets.OutputNames(net),
		decoders.Options{Threshold: s.Threshold, Top: s.Top}); err != nil {
		net.Close()
		return nil, fmt.Errorf("model %s: %s with these settings: %w", m.Name, model.File, err)
	}
	return c, nil
}

// channels is 3: what a network wants of a crop is made from colours.
func (c *network) channels() int { return 3 }

func (c *network) classify(crop lane.Crop, pixels []byte) (lane.CropLabel, error) {
	label, err := c.label(crop, pixels)
	if err != nil {
		return lane.CropLabel{}, fmt.Errorf("model %s: %w", c.model.Name, err)
	}
	return label, nil
}

func (c *network) label(crop lane.Crop, pixels []byte) (lane.CropLabel, error) {
	m, err := gocv.NewMatFromBytes(crop.Height, crop.Width, gocv.MatTypeCV8UC3, pixels)
	if err != nil {
		return lane.CropLabel{}, fmt.Errorf("read crop: %w", err)
	}
	defer m.Close()
	input, _ := vision.Fit(m, c.model.Input)
	outputs, err := nets.Run(c.net, input, c.decoder.Outputs())
	if err != nil {
		return lane.CropLabel{}, err
	}
	return c.decoder.Decode(outputs, crop)
}
