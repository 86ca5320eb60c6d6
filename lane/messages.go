package lane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Protocol is the version of the conversation that this package speaks.
const Protocol = 1

// Type tells the messages apart; it is the "type" of every facts object.
type Type string

// The types there are.
const (
	TypeStart      Type = "start"
	TypeReady      Type = "ready"
	TypeDetect     Type = "detect"
	TypeDetected   Type = "detected"
	TypeClassify   Type = "classify"
	TypeClassified Type = "classified"
	TypeDraw       Type = "draw"
	TypeDrawn      Type = "drawn"
	TypeFailed     Type = "failed"
)

// Start is the first message: what the lane will be asked to do.
type Start struct {
	Type     Type   `json:"type"`
	Protocol int    `json:"protocol"`
	Stage    string `json:"stage"` // detect or classify
	// Models is the folder in which models are looked for by name; empty when the
	// worker has none.
	Models string `json:"models,omitempty"`
	// ONNXRuntime says where and how built-in lanes run networks with ONNX Runtime;
	// nothing for a library that is found by itself, and the CPU.
	ONNXRuntime *ONNXRuntime `json:"onnxruntime,omitempty"`
	// Pipelines by name, each with its own settings.
	Pipelines map[string]Setup `json:"pipelines"`
}

// ONNXRuntime configures the engine of that name.
type ONNXRuntime struct {
	// Library is the path of the shared library; empty to look for it in the folder of
	// models and in the system.
	Library string `json:"library,omitempty"`
	// Providers run what they can of a network, the first one first, and the CPU the
	// rest.
	Providers []Provider `json:"providers,omitempty"`
}

// Provider is an execution provider of ONNX Runtime.
type Provider struct {
	// Name is "cpu", "cuda" or "tensorrt".
	Name string `json:"name"`
	// Device is the number of the GPU.
	Device int `json:"device,omitempty"`
	// Settings are those that ONNX Runtime documents for the provider, such as
	// "gpu_mem_limit" of cuda.
	Settings map[string]string `json:"settings,omitempty"`
}

// Setup is what one pipeline asks of a lane.
type Setup struct {
	// Kind names what a built-in lane should load; a lane of the user's own
	// is free to ignore it.
	Kind string `json:"kind,omitempty"`
	// Settings are those of the pipeline's configuration, as JSON.
	Settings json.RawMessage `json:"settings,omitempty"`
	// ByLabel, in place of a kind, has what a built-in lane of classify loads for the
	// crops of each label.
	ByLabel map[string]Setup `json:"by_label,omitempty"`
	// Batch is how many crops of a message a lane of classify should run through its
	// network at once, at most. 0 and 1 stand for one after the other.
	Batch int `json:"batch,omitempty"`
}

// DecodeSettings reads settings into a struct that holds the defaults. A field
// that the struct does not have is an error that names it.
func DecodeSettings(raw json.RawMessage, into any) error {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

// Ready answers Start once every model is loaded and warm.
type Ready struct {
	Type      Type              `json:"type"`
	Protocol  int               `json:"protocol"`
	Pipelines map[string]Loaded `json:"pipelines"`
}

// Loaded says how one pipeline came up.
type Loaded struct {
	Models []v1.Model `json:"models,omitempty"`
	// Networks describes what runs the models that are networks; for people who look
	// into a model.
	Networks []Network `json:"networks,omitempty"`
	// Error says why the pipeline cannot be served; empty when it can.
	Error string `json:"error,omitempty"`
}

// Network is a loaded network.
type Network struct {
	// Model is the name of its model.
	Model string `json:"model"`
	// Engine runs it, such as "onnxruntime 1.28.2".
	Engine  string   `json:"engine"`
	Inputs  []Tensor `json:"inputs,omitempty"`
	Outputs []Tensor `json:"outputs,omitempty"`
}

// Tensor is an input or an output of a network. A dimension of -1 is any; an engine that
// does not know the shape leaves it out.
type Tensor struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape,omitempty"`
}

// Detect asks for the regions of one picture; the file is in the pixels.
type Detect struct {
	Type     Type   `json:"type"`
	ID       uint64 `json:"id"`
	Pipeline string `json:"pipeline"`
	// MediaType is what the content was found to be.
	MediaType string `json:"media_type"`
	// MaxRegions is how many regions are wanted at most, the surest first to
	// be kept.
	MaxRegions int `json:"max_regions"`
	// Crops tells whether the pixels of the regions are wanted.
	Crops bool `json:"crops"`
	// CropLabels are the labels of the regions whose crops are wanted; nothing for those
	// of all. A lane may send the crops of all the same.
	CropLabels []string `json:"crop_labels,omitempty"`
}

// WantsCrop reports whether the crop of a region with the label is wanted.
func (d Detect) WantsCrop(label string) bool {
	return d.Crops && (len(d.CropLabels) == 0 || slices.Contains(d.CropLabels, label))
}

