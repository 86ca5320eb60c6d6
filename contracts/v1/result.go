// Package v1 has the messages of version 1 as Go types.
//
// Fields are only added. Readers ignore fields that they do not know. Boxes are in pixels
// of the upright image, which is the image after its EXIF orientation was applied. The
// origin is at the upper left.
package v1

import (
	"math"
	"time"
)

// Status is the state of a job or report.
type Status string

// The states of a job. Done and Failed are final.
const (
	Queued  Status = "queued"
	Running Status = "running"
	Done    Status = "done"
	Failed  Status = "failed"
)

// Result is the result of a job: the body of a RESULTS message, of HTTP responses and of
// NATS replies.
//
// Every result with the status done has Regions, which may be an empty list. A job
// without outcome has only ID, Pipeline and Status.
type Result struct {
	ID       string   `json:"id"`               // ID of the job
	Pipeline string   `json:"pipeline"`         // name of the pipeline
	Status   Status   `json:"status"`           // state of the job
	Image    *Image   `json:"image,omitempty"`  // the image as submitted
	Regions  []Region `json:"regions,omitzero"` // regions that were found, in reading order
	// Text is the whole text in reading order, with "\n" after each line. Only pipelines
	// that read text have it.
	Text    *string  `json:"text,omitempty"`
	Models  []Model  `json:"models,omitempty"`   // models that produced the result
	Timings *Timings `json:"timings,omitempty"`  // durations of the stages of the job
	TraceID string   `json:"trace_id,omitempty"` // ID of the W3C trace that the job belongs to
	Problem *Problem `json:"problem,omitempty"`  // why the job failed
	// Metadata is the metadata of the client.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Callback is the state of the webhook, in look-ups of a job that has one.
	Callback *Callback `json:"callback,omitempty"`
}

// Final reports whether the job has its outcome.
func (r Result) Final() bool { return r.Status == Done || r.Status == Failed }

// Image describes the submitted image. Width and Height are those of the upright image, to
// which boxes refer.
type Image struct {
	Type   string `json:"type"`   // media type, determined from the content, such as image/jpeg
	Width  int    `json:"width"`  // pixels, upright
	Height int    `json:"height"` // pixels, upright
	Bytes  int    `json:"bytes"`  // size of the file
	SHA256 string `json:"sha256"` // of the file, lower-case hex
	// Orientation is the EXIF orientation, 1 to 8, that was applied to make the image
	// upright. 1 means none. It is absent before the image is decoded.
	Orientation int `json:"orientation,omitempty"`
	// Damage describes what is missing or wrong in a damaged file that could be read
	// nevertheless. It is absent for a file without damage.
	Damage string `json:"damage,omitempty"`
}

// Region is a region of the image in which something was found.
type Region struct {
	Box      Box      `json:"box"`      // position of the region, in pixels
	Fraction Fraction `json:"fraction"` // the box in fractions of width and height
	// Polygon has the corners of a region whose sides differ from those of its box, such as
	// a line of text that is not level. The corners are clockwise, from the top left of the
	// content, which is not always the top left of the image.
	Polygon []Point `json:"polygon,omitempty"`
	// Score is the confidence from 0 to 1 in the region, or in its text.
	Score float64 `json:"score"`
	// Label is the name of what was found, such as "face" or "text".
	Label string `json:"label,omitempty"`
	// Labels are further names with their own scores, the best first.
	Labels []Label `json:"labels,omitempty"`
	// Landmarks are named points, in the order of the detector.
	Landmarks []Landmark `json:"landmarks,omitempty"`
	// Text is the text that was read in the region.
	Text  string `json:"text,omitempty"`
	Words []Word `json:"words,omitempty"` // words of Text, each with its own box
	// Embedding is a vector of length 1 that is close to those of similar regions: the dot
	// product of two embeddings is 1 for the same region, and less for others. Only
	// embeddings of the same model and version can be compared.
	Embedding []float32 `json:"embedding,omitempty"`
}

// Box is a rectangle in whole pixels of the upright image.
type Box struct {
	X      int `json:"x"`      // pixels from the left edge
	Y      int `json:"y"`      // pixels from the upper edge
	Width  int `json:"width"`  // pixels
	Height int `json:"height"` // pixels
}

// Point is a position in whole pixels of the upright image. A corner of a region may be a
// little outside of the image.
type Point struct {
	X int `json:"x"` // pixels from the left edge
	Y int `json:"y"` // pixels from the upper edge
}

// Landmark is a named point of a region, in whole pixels of the upright image. It may be
// outside of the image when the region is at the edge.
//
// A face has "right-eye", "left-eye", "nose", "right-mouth" and "left-mouth"; the last two
// are the corners of the mouth. Right and left are those of the person.
type Landmark struct {
	Name string `json:"name"` // name of the point
	X    int    `json:"x"`    // pixels from the left edge
	Y    int    `json:"y"`    // pixels from the upper edge
}

// Fraction is a Box in fractions, from 0 to 1, of the width and height of the image.
type Fraction struct {
	X      float64 `json:"x"`      // fraction of the width, from the left edge
	Y      float64 `json:"y"`      // fraction of the height, from the upper edge
	Width  float64 `json:"width"`  // fraction of the width
	Height float64 `json:"height"` // fraction of the height
}

// Fraction returns b as fractions of an image of width × height pixels, rounded to six decimals.
// It returns zero for an image without size.
func (b Box) Fraction(width, height int) Fraction {
	if width <= 0 || height <= 0 {
		return Fraction{}
	}
	w, h := float64(width), float64(height)
	return Fraction{
		X: round6(float64(b.X) / w), Y: round6(float64(b.Y) / h),
		Width: round6(float64(b.Width) / w), Height: round6(float64(b.Height) / h),
	}
}

func round6(f float64) float64 { return math.Round(f*1e6) / 1e6 }

// Label is a name of a region with the confidence of the classifier.
type Label struct {
	Label string  `json:"label"` // the name
	Score float64 `json:"score"` // from 0 to 1
}

// Word is a word of a line with its own box and score.
type Word struct {
	Box   Box     `json:"box"`   // position of the word, in pixels
	Text  string  `json:"text"`  // the word
	Score float64 `json:"score"` // from 0 to 1
}

// Model is a model, detector or classifier that produced a result.
type Model struct {
	Name    string `json:"name"`              // name of the model, detector or classifier
	Version string `json:"version,omitempty"` // version of the model
}

// Timings are the durations of the stages of a job, in milliseconds.
//
// For an image with several CROPS messages, Classify is the longest of them, and Queue is
// the wait for detect plus the longest wait for classify, so that the sum is close to what
// a waiting client measures. Join is the time from the first stored part to the published
// result. Reply is the time from the stored result to the waiting request; only its
// response has it.
type Timings struct {
	Queue    float64 `json:"queue"`    // milliseconds until a worker had the image
	Decode   float64 `json:"decode"`   // milliseconds of decoding
	Detect   float64 `json:"detect"`   // milliseconds of finding regions
	Classify float64 `json:"classify"` // milliseconds of naming them
	Join     float64 `json:"join"`     // milliseconds of joining the parts
	Reply    float64 `json:"reply"`    // milliseconds until the waiting request had the result
}

// Milliseconds returns d in milliseconds, the unit of [Timings], with three decimals.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
