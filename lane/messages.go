package lane

import (
	"encoding/json"
	"slices"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Protocol is the version of the protocol of this package.
const Protocol = 1

// Type is the type of a message: the field "type" of its facts.
type Type string

// The types.
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

// Start is the first message. It has the pipelines that the lane serves.
type Start struct {
	Type     Type   `json:"type"`
	Protocol int    `json:"protocol"`
	Stage    string `json:"stage"` // detect or classify
	// Models is the folder of models. Empty when the worker has none.
	Models string `json:"models,omitempty"`
	// ONNXRuntime configures ONNX Runtime in built-in lanes. When it is absent, they search
	// for the library and use the CPU.
	ONNXRuntime *ONNXRuntime `json:"onnxruntime,omitempty"`
	// Pipelines are the pipelines to serve, by name.
	Pipelines map[string]Setup `json:"pipelines"`
}

// ONNXRuntime configures the engine ONNX Runtime.
type ONNXRuntime struct {
	// Library is the path of the shared library. When it is empty, the library is searched
	// in the folder of models and in the system.
	Library string `json:"library,omitempty"`
	// Providers run the parts of a network that they support, in order of preference. The
	// CPU runs the rest.
	Providers []Provider `json:"providers,omitempty"`
}

// Provider is an execution provider of ONNX Runtime.
type Provider struct {
	// Name is "cpu", "cuda" or "tensorrt".
	Name string `json:"name"`
	// Device is the number of the GPU, from 0.
	Device int `json:"device,omitempty"`
	// Settings are the settings that ONNX Runtime documents for the provider, such as
	// "gpu_mem_limit" of cuda.
	Settings map[string]string `json:"settings,omitempty"`
}

// Setup is the configuration of one pipeline in a lane.
type Setup struct {
	// Kind is the kind of detector or classifier that a built-in lane loads. Other lanes can
	// ignore it.
	Kind string `json:"kind,omitempty"`
	// Settings are the settings of the stage in the pipelines file, as JSON.
	Settings json.RawMessage `json:"settings,omitempty"`
	// ByLabel, instead of Kind, has what a built-in lane of classify loads for the crops of
	// each label.
	ByLabel map[string]Setup `json:"by_label,omitempty"`
	// Batch is the largest number of crops that a lane of classify should run through its
	// network at once. 0 and 1 mean one crop at a time.
	Batch int `json:"batch,omitempty"`
}

// Ready is the reply to Start, after every model is loaded and has run once.
type Ready struct {
	Type      Type              `json:"type"`
	Protocol  int               `json:"protocol"`
	Pipelines map[string]Loaded `json:"pipelines"`
}

// Loaded is the state of one pipeline in a lane.
type Loaded struct {
	Models []v1.Model `json:"models,omitempty"` // models that were loaded
	// Networks describes the models that are networks, for people.
	Networks []Network `json:"networks,omitempty"`
	// Error is why the pipeline cannot be served. Empty when it can.
	Error string `json:"error,omitempty"`
}

// Network is a loaded network.
type Network struct {
	// Model is the name of the model.
	Model string `json:"model"`
	// Engine is the engine that runs it, such as "onnxruntime 1.28.2".
	Engine  string   `json:"engine"`
	Inputs  []Tensor `json:"inputs,omitempty"`
	Outputs []Tensor `json:"outputs,omitempty"`
}

// Tensor is an input or an output of a network. A dimension of -1 can be any size. Shape is
// absent when the engine does not know it.
type Tensor struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape,omitempty"`
}

// Detect is a request for the regions of an image. The pixels of the frame are the file.
type Detect struct {
	Type     Type   `json:"type"`
	ID       uint64 `json:"id"`
	Pipeline string `json:"pipeline"`
	// MediaType is the media type of the file, determined from its content.
	MediaType string `json:"media_type"`
	// MaxRegions is the largest number of regions to return: those with the highest scores.
	MaxRegions int `json:"max_regions"`
	// Crops says whether to return the pixels of the regions.
	Crops bool `json:"crops"`
	// CropLabels are the labels of the regions whose crops to return. Empty means all
	// regions. A lane may always return the crops of all regions.
	CropLabels []string `json:"crop_labels,omitempty"`
}

// WantsCrop reports whether the crop of a region with the label is wanted.
func (d Detect) WantsCrop(label string) bool {
	return d.Crops && (len(d.CropLabels) == 0 || slices.Contains(d.CropLabels, label))
}