// Detected answers Detect. The pixels of the crops follow in order.
type Detected struct {
	Type Type   `json:"type"`
	ID   uint64 `json:"id"`
	// Width and Height are those of the upright picture; Orientation is the
	// EXIF orientation that was applied, 1 for none.
	Width       int `json:"width"`
	Height      int `json:"height"`
	Orientation int `json:"orientation,omitempty"`
	// Damage says what is missing or wrong of an image that was read although its
	// file is damaged.
	Damage  string   `json:"damage,omitempty"`
	Regions []Region `json:"regions"` // in reading order
	// Crops, where they were asked for, in the order of the regions and without a label:
	// one for each region, or one for each whose label is among those of the request.
	Crops  []Crop `json:"crops,omitempty"`
	Timing Timing `json:"timing"`
}

// Region is something a detector found.
type Region struct {
	Box   v1.Box  `json:"box"`
	Score float64 `json:"score"`
	Label string  `json:"label,omitempty"`
	// Polygon has the corners of a region whose sides are not those of Box, clockwise
	// from the top left of what is in it: none, or 3 to [MaxCorners]. With four, the crop
	// is what lies between them, turned upright.
	Polygon []v1.Point `json:"polygon,omitempty"`
	// Text is what the detector itself has read, such as the content of a code.
	Text string `json:"text,omitempty"`
	// Landmarks are points that the detector knows by name, at most [MaxLandmarks].
	Landmarks []v1.Landmark `json:"landmarks,omitempty"`
}

// MaxLabel is how many bytes the label of a region may have.
const MaxLabel = 256

// MaxCorners is how many corners the polygon of a region may have.
const MaxCorners = 1000

// MaxLandmarks is how many landmarks a region may have.
const MaxLandmarks = 1000

// Crop gives the shape of the pixels of one region: Width × Height × Channels
// bytes, eight bits a sample, rows from the top, no padding; Channels is 1
// (grey) or 3 (blue, green, red).
type Crop struct {
	Region   int `json:"region"`
	Width    int `json:"width"`
	Height   int `json:"height"`
	Channels int `json:"channels"`
	// Label is that of the region, in a [Classify] message.
	Label string `json:"label,omitempty"`
	// Source is where in the upright image the pixels come from, when it is not the box
	// of the region. It is in answers to Detect only.
	Source *v1.Box `json:"source,omitempty"`
}

// Classify asks what some crops of one picture are; their pixels follow.
type Classify struct {
	Type     Type   `json:"type"`
	ID       uint64 `json:"id"`
	Pipeline string `json:"pipeline"`
	Crops    []Crop `json:"crops"`
}

// Classified answers Classify with one entry for each crop, in order.
type Classified struct {
	Type    Type        `json:"type"`
	ID      uint64      `json:"id"`
	Answers []CropLabel `json:"answers"`
	Timing  Timing      `json:"timing"`
}

// CropLabel is what a crop is. Boxes of words are in pixels of the crop.
type CropLabel struct {
	Region int `json:"region"`
	// Drop says that the crop shows nothing of what the pipeline looks for:
	// the region is left out of the answer.
	Drop bool `json:"drop,omitempty"`
	// Score is how sure the lane is of Text, or of the first of Labels. With
	// neither, the detector's score stays.
	Score  float64    `json:"score,omitempty"`
	Labels []v1.Label `json:"labels,omitempty"`
	Text   string     `json:"text,omitempty"`
	Words  []v1.Word  `json:"words,omitempty"`
	// Embedding is a vector of length 1 that is near to those of similar crops, of at most
	// [MaxEmbedding] numbers.
	Embedding []float32 `json:"embedding,omitempty"`
}

// MaxEmbedding is how many numbers an embedding may have.
const MaxEmbedding = 4096

// Draw asks for an image with regions drawn on it; the file is in the pixels.
type Draw struct {
	Type     Type   `json:"type"`
	ID       uint64 `json:"id"`
	Pipeline string `json:"pipeline"`
	// MediaType is what is wanted: image/png or image/jpeg.
	MediaType string          `json:"media_type"`
	Regions   []v1.DrawRegion `json:"regions"`
}

// Drawn answers Draw. The encoded image is in the pixels.
type Drawn struct {
	Type Type   `json:"type"`
	ID   uint64 `json:"id"`
	// Width and Height are those of the upright image.
	Width  int `json:"width"`
	Height int `json:"height"`
}

// Timing says where a lane's time went, in milliseconds.
type Timing struct {
	DecodeMS float64 `json:"decode_ms,omitempty"`
	InferMS  float64 `json:"infer_ms"`
}

// Failed answers a request that cannot be answered. Code is one of the problem
// codes that docs/lanes.md lists, [v1.Damaged] for an image that does not decode.
type Failed struct {
	Type   Type    `json:"type"`
	ID     uint64  `json:"id"`
	Code   v1.Code `json:"code"`
	Detail string  `json:"detail"`
}
