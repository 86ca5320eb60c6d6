// Package classifiers is the lane program of classify: it classifies crops with Tesseract,
// OpenCV and networks, with one classifier for each kind of pipeline. A crop, a model or a
// bug in a library may crash it; the worker then starts it again.
package classifiers

import (
	"encoding/json"
	"errors"
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

// classifier classifies crops.
type classifier interface {
	// channels returns the number of channels that crops must have: 1 for grey, 3 for
	// blue, green and red, or 0 for either.
	channels() int
	// classify returns one outcome per crop, in the order of the crops. Its errors are of
	// type [*cropError].
	classify(crops []crop) ([]lane.CropLabel, error)
}

// crop is the part of an image that contains a region.
type crop struct {
	lane.Crop
	// pixels has height × width × channels bytes.
	pixels []byte
}

// classifyEach classifies crops with a function that classifies one crop.
func classifyEach(crops []crop, classify func(crop) (lane.CropLabel, error)) ([]lane.CropLabel, error) {
	labels := make([]lane.CropLabel, len(crops))
	for i, c := range crops {
		var err error
		if labels[i], err = classify(c); err != nil {
			return nil, &cropError{[]int{c.Region}, err}
		}
	}
	return labels, nil
}

// cropError is an error with the regions whose crops could not be classified.
type cropError struct {
	regions []int // several for crops of one batch
	err     error
}

func (e *cropError) Error() string {
	if len(e.regions) == 1 {
		return fmt.Sprintf("region %d: %v", e.regions[0], e.err)
	}
	return fmt.Sprintf("regions %v: %v", e.regions, e.err)
}

func (e *cropError) Unwrap() error { return e.err }

type handler struct{ classifiers map[string]classifier }

func newHandler() *handler { return &handler{classifiers: map[string]classifier{}} }

// newClassifier creates the classifier of a kind from its settings, and reports what it has
// loaded.
func newClassifier(setup lane.Setup, o engines.Options) (classifier, lane.Loaded, error) {
	if len(setup.ByLabel) > 0 {
		return newByLabel(setup, o)
	}
	kinds := map[string]func(settings json.RawMessage) (classifier, lane.Loaded, error){
		"face-attributes": newFaceAttributes,
		"model":           func(json.RawMessage) (classifier, lane.Loaded, error) { return newModel(setup, o) },
		"tesseract":       newReader,
	}
	if create, ok := kinds[setup.Kind]; ok {
		return create(setup.Settings)
	}
	return nil, lane.Loaded{}, fmt.Errorf("classify has no kind %q, want one of %s", setup.Kind,
		strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
}

// Start creates the classifiers of the pipelines and runs each once on blank crops.
func (h *handler) Start(s lane.Start) (map[string]lane.Loaded, error) {
	o := engines.NewOptions(s)
	out := map[string]lane.Loaded{}
	for name, setup := range s.Pipelines {
		c, loaded, err := newClassifier(setup, o)
		if err == nil {
			err = warmUp(c, setup.Batch)
		}
		if err != nil {
			out[name] = lane.Loaded{Error: strings.ReplaceAll(err.Error(), "\n", "; ")}
			continue
		}
		h.classifiers[name] = c
		out[name] = loaded
	}
	return out, nil
}

// warmUp runs a classifier once on a batch of blank crops.
func warmUp(c classifier, batch int) error {
	blank := crop{Crop: lane.Crop{Width: 96, Height: 48, Channels: max(c.channels(), 1)}}
	blank.pixels = make([]byte, blank.Width*blank.Height*blank.Channels)
	_, err := c.classify(slices.Repeat([]crop{blank}, max(batch, 1)))
	if e, ok := errors.AsType[*cropError](err); ok {
		return e.err // blank crops do not belong to a region
	}
	return err
}

// Classify classifies crops, whose pixels are concatenated.
func (h *handler) Classify(r lane.Classify, pixels []byte) (lane.Classified, error) {
	c, ok := h.classifiers[r.Pipeline]
	if !ok {
		return lane.Classified{}, fmt.Errorf("pipeline %q is not loaded", r.Pipeline)
	}
	start := time.Now()
	crops, err := readCrops(r.Crops, pixels)
	if err != nil {
		return lane.Classified{}, err
	}
	labels, err := classifyCrops(c, crops)
	if err != nil {
		return lane.Classified{}, err
	}
	for i := range labels {
		labels[i].Region = crops[i].Region
	}
	return lane.Classified{Answers: labels, Timing: lane.Timing{InferMS: v1.Milliseconds(time.Since(start))}}, nil
}

// readCrops splits concatenated pixels into those of each crop.
func readCrops(described []lane.Crop, pixels []byte) ([]crop, error) {
	crops := make([]crop, len(described))
	for i, c := range described {
		n := c.Width * c.Height * c.Channels
		if (c.Channels != 1 && c.Channels != 3) || c.Width < 1 || c.Height < 1 || n > len(pixels) {
			return nil, v1.NewProblem(v1.InvalidMessage,
				"crop of region %d is %d x %d x %d, want one channel or three, with %d bytes left",
				c.Region, c.Width, c.Height, c.Channels, len(pixels))
		}
		crops[i] = crop{c, pixels[:n]}
		pixels = pixels[n:]
	}
	return crops, nil
}

// classifyCrops classifies crops with a classifier, after converting them to the number of
// channels that it needs.
func classifyCrops(c classifier, crops []crop) ([]lane.CropLabel, error) {
	wanted := c.channels()
	if wanted == 0 {
		return c.classify(crops)
	}
	converted := make([]crop, len(crops))
	for i, crop := range crops {
		var err error
		if converted[i], err = crop.convertChannels(wanted); err != nil {
			return nil, &cropError{[]int{crop.Region}, err}
		}
	}
	return c.classify(converted)
}

// convertChannels returns the crop converted to n channels, 1 or 3.
func (c crop) convertChannels(n int) (crop, error) {
	if c.Channels == n {
		return c, nil
	}
	kind, conversion := gocv.MatTypeCV8UC3, gocv.ColorBGRToGray
	if c.Channels == 1 {
		kind, conversion = gocv.MatTypeCV8UC1, gocv.ColorGrayToBGR
	}
	m, err := gocv.NewMatFromBytes(c.Height, c.Width, kind, c.pixels)
	if err != nil {
		return crop{}, fmt.Errorf("read crop: %w", err)
	}
	defer m.Close()
	gocv.CvtColor(m, &m, conversion)
	c.Channels, c.pixels = n, m.ToBytes()
	return c, nil
}

// Detect returns an error: lanes of classify do not detect.
func (h *handler) Detect(lane.Detect, []byte) (lane.Detected, [][]byte, error) {
	return lane.Detected{}, nil, fmt.Errorf("this is a lane of classify")
}
