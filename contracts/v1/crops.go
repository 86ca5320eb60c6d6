package v1

import (
	"errors"
	"fmt"
)

// Crops is the first line of a CROPS message; the pixels of its crops follow
// the newline, one after the other, each Width × Height × Channels bytes.
type Crops struct {
	// Job facts that every part carries, so that a part needs no other.
	Image   Image   `json:"image"`
	Models  []Model `json:"models,omitempty"` // what has worked on the image so far
	Timings Timings `json:"timings"`          // times of the job so far
	// Part is the number of this part of the image, from 0.
	Part int `json:"part"`
	// Parts is how many parts the image has.
	Parts int `json:"parts"`
	// Crops of this part.
	Crops []Crop `json:"crops"`
	// Regions of this part that have no crop: they stay as they are.
	Regions []PartRegion `json:"regions,omitempty"`
}

// Crop is one region with its pixels.
type Crop struct {
	// Region is the number of the region in the picture, from 0.
	Region int `json:"region"`
	// Box is that of the region, where in the upright image the pixels come from.
	Box   Box     `json:"box"`
	Score float64 `json:"score"`           // score of the region
	Label string  `json:"label,omitempty"` // label of the region
	// Polygon has the corners of the region. With four of them the pixels are what lies
	// between them, turned upright.
	Polygon   []Point    `json:"polygon,omitempty"`
	Text      string     `json:"text,omitempty"`      // text of the region
	Landmarks []Landmark `json:"landmarks,omitempty"` // named points of the region
	// Source is where in the upright image the pixels come from, when it is not Box:
	// pixels around the region may belong to the crop.
	Source *Box `json:"source,omitempty"`
	// Width of the pixels that follow. They may be scaled against Box, and have eight bits
	// a sample, rows from the top, no padding.
	Width int `json:"width"`
	// Height of the pixels that follow.
	Height int `json:"height"`
	// Channels is 1 (grey) or 3 (blue, green, red).
	Channels int `json:"channels"`
}

// Size is how many bytes of pixels the crop has.
func (c Crop) Size() int { return c.Width * c.Height * c.Channels }

// MaxCropSide bounds the sides of a crop's pixels, so that a product of sizes
// from outside cannot overflow.
const MaxCropSide = 1 << 16

// Encode gives the body of a CROPS message: m as one line of JSON, then the
// pixels of each crop in order.
func (m Crops) Encode(pixels ...[]byte) ([]byte, error) {
	body, err := encodeFacts(m, pixels...)
	if err != nil {
		return nil, fmt.Errorf("encode crops: %w", err)
	}
	return body, nil
}

// DecodeCrops takes the body of a CROPS message apart. The pixels returned
// are a slice of body. It checks that the facts agree with each other and
// with the number of bytes behind them.
func DecodeCrops(body []byte) (m Crops, pixels []byte, err error) {
	if pixels, err = decodeFacts(body, &m); err != nil {
		return m, nil, fmt.Errorf("decode crops: %w", err)
	}
	if m.Parts < 1 || m.Part < 0 || m.Part >= m.Parts {
		return m, nil, fmt.Errorf("decode crops: part %d of %d", m.Part, m.Parts)
	}
	if len(m.Crops) == 0 {
		return m, nil, errors.New("decode crops: no crops")
	}
	want := 0
	for i, c := range m.Crops {
		if c.Width < 1 || c.Height < 1 || c.Width > MaxCropSide || c.Height > MaxCropSide || (c.Channels != 1 && c.Channels != 3) {
			return m, nil, fmt.Errorf("decode crops: crop %d is %d x %d x %d", i, c.Width, c.Height, c.Channels)
		}
		if want += c.Size(); want > len(pixels) {
			break
		}
	}
	if want != len(pixels) {
		return m, nil, fmt.Errorf("decode crops: %d bytes of pixels where the facts ask for another number", len(pixels))
	}
	return m, pixels, nil
}

// Part is the body of a PARTS message: the answer for one CROPS message of a
// picture that needed several.
type Part struct {
	Part  int `json:"part"`  // number of the part, from 0
	Parts int `json:"parts"` // how many parts the image has
	// Regions of this part, each with its number in the picture.
	Regions []PartRegion `json:"regions,omitzero"`
	Image   Image        `json:"image"`            // the image as it came
	Models  []Model      `json:"models,omitempty"` // what has worked on the part
	Timings Timings      `json:"timings"`          // timings of the part
	// Problem is set when this part failed; the job then fails with it.
	Problem *Problem `json:"problem,omitempty"`
}

// PartRegion is a region and its number in the picture.
type PartRegion struct {
	Number int `json:"number"` // number of the region in the image, from 0
	Region
}
