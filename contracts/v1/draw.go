package v1

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// DrawRequest is the first line of a request to draw; the image file follows the
// newline. The reply is the image, upright and with the regions drawn on it.
type DrawRequest struct {
	// MediaType is that of the reply: image/png or image/jpeg.
	MediaType string `json:"media_type"`
	// Regions are drawn in order.
	Regions []DrawRegion `json:"regions"`
	// TimeoutMS is how many milliseconds the client waits for the reply. 0, and
	// what is longer than the worker allows, mean as long as that.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
}

// DrawRegion is a region as it is drawn on its image.
type DrawRegion struct {
	// Box is where its edge is drawn, in pixels of the upright image. What is
	// outside of the image is not drawn.
	Box Box `json:"box"`
	// Polygon has the corners between which the edge is drawn instead, of a region whose
	// sides are not those of its box.
	Polygon []Point `json:"polygon,omitempty"`
	// Label decides the color: regions with the same label have the same.
	Label string `json:"label,omitempty"`
	// Title is written above the box. Without one it is the number of the region,
	// from 1.
	Title string `json:"title,omitempty"`
}

// DrawRegions returns the regions of a result as they are drawn. The title of a
// region is its label and score, and what a classifier named it. A region that
// was read has its number.
func DrawRegions(regions []Region) []DrawRegion {
	out := make([]DrawRegion, len(regions))
	for i, r := range regions {
		out[i] = DrawRegion{Box: r.Box, Polygon: r.Polygon, Label: r.Label}
		if r.Text != "" {
			continue
		}
		out[i].Title = fmt.Sprintf("%s %.2f", r.Label, r.Score)
		if len(r.Labels) > 0 {
			out[i].Title += ", " + r.Labels[0].Label
		}
	}
	return out
}

// Encode returns the body of a request to draw on an image.
func (r DrawRequest) Encode(image []byte) ([]byte, error) {
	body, err := encodeFacts(r, image)
	if err != nil {
		return nil, fmt.Errorf("encode draw request: %w", err)
	}
	return body, nil
}

// DecodeDrawRequest takes the body of a request to draw apart. The image returned
// is a slice of body, and may be anything.
func DecodeDrawRequest(body []byte) (r DrawRequest, image []byte, err error) {
	if image, err = decodeFacts(body, &r); err != nil {
		return r, nil, fmt.Errorf("decode draw request: %w", err)
	}
	if r.MediaType != "image/png" && r.MediaType != "image/jpeg" {
		return r, nil, fmt.Errorf("decode draw request: media_type is %.40q, want image/png or image/jpeg", r.MediaType)
	}
	if r.TimeoutMS < 0 {
		return r, nil, fmt.Errorf("decode draw request: timeout_ms is %d, want 0 or more", r.TimeoutMS)
	}
	return r, image, nil
}

// Timeout returns how long the client waits, and at most longest.
func (r DrawRequest) Timeout(longest time.Duration) time.Duration {
	if r.TimeoutMS == 0 || r.TimeoutMS > longest.Milliseconds() {
		return longest
	}
	return time.Duration(r.TimeoutMS) * time.Millisecond
}

// A drawn image comes in pieces, because it can be larger than a message may be.
const (
	// MaxPiece is how many bytes a piece has at most.
	MaxPiece = 512 << 10
	// MaxPieces is how many pieces an image has at most.
	MaxPieces = 512
)

// Piece says which piece of a drawn image a message has; it is the value of
// [HeaderPiece].
type Piece struct {
	Number int // number of the region in the image, from 0
	Total  int
}

// String returns p as in the header: 0/3 is the first of three.
func (p Piece) String() string { return strconv.Itoa(p.Number) + "/" + strconv.Itoa(p.Total) }

// ParsePiece reads the value of a header.
func ParsePiece(s string) (Piece, error) {
	number, total, _ := strings.Cut(s, "/")
	n, err := strconv.Atoi(number)
	m, err2 := strconv.Atoi(total)
	if err != nil || err2 != nil || n < 0 || n >= m || m > MaxPieces {
		return Piece{}, fmt.Errorf("%s: %.40q is no piece of at most %d", HeaderPiece, s, MaxPieces)
	}
	return Piece{Number: n, Total: m}, nil
}
