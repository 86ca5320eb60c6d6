package detectors

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/detect/internal/decoders"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
	"github.com/sightmesh/sightmesh/services/internal/nets/engines"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// network finds regions with the network of a model folder.
type network struct {
	model          *model.Model
	net            nets.Net
	decoder        decoders.Decoder
	threshold, nms float64
}

// modelSettings are the settings of the kind model.
type modelSettings struct {
	engines.Settings
	cropping
	// NMS replaces the limit of the model; nil keeps that of the model.
	NMS *float64 `json:"nms"`
}

func newModel(settings json.RawMessage, o engines.Options) (detector, lane.Loaded, error) {
	s := modelSettings{cropping: defaultCropping()}
	if err := lane.DecodeSettings(settings, &s); err != nil {
		return nil, lane.Loaded{}, err
	}
	if err := s.validate(); err != nil {
		return nil, lane.Loaded{}, fmt.Errorf("settings.%w", err)
	}
	d, loaded, err := openModel(s, o)
	if s.ShouldFallBack(err) {
		return newDetector(*s.Fallback, o)
	}
	return d, loaded, err
}

// openModel creates the detector of a model folder by the kind of the model. Kinds that are
// not listed here are networks, see package decoders.
func openModel(s modelSettings, o engines.Options) (detector, lane.Loaded, error) {
	m, err := model.Open(o.Models, s.Model)
	if err != nil {
		return nil, lane.Loaded{}, err
	}
	switch m.Kind {
	case dbText:
		d, err := openTextNetwork(m, s, o)
		if err != nil {
			return nil, lane.Loaded{}, err
		}
		return d, engines.DescribeModel(m, d.net), nil
	case "cascade":
		d, err := openFinder(m, s, newCascadeModel)
		return d, engines.DescribeModel(m), err
	case "hog":
		d, err := openFinder(m, s, newHOG)
		return d, engines.DescribeModel(m), err
	case "qr":
		d, err := openQR(m, s)
		return d, engines.DescribeModel(m), err
	case "text-lines":
		d, err := openTextLines(m, s)
		return d, engines.DescribeModel(m), err
	}
	d, err := openNetwork(m, s, o)
	if err != nil {
		return nil, lane.Loaded{}, err
	}
	return cropper{d, s.cropping}, engines.DescribeModel(m, d.net), nil
}

// openFinder creates the detector of a model that is not a network and finds objects of one
// class.
func openFinder(m *model.Model, s modelSettings, open func(*model.Model) (finder, error)) (detector, error) {
	if s.Threshold != nil || s.NMS != nil {
		return nil, fmt.Errorf("settings: threshold and nms: not used by %s", m.Kind)
	}
	if err := m.CheckFields("weights", "labels", "classes", "settings"); err != nil {
		return nil, m.FieldError(err)
	}
	if err := m.RequireFields("weights", "labels", "classes"); err != nil {
		return nil, err
	}
	if m.Classes != 1 {
		return nil, m.FieldError(fmt.Errorf("classes: %d, want 1", m.Classes))
	}
	f, err := open(m)
	if err != nil {
		return nil, err
	}
	return cropper{f, s.cropping}, nil
}

func openNetwork(m *model.Model, s modelSettings, o engines.Options) (*network, error) {
	d := &network{model: m, nms: m.NMS}
	var err error
	if d.threshold, err = m.EffectiveThreshold(s.Threshold); err != nil {
		return nil, fmt.Errorf("model %s: %w", m.Name, err)
	}
	if s.NMS != nil {
		d.nms = *s.NMS
	}
	if !(d.nms >= 0 && d.nms <= 1) {
		return nil, fmt.Errorf("settings.nms: %v, want 0 to 1", d.nms)
	}
	maker, err := decoders.New(m.Kind)
	if err != nil {
		return nil, m.FieldError(err)
	}
	net, err := engines.Open(m, o)
	if err != nil {
		return nil, err
	}
	if d.decoder, err = maker(m, nets.OutputNames(net)); err != nil {
		net.Close()
		return nil, m.FieldError(err)
	}
	d.net = net
	return d, nil
}

func (d *network) find(m gocv.Mat, most int) ([]lane.Region, error) {
	input, at := vision.Fit(m, d.model.Input)
	boxes, err := d.boxes(input)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", d.model.Name, err)
	}
	regions := make([]lane.Region, 0, len(boxes))
	for _, b := range boxes {
		if r, ok := d.region(b, at, m.Cols(), m.Rows()); ok {
			regions = append(regions, r)
		}
	}
	regions = regions[:min(len(regions), most)] // sorted by score
	slices.SortStableFunc(regions, func(a, b lane.Region) int {
		return cmp.Or(cmp.Compare(a.Box.X, b.Box.X), cmp.Compare(a.Box.Y, b.Box.Y))
	})
	return regions, nil
}

// boxes runs the network and decodes its outputs. It rejects scores above 1: the network
// then has other outputs than its model declares.
func (d *network) boxes(input nets.Tensor) ([]decoders.Box, error) {
	outputs, err := nets.Run(d.net, input, d.decoder.Outputs())
	if err != nil {
		return nil, err
	}
	boxes, err := d.decoder.Decode(outputs, d.threshold)
	if err != nil {
		return nil, err
	}
	boxes = decoders.Suppress(boxes, d.nms)
	if len(boxes) > 0 && boxes[0].Score > 1.001 { // the first is the best
		return nil, fmt.Errorf("a score of %v, want at most 1: does output.format fit the network?", boxes[0].Score)
	}
	return boxes, nil
}

// region converts a box to a region in whole pixels of the image. It returns false for a box
// outside of the image.
func (d *network) region(b decoders.Box, at vision.Placement, width, height int) (lane.Region, bool) {
	x0, y0 := at.ToImage(b.X0, b.Y0)
	x1, y1 := at.ToImage(b.X1, b.Y1)
	left, top := clampRound(x0, 0, width), clampRound(y0, 0, height)
	right, bottom := clampRound(x1, 0, width), clampRound(y1, 0, height)
	if left == right || top == bottom {
		return lane.Region{}, false
	}
	r := lane.Region{
		Box:   v1.Box{X: left, Y: top, Width: right - left, Height: bottom - top},
		Score: math.Round(min(b.Score, 1)*1e4) / 1e4,
		Label: d.model.ClassNames[b.Class],
	}
	for i, name := range d.decoder.Landmarks() {
		x, y := at.ToImage(b.Landmarks[i].X, b.Landmarks[i].Y)
		r.Landmarks = append(r.Landmarks, v1.Landmark{
			Name: name, X: clampRound(x, -width, 2*width), Y: clampRound(y, -height, 2*height),
		})
	}
	return r, true
}

// clampRound returns f, limited to low to high and rounded.
func clampRound(f float64, low, high int) int {
	return int(math.Round(min(max(f, float64(low)), float64(high))))
}
