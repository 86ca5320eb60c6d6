// Package v1 holds the messages of version 1 of the contract as Go types.
//
// Fields are only ever added. Readers ignore what they do not know. All boxes
// are in pixels of the upright picture, that is after the EXIF orientation was
// applied, origin at the upper left.
package v1

import (
	"math"
	"time"
)

// Status says where a job is.
type Status string

// The states of a job. Done and Failed are final.
const (
	Queued  Status = "queued"
	Running Status = "running"
	Done    Status = "done"
	Failed  Status = "failed"
)

// Result is the answer for one picture: the body of a RESULTS message and of
// the HTTP and NATS answers.
//
// Regions is present, if only as an empty list, in every result with status
// done. A job with no final state yet has only ID, Pipeline and Status.
type Result struct {
	ID       string   `json:"id"`               // ID of the job
	Pipeline string   `json:"pipeline"`         // name of the pipeline
	Status   Status   `json:"status"`           // where the job is
	Image    *Image   `json:"image,omitempty"`  // the image as it came
	Regions  []Region `json:"regions,omitzero"` // what was found, in reading order
	// Text is the whole text in reading order, lines ended by "\n"; only for
	// pipelines that read.
	Text    *string  `json:"text,omitempty"`
	Models  []Model  `json:"models,omitempty"`   // what produced the result
	Timings *Timings `json:"timings,omitempty"`  // where the time of the job went
	TraceID string   `json:"trace_id,omitempty"` // ID of the W3C trace that the job belongs to
	Problem *Problem `json:"problem,omitempty"`  // why the job failed
	// Metadata is what the client said of the job.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Callback says how the job's callback goes; only where a job that has one
	// is asked for.
	Callback *Callback `json:"callback,omitempty"`
}

// Final reports whether the job has its outcome.
func (r Result) Final() bool { return r.Status == Done || r.Status == Failed }

// Image describes the picture as it came. Width and Height are those of the
// upright picture, the space in which boxes are given.
type Image struct {
	Type   string `json:"type"`   // media type found from the content, such as image/jpeg
	Width  int    `json:"width"`  // pixels, upright
	Height int    `json:"height"` // pixels, upright
	Bytes  int    `json:"bytes"`  // size of the file
	SHA256 string `json:"sha256"` // of the file, lower-case hex
	// Orientation is the EXIF orientation (1 to 8) that was applied to make
	// the picture upright; 1, or absent before decoding, means none.
	Orientation int `json:"orientation,omitempty"`
	// Damage says what is missing or wrong of an image whose file is damaged and
	// could be read all the same. It is absent for a file that is whole.
	Damage string `json:"damage,omitempty"`
}

// Region is something found in the picture.
type Region struct {
	Box      Box      `json:"box"`      // where the region is, in pixels
	Fraction Fraction `json:"fraction"` // the box in fractions of width and height
	// Polygon has the corners of a region whose sides are not those of its box, such as
	// a line of text that is not level: clockwise, from the top left of what is in it,
	// which is not always the top left of the image.
	Polygon []Point `json:"polygon,omitempty"`
	// Score, from 0 to 1, is how sure the pipeline is of the region; for text
	// it is how sure it is of what it read.
	Score float64 `json:"score"`
	// Label is what the region is, such as "face" or "text".
	Label string `json:"label,omitempty"`
	// Labels are further names with their own scores, best first.
	Labels []Label `json:"labels,omitempty"`
	// Landmarks are points that the detector knows by name, in its order.
	Landmarks []Landmark `json:"landmarks,omitempty"`
	// Text is what was read in the region.
	Text  string `json:"text,omitempty"`
	Words []Word `json:"words,omitempty"` // words of Text, each with its own box
	// Embedding is a vector of length 1 that is near to those of similar regions: the sum
	// of the products of two is 1 for the same, and less for others. Only those of one
	// model and version can be compared.
	Embedding []float32 `json:"embedding,omitempty"`
}

// Box is a rectangle in whole pixels of the upright picture.
type Box struct {
	X      int `json:"x"`      // pixels from the left edge
	Y      int `json:"y"`      // pixels from the upper edge
	Width  int `json:"width"`  // pixels
	Height int `json:"height"` // pixels
}

// Point is a place in whole pixels of the upright image. A corner of a region may lie a
// little outside of the image.
type Point struct {
	X int `json:"x"` // pixels from the left edge
	Y int `json:"y"` // pixels from the upper edge
}

// Landmark is a point of a region, in whole pixels of the upright image. Of a region
// that the edge of the image cuts it may lie outside of the image.
//
// A face has "right-eye", "left-eye", "nose", "right-mouth" and "left-mouth", the last
// two for the corners of the mouth. Right and left are those of the person.
type Landmark struct {
	Name string `json:"name"` // what the point is of
	X    int    `json:"x"`    // pixels from the left edge
	Y    int    `json:"y"`    // pixels from the upper edge
}

// Fraction is a Box as fractions (0 to 1) of the picture's width and height.
type Fraction struct {
	X      float64 `json:"x"`      // fraction of the width, from the left edge
	Y      float64 `json:"y"`      // fraction of the height, from the upper edge
	Width  float64 `json:"width"`  // fraction of the width
	Height float64 `json:"height"` // fraction of the height
}

// In gives b as fractions of a picture of width × height pixels, rounded to
// six decimals; a picture without size gives zero.
func (b Box) In(width, height int) Fraction {
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

// Label is a name for a region and how sure the classifier is of it (0 to 1).
type Label struct {
	Label string  `json:"label"` // the name
	Score float64 `json:"score"` // from 0 to 1
}

// Word is one word of a line with its own box and score (0 to 1).
type Word struct {
	Box   Box     `json:"box"`   // where the word is, in pixels
	Text  string  `json:"text"`  // the word
	Score float64 `json:"score"` // from 0 to 1
}

// Model names what produced the answer.
type Model struct {
	Name    string `json:"name"`              // name of the model, detector or classifier
	Version string `json:"version,omitempty"` // version of it
}

// Timings says, in milliseconds, where the time of a job went.
//
// With several CROPS messages for one picture, Classify is the longest of
// them and Queue counts the wait for detect plus the longest wait for
// classify, so that the sum stays close to what a waiting client sees. Join
// is from the first part stored to the answer published. Reply is from the
// answer stored to the waiting request reached, and only in its answer.
type Timings struct {
	Queue    float64 `json:"queue"`    // milliseconds until a worker had the image
	Decode   float64 `json:"decode"`   // milliseconds of decoding
	Detect   float64 `json:"detect"`   // milliseconds of finding regions
	Classify float64 `json:"classify"` // milliseconds of naming them
	Join     float64 `json:"join"`     // milliseconds until the parts were joined
	Reply    float64 `json:"reply"`    // milliseconds until the waiting request had the result
}

// Milliseconds gives d in the unit of [Timings], with microseconds behind the
// point.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
