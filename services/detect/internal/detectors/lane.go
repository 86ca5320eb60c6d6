// Package detectors is the lane program of detect: it finds regions in images with OpenCV
// and ZXing-C++, with one detector for each kind of pipeline, and draws regions on images.
// An image, a model or a bug in a library may crash it; the worker then starts it again.
package detectors

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/nets/engines"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// Run serves the parent process until it exits.
func Run() error {
	vision.UseSingleThread()
	return lane.Run(newHandler())
}

// detector finds regions in an upright image, at most most of them. It returns crops only
// for the regions whose label is wanted, in the order of the regions.
type detector interface {
	detect(m gocv.Mat, most int, want cropFilter) ([]lane.Region, []crop, error)
}

// cropFilter reports whether the crop of a region with a label is wanted.
type cropFilter func(label string) bool

type handler struct{ detectors map[string]detector }

func newHandler() *handler { return &handler{detectors: map[string]detector{}} }

// newDetector creates the detector of a kind from its settings, and reports what it has
// loaded.
func newDetector(setup lane.Setup, o engines.Options) (detector, lane.Loaded, error) {
	kinds := map[string]func(settings json.RawMessage) (detector, lane.Loaded, error){
		"cascade":    newCascade,
		"codes":      newCodes,
		"model":      func(settings json.RawMessage) (detector, lane.Loaded, error) { return newModel(settings, o) },
		"text-lines": newTextLines,
	}
	if create, ok := kinds[setup.Kind]; ok {
		return create(setup.Settings)
	}
	return nil, lane.Loaded{}, fmt.Errorf("detect has no kind %q, want one of %s", setup.Kind,
		strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
}

// Start creates the detectors of the pipelines and runs each once on a blank image.
func (h *handler) Start(s lane.Start) (map[string]lane.Loaded, error) {
	o := engines.NewOptions(s)
	out := map[string]lane.Loaded{}
	blank := gocv.NewMatWithSize(240, 320, gocv.MatTypeCV8UC3)
	defer blank.Close()
	for name, setup := range s.Pipelines {
		if setup.Kind == DrawKind {
			out[name] = lane.Loaded{}
			continue
		}
		d, loaded, err := newDetector(setup, o)
		if err == nil {
			_, _, err = d.detect(blank, 1, lane.Detect{Crops: true}.WantsCrop)
		}
		if err != nil {
			out[name] = lane.Loaded{Error: strings.ReplaceAll(err.Error(), "\n", "; ")}
			continue
		}
		h.detectors[name] = d
		out[name] = loaded
	}
	return out, nil
}

// Detect decodes an image and finds its regions.
func (h *handler) Detect(r lane.Detect, file []byte) (lane.Detected, [][]byte, error) {
	d, ok := h.detectors[r.Pipeline]
	if !ok {
		return lane.Detected{}, nil, fmt.Errorf("pipeline %q is not loaded", r.Pipeline)
	}
	start := time.Now()
	img, err := vision.Decode(file)
	if err != nil {
		return lane.Detected{}, nil, err
	}
	m := img.Mat
	defer m.Close()
	decoded := time.Now()
	regions, crops, err := d.detect(m, r.MaxRegions, r.WantsCrop)
	if err != nil {
		return lane.Detected{}, nil, err
	}
	out := lane.Detected{
		Width: m.Cols(), Height: m.Rows(), Orientation: img.Orientation, Damage: img.Damage,
		Regions: regions,
		Timing:  lane.Timing{DecodeMS: v1.Milliseconds(decoded.Sub(start)), InferMS: v1.Milliseconds(time.Since(decoded))},
	}
	var pixels [][]byte
	for i, region := range regions {
		if !r.WantsCrop(region.Label) {
			continue
		}
		c := crops[len(pixels)]
		shape := lane.Crop{Region: i, Width: c.width, Height: c.height, Channels: c.channels}
		if !c.source.Empty() {
			box := toBox(c.source)
			shape.Source = &box
		}
		out.Crops = append(out.Crops, shape)
		pixels = append(pixels, c.pixels)
	}
	return out, pixels, nil
}

// Classify returns an error: lanes of detect do not classify.
func (h *handler) Classify(lane.Classify, []byte) (lane.Classified, error) {
	return lane.Classified{}, fmt.Errorf("this is a lane of detect")
}
