// Package classifiers is the lane program of classify: it says what crops are with
// Tesseract and OpenCV, with one classifier for each kind of pipeline. It may die
// of a crop, a model or a bug in a library; the worker then starts it again.
package classifiers

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/nets/engines"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// Run serves the parent process until it goes away.
func Run() error {
	vision.SingleThread()
	return lane.Run(newHandler())
}

// classifier says what crops are.
type classifier interface {
	// channels is how many of them classify wants of a crop: 1 for grey, 3 for blue,
	// green and red, or 0 for either.
	channels() int
	// classify says what each crop is, in their order. Its errors are of type
	// [*cropError].
	classify(crops []crop) ([]lane.CropLabel, error)
}

// crop is the part of an image with a region.
type crop struct {
	lane.Crop
	// pixels are height × width × channels bytes.
	pixels []byte
}

// oneByOne says what each crop is with a function for one of them.
func oneByOne(crops []crop, classify func(crop) (lane.CropLabel, error)) ([]lane.CropLabel, error) {
	labels := make([]lane.CropLabel, len(crops))
	for i, c := range crops {
		var err error
		if labels[i], err = classify(c); err != nil {
			return nil, &cropError{[]int{c.Region}, err}
		}
	}
	return labels, nil
}

// cropError says of which regions the crops are that could not be classified.
type cropError struct {
	regions []int // more than one for crops that run through a network at once
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

// newClassifier makes a classifier of a kind from its settings, and says what it has
// loaded.
func newClassifier(setup lane.Setup, o engines.Options) (classifier, lane.Loaded, error) {
	if len(setup.ByLabel) > 0 {
		return newByLabel(setup, o)
	}
	switch setup.Kind {
	case "tesseract":
		return newReader(setup.Settings)
	case "face-attributes":
		return newFaceAttributes(setup.Settings)
	case "model":
		return newModel(setup, o)
	}
	return nil, lane.Loaded{}, fmt.Errorf("classify has no kind %q", setup.Kind)
}

// Start loads what the pipelines ask for and runs each once on a blank crop.
func (h *handler) Start(s lane.Start) (map[string]lane.Loaded, error) {
	o := engines.FromStart(s)
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

// warmUp runs a classifier once on as many blank crops as run at once.
func warmUp(c classifier, batch int) error {
	blank := crop{Crop: lane.Crop{Width: 96, Height: 48, Channels: max(c.channels(), 1)}}
	blank.pixels = make([]byte, blank.Width*blank.Height*blank.Channels)
	_, err := c.classify(slices.Repeat([]crop{blank}, max(batch, 1)))
	if e, ok := errors.AsType[*cropError](err); ok {
		return e.err // blank crops are of no region
	}
	return err
}

// Classify says what each crop is.
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

// readCrops gives each crop its pixels, which stand one after the other.
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

// classifyCrops has a classifier say what crops are, with the channels that it wants.
func classifyCrops(c classifier, crops []crop) ([]lane.CropLabel, error) {
	wanted := c.channels()
	if wanted == 0 {
		return c.classify(crops)
	}
	converted := make([]crop, len(crops))
	for i, crop := range crops {
		var err error
		if converted[i], err = crop.withChannels(wanted); err != nil {
			return nil, &cropError{[]int{crop.Region}, err}
		}
	}
	return c.classify(converted)
}

// withChannels returns the crop with one channel or with three.
func (c crop) withChannels(n int) (crop, error) {
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

// Detect is not what this lane is for.
func (h *handler) Detect(lane.Detect, []byte) (lane.Detected, [][]byte, error) {
	return lane.Detected{}, nil, fmt.Errorf("this is a lane of classify")
}