// Detected is the reply to Detect. The pixels of the frame are those of the crops in order.
type Detected struct {
	Type   Type   `json:"type"`
	ID     uint64 `json:"id"`
	Width  int    `json:"width"`  // width of the upright image
	Height int    `json:"height"` // height of the upright image
	// Orientation is the EXIF orientation that was applied, 1 for none.
	Orientation int `json:"orientation,omitempty"`
	// Damage describes what is missing or wrong in a damaged file that could be read
	// nevertheless.
	Damage  string   `json:"damage,omitempty"`
	Regions []Region `json:"regions"` // in reading order
	// Crops are in the order of the regions and without labels, if the request has Crops:
	// one for each region, or one for each region with a label of CropLabels.
	Crops  []Crop `json:"crops,omitempty"`
	Timing Timing `json:"timing"`
}

// Region is a region that a detector has found.
type Region struct {
	Box   v1.Box  `json:"box"`
	Score float64 `json:"score"`
	Label string  `json:"label,omitempty"`
	// Polygon has the corners of a region whose sides differ from those of Box, clockwise
	// from the top left of the content: none, or 3 to [MaxCorners]. With four corners, the
	// crop is the area between them, turned upright.
	Polygon []v1.Point `json:"polygon,omitempty"`
	// Text is text that the detector has read itself, such as the content of a code.
	Text string `json:"text,omitempty"`
	// Landmarks are named points, at most [MaxLandmarks].
	Landmarks []v1.Landmark `json:"landmarks,omitempty"`
}

// MaxLabel is the largest number of bytes of a label.
const MaxLabel = 256

// MaxCorners is the largest number of corners of a polygon.
const MaxCorners = 1000

// MaxLandmarks is the largest number of landmarks of a region.
const MaxLandmarks = 1000

// Crop is the shape of the pixels of one region: Width × Height × Channels bytes, with
// eight bits for each sample, in rows from the top, without padding. Channels is 1 (grey)
// or 3 (blue, green, red).
type Crop struct {
	Region   int `json:"region"`
	Width    int `json:"width"`
	Height   int `json:"height"`
	Channels int `json:"channels"`
	// Label is the label of the region, in a [Classify] message.
	Label string `json:"label,omitempty"`
	// Source is the box of the upright image that the pixels come from, when it is not the
	// box of the region. Only [Detected] has it.
	Source *v1.Box `json:"source,omitempty"`
}

// Classify is a request to classify crops of an image. The pixels of the frame are theirs.
type Classify struct {
	Type     Type   `json:"type"`
	ID       uint64 `json:"id"`
	Pipeline string `json:"pipeline"`
	Crops    []Crop `json:"crops"`
}

// Classified is the reply to Classify, with one entry for each crop, in order.
type Classified struct {
	Type    Type        `json:"type"`
	ID      uint64      `json:"id"`
	Answers []CropLabel `json:"answers"`
	Timing  Timing      `json:"timing"`
}

// CropLabel is the result of a crop. Boxes of words are in pixels of the crop.
type CropLabel struct {
	Region int `json:"region"`
	// Drop says that the crop shows nothing that the pipeline looks for. The region is left
	// out of the result.
	Drop bool `json:"drop,omitempty"`
	// Score is the confidence in Text, or in the first of Labels. Without both, the score of
	// the detector stays.
	Score  float64    `json:"score,omitempty"`
	Labels []v1.Label `json:"labels,omitempty"`
	Text   string     `json:"text,omitempty"`
	Words  []v1.Word  `json:"words,omitempty"`
	// Embedding is a vector of length 1 that is close to those of similar crops. It has at
	// most [MaxEmbedding] numbers.
	Embedding []float32 `json:"embedding,omitempty"`
}

// MaxEmbedding is the largest number of numbers of an embedding.
const MaxEmbedding = 4096

// Draw is a request to draw regions on an image. The pixels of the frame are the file.
type Draw struct {
	Type     Type   `json:"type"`
	ID       uint64 `json:"id"`
	Pipeline string `json:"pipeline"`
	// MediaType is the media type of the reply: image/png or image/jpeg.
	MediaType string          `json:"media_type"`
	Regions   []v1.DrawRegion `json:"regions"`
}

// Drawn is the reply to Draw. The pixels of the frame are the encoded image.
type Drawn struct {
	Type   Type   `json:"type"`
	ID     uint64 `json:"id"`
	Width  int    `json:"width"`  // width of the upright image
	Height int    `json:"height"` // height of the upright image
}

// Timing has the durations of the work of a lane, in milliseconds.
type Timing struct {
	DecodeMS float64 `json:"decode_ms,omitempty"`
	InferMS  float64 `json:"infer_ms"`
}

// Failed is the reply to a request that failed. Code is one of the problem codes that
// docs/lanes.md lists, such as [v1.Damaged] for an image that cannot be decoded.
type Failed struct {
	Type   Type    `json:"type"`
	ID     uint64  `json:"id"`
	Code   v1.Code `json:"code"`
	Detail string  `json:"detail"`
}
