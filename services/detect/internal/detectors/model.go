package detectors

import (
	"cmp"
	"encoding/json"
	"errors"
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

// network finds what a network of a model folder finds.
type network struct {
	model          *model.Model
	net            nets.Net
	decoder        decoders.Decoder
	threshold, nms float64
	squareCrops    bool
}

// modelSettings are those of the kind model.
type modelSettings struct {
	// Model is the name of a folder in the folder of models, or the path of a folder.
	Model string `json:"model"`
	// Threshold and NMS are used in place of those of the model.
	Threshold *float64 `json:"threshold"`
	NMS       *float64 `json:"nms"`
	// SquareCrops makes each crop a square around its region, of the mean of its sides,
	// as the cascades for faces were trained with.
	SquareCrops bool `json:"square_crops"`
	// Fallback is the detector that is used when there is no such folder.
	Fallback *lane.Setup `json:"fallback"`
}

func newModel(settings json.RawMessage, o engines.Options) (detector, lane.Loaded, error) {
	var s modelSettings
	if err := lane.DecodeSettings(settings, &s); err != nil {
		return nil, lane.Loaded{}, err
	}
	dir, err := model.Find(o.Models, s.Model)
	if err != nil {
		return nil, lane.Loaded{}, fmt.Errorf("settings: %w", err)
	}
	m, err := model.Load(dir)
	if err != nil {
		absent := errors.Is(err, model.ErrAbsent)
		if absent && s.Fallback != nil {
			return newDetector(*s.Fallback, o)
		}
		if absent {
			err = fmt.Errorf("%w; docs/models.md says how to get models", err)
		}
		return nil, lane.Loaded{}, err
	}
	d, err := openNetwork(m, s, o)
	if err != nil {
		return nil, lane.Loaded{}, err
	}
	return d, lane.Loaded{
		Models:   []v1.Model{{Name: m.Name, Version: m.Version}},
		Networks: []lane.Network{nets.Describe(m.Name, d.net)},
	}, nil
}

func openNetwork(m *model.Model, s modelSettings, o engines.Options) (*network, error) {
	d := &network{model: m, threshold: m.Threshold, nms: m.NMS, squareCrops: s.SquareCrops}
	if s.Threshold != nil {
		d.threshold = *s.Threshold
	}
	if s.NMS != nil {
		d.nms = *s.NMS
	}
	switch {
	case !(d.threshold > 0 && d.threshold <= 1):
		return nil, fmt.Errorf("model %s: threshold: %v in %s and the settings, want more than 0, and at most 1", m.Name, d.threshold, model.File)
	case !(d.nms >= 0 && d.nms <= 1):
		return nil, fmt.Errorf("settings: nms: %v, want 0 to 1", d.nms)
	}
	net, err := engines.Open(m, o)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(net.Outputs()))
	for _, o := range net.Outputs() {
		names = append(names, o.Name)
	}
	if d.decoder, err = decoders.New(m, names); err != nil {
		net.Close()
		return nil, fmt.Errorf("model %s: %s: %w", m.Name, model.File, err)
	}
	d.net = net
	return d, nil
}

func (d *network) detect(m gocv.Mat, most int, crops bool) ([]lane.Region, []crop, error) {
	input, at := vision.Fit(m, d.model.Input)
	boxes, err := d.boxes(input)
	if err != nil {
		return nil, nil, fmt.Errorf("model %s: %w", d.model.Name, err)
	}
	regions := make([]lane.Region, 0, len(boxes))
	for _, b := range boxes {
		if r, ok := d.region(b, at, m.Cols(), m.Rows()); ok {
			regions = append(regions, r)
		}
	}
	regions = regions[:min(len(regions), most)] // the surest are first
	slices.SortStableFunc(regions, func(a, b lane.Region) int {
		return cmp.Or(cmp.Compare(a.Box.X, b.Box.X), cmp.Compare(a.Box.Y, b.Box.Y))
	})
	if !crops {
		return regions, nil, nil
	}
	grey := vision.Grey(m)
	defer grey.Close()
	var cut []crop
	for _, r := range regions {
		box := toRectangle(r.Box)
		if d.squareCrops {
			box = squareAround(box, grey.Cols(), grey.Rows())
		}
		cut = append(cut, cutGrey(grey, box))
	}
	return regions, cut, nil
}

// boxes runs the network. What it gives is checked each time: a network whose outputs are
// not numbers, or not those that its model declares, must not look like one that has
// found nothing.
func (d *network) boxes(input nets.Tensor) ([]decoders.Box, error) {
	names := d.decoder.Outputs()
	outputs, err := d.net.Run(input, names...)
	if err != nil {
		return nil, err
	}
	for i, out := range outputs {
		if slices.ContainsFunc(out.Data, isNaN) {
			return nil, fmt.Errorf("output %s has values that are not numbers (NaN)", names[i])
		}
	}
	boxes, err := d.decoder.Decode(outputs, d.threshold)
	if err != nil {
		return nil, err
	}
	boxes = decoders.Suppress(boxes, d.nms)
	if len(boxes) > 0 && boxes[0].Score > 1.001 { // the first is the best
		return nil, fmt.Errorf("a score of %v, want at most 1: is the output format the one of the network?", boxes[0].Score)
	}
	return boxes, nil
}

func isNaN(f float32) bool { return math.IsNaN(float64(f)) }

// region brings a box to whole pixels of an image, if any of it lies inside.
func (d *network) region(b decoders.Box, at vision.Placement, width, height int) (lane.Region, bool) {
	x0, y0 := at.ToImage(b.X0, b.Y0)
	x1, y1 := at.ToImage(b.X1, b.Y1)
	left, top := within(x0, 0, width), within(y0, 0, height)
	right, bottom := within(x1, 0, width), within(y1, 0, height)
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
		r.Landmarks = append(r.Landmarks, v1.Landmark{Name: name, X: within(x, -width, 2*width), Y: within(y, -height, 2*height)})
	}
	return r, true
}

// within returns the whole number next to f between two others.
func within(f float64, low, high int) int {
	return int(math.Round(min(max(f, float64(low)), float64(high))))
}
