// Package classifiers is the lane program of classify: it says what crops are with
// Tesseract and OpenCV, with one classifier for each kind of pipeline. It may die
// of a crop, a model or a bug in a library; the worker then starts it again.
package classifiers

import (
	"fmt"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// Run serves the parent process until it goes away.
func Run() error {
	vision.SingleThread()
	return lane.Run(newHandler())
}

// classifier says what one crop is; pixels are as the crop says.
type classifier interface {
	classify(c lane.Crop, pixels []byte) (lane.CropLabel, error)
}

type handler struct{ classifiers map[string]classifier }

func newHandler() *handler { return &handler{classifiers: map[string]classifier{}} }

// newClassifier makes a classifier of a kind from its settings, and says what it has
// loaded.
func newClassifier(setup lane.Setup) (classifier, lane.Loaded, error) {
	switch setup.Kind {
	case "tesseract":
		return newReader(setup.Settings)
	case "face-attributes":
		return newFaceAttributes(setup.Settings)
	}
	return nil, lane.Loaded{}, fmt.Errorf("classify has no kind %q", setup.Kind)
}

// Start loads what the pipelines ask for and runs each once on a blank crop.
func (h *handler) Start(s lane.Start) (map[string]lane.Loaded, error) {
	out := map[string]lane.Loaded{}
	blank := lane.Crop{Width: 96, Height: 48, Channels: 1}
	for name, setup := range s.Pipelines {
		c, loaded, err := newClassifier(setup)
		if err == nil {
			_, err = c.classify(blank, make([]byte, blank.Width*blank.Height))
		}
		if err != nil {
			out[name] = lane.Loaded{Error: err.Error()}
			continue
		}
		h.classifiers[name] = c
		out[name] = loaded
	}
	return out, nil
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
		if crop.Channels != 1 || n <= 0 || n > len(pixels) {
			return out, v1.NewProblem(v1.InvalidMessage, "crop of region %d is %d x %d x %d, want one channel, with %d bytes left", crop.Region, crop.Width, crop.Height, crop.Channels, len(pixels))
		}
		answer, err := c.classify(crop, pixels[:n])
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

// Detect is not what this lane is for.
func (h *handler) Detect(lane.Detect, []byte) (lane.Detected, [][]byte, error) {
	return lane.Detected{}, nil, fmt.Errorf("this is a lane of classify")
}
