package v1

import (
	"errors"
	"fmt"
)

// Crops is the first line of a CROPS message. The pixels of its crops follow the
// newline, one crop after the other, each Width × Height × Channels bytes. Every part of
// an image has Image, Models and Timings, so that it does not depend on the others.
type Crops struct {
	Image   Image   `json:"image"`            // the image as submitted
	Models  []Model `json:"models,omitempty"` // models that have processed the image so far
	Timings Timings `json:"timings"`          // times of the job so far
	// Part is the number of this part of the image, from 0.
	Part int `json:"part"`
	// Parts is how many parts the image has.
	Parts int `json:"parts"`
	// Crops are the crops of this part.
	Crops []Crop `json:"crops"`
	// Regions are the regions of this part without a crop. They are not classified.
	Regions []PartRegion `json:"regions,omitempty"`
}

// Crop is a region with its pixels.
type Crop struct {
	// Region is the number of the region in the image, from 0.
	Region int `json:"region"`
	// Box is the box of the region. Its pixels are those of the crop, unless Source is set.
	Box   Box     `json:"box"`
	Score float64 `json:"score"`           // score of the region
	Label string  `json:"label,omitempty"` // label of the region
	// Polygon has the corners of the region. With four corners, the pixels are those between
	// them, turned upright.
	Polygon   []Point    `json:"polygon,omitempty"`
	Text      string     `json:"text,omitempty"`      // text of the region
	Landmarks []Landmark `json:"landmarks,omitempty"` // named points of the region
	// Source is the box of the upright image that the pixels come from, when it is not Box:
	// a crop may have pixels around its region.
	Source *Box `json:"source,omitempty"`
	// Width of the crop in pixels. The pixels may be scaled. They have eight bits for each
	// sample, are in rows from the top, and have no padding.
	Width int `json:"width"`
	// Height of the crop in pixels.
	Height int `json:"height"`
	// Channels is 1 (grey) or 3 (blue, green, red).
	Channels int `json:"channels"`
}

// Size returns how many bytes of pixels the crop has.
func (c Crop) Size() int { return c.Width * c.Height * c.Channels }

// MaxCropSide is the largest width and height of a crop, so that the product of sizes in
// a message cannot overflow.
const MaxCropSide = 1 << 16

// Encode returns the body of a CROPS message: m as one line of JSON, then the pixels of
// each crop in order.
func (m Crops) Encode(pixels ...[]byte) ([]byte, error) {
	body, err := encodeFacts(m, pixels...)
	if err != nil {
		return nil, fmt.Errorf("encode crops: %w", err)
	}
	return body, nil
}

// DecodeCrops decodes the body of a CROPS message. The returned pixels are a slice of
// body. DecodeCrops checks that the fields are consistent with each other and with the
// number of bytes of the pixels.
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
		if c.Width < 1 || c.Height < 1 || c.Width > MaxCropSide || c.Height > MaxCropSide ||
			(c.Channels != 1 && c.Channels != 3) {
			return m, nil, fmt.Errorf("decode crops: crop %d is %d x %d x %d", i, c.Width, c.Height, c.Channels)
		}
		want += c.Size()
	}
	if want != len(pixels) {
		return m, nil, fmt.Errorf("decode crops: %d bytes of pixels, want %d as in the JSON", len(pixels), want)
	}
	return m, pixels, nil
}

// Part is the body of a PARTS message: the result of one CROPS message, for an image with
// several.
type Part struct {
	Part  int `json:"part"`  // number of the part, from 0
	Parts int `json:"parts"` // how many parts the image has
	// Regions are the regions of this part, each with its number in the image.
	Regions []PartRegion `json:"regions,omitzero"`
	Image   Image        `json:"image"`            // the image as submitted
	Models  []Model      `json:"models,omitempty"` // models that have processed the part
	Timings Timings      `json:"timings"`          // times of the part
	// Problem is set when this part failed. The job then fails with it.
	Problem *Problem `json:"problem,omitempty"`
}

// PartRegion is a region and its number in the image.
type PartRegion struct {
	Number int `json:"number"` // number of the region in the image, from 0
	Region
}
