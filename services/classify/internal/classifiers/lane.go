// Package classifiers is the lane program of classify: it says what crops are with
// Tesseract and OpenCV, with one classifier for each kind of pipeline. It may die
// of a crop, a model or a bug in a library; the worker then starts it again.
package classifiers

import (
	"fmt"
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

// classifier says what one crop is.
type classifier interface {
	// channels is how many of them classify wants of a crop: 1 for grey, 3 for blue,
	// green and red, or 0 for either.
	channels() int
	// classify says what a crop is, whose pixels are as the crop says.
	classify(c lane.Crop, pixels []byte) (lane.CropLabel, error)
}

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
		return newModel(setup.Settings, o)
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
			err = warmUp(c)
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

// warmUp runs a classifier once on a blank crop.
func warmUp(c classifier) error {
	blank := lane.Crop{Width: 96, Height: 48, Channels: max(c.channels(), 1)}
	_, err := c.classify(blank, make([]byte, blank.Width*blank.Height*blank.Channels))
	return err
}

// Classify says what each crop is, one after the other.
func (h *handler) Classify(r lane.Classify, pixels []byte) (lane.Classified, error) {
	c, ok := h.classifiers[r.Pipeline]
	if !ok {
		return lane.Classified{}, fmt.Errorf("pipeline %q is not loaded", r.Pipeline)
	}
	start := time.Now()
	out := lane.Classified{Answers: make([]lane.CropLabel, 0, len(r.Crops))}
	for _, crop := range r.Crops {
		n := crop.Width * crop.Height * crop.Channels
		if (crop.Channels != 1 && crop.Channels != 3) || crop.Width < 1 || crop.Height < 1 || n > len(pixels) {
			return out, v1.NewProblem(v1.InvalidMessage,
				"crop of region %d is %d x %d x %d, want one channel or three, with %d bytes left",
				crop.Region, crop.Width, crop.Height, crop.Channels, len(pixels))
		}
		answer, err := classifyCrop(c, crop, pixels[:n])
		if err != nil {
			return out, fmt.Errorf("region %d: %w", crop.Region, err)
		}
		answer.Region = crop.Region
		out.Answers = append(out.Answers, answer)
		pixels = pixels[n:]
	}
	out.Timing = lane.Timing{InferMS: v1.Milliseconds(time.Since(start))}
	return out, nil
}

// classifyCrop has a classifier say what a crop is, with the channels that it wants.
func classifyCrop(c classifier, crop lane.Crop, pixels []byte) (lane.CropLabel, error) {
	kind, conversion := gocv.MatTypeCV8UC3, gocv.ColorBGRToGray
	if crop.Channels == 1 {
		kind, conversion = gocv.MatTypeCV8UC1, gocv.ColorGrayToBGR
	}
	if wanted := c.channels(); wanted == crop.Channels || wanted == 0 {
		return c.classify(crop, pixels)
	}
	m, err := gocv.NewMatFromBytes(crop.Height, crop.Width, kind, pixels)
	if err != nil {
		return lane.CropLabel{}, fmt.Errorf("read crop: %w", err)
	}
	defer m.Close()
	gocv.CvtColor(m, &m, conversion)
	crop.Channels = c.channels()
	return c.classify(crop, m.ToBytes())
}

// Detect is not what this lane is for.
func (h *handler) Detect(lane.Detect, []byte) (lane.Detected, [][]byte, error) {
	return lane.Detected{}, nil, fmt.Errorf("this is a lane of classify")
}
