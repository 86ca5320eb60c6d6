package v1

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// DrawRequest is the first line of a request to draw. The image file follows the newline.
// The reply is the upright image with the regions drawn on it.
type DrawRequest struct {
	// MediaType is the media type of the reply: image/png or image/jpeg.
	MediaType string `json:"media_type"`
	// Regions are the regions to draw, in order.
	Regions []DrawRegion `json:"regions"`
	// TimeoutMS is how many milliseconds the client waits for the reply. 0 and values above
	// the limit of the worker mean the limit of the worker.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
}

// DrawRegion is a region to draw on an image.
type DrawRegion struct {
	// Box is the rectangle to draw, in pixels of the upright image. Parts outside of the
	// image are not drawn.
	Box Box `json:"box"`
	// Polygon has the corners of the outline to draw instead of the box.
	Polygon []Point `json:"polygon,omitempty"`
	// Label sets the color: regions with the same label have the same color.
	Label string `json:"label,omitempty"`
	// Title is the text above the box. The number of the region, from 1, if empty.
	Title string `json:"title,omitempty"`
}

// DrawRegions returns the regions of a result for a request to draw. The title of a region
// is its label, its score and its best further label. The title of a region with text is
// empty, so that its number is drawn.
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

// DecodeDrawRequest decodes the body of a request to draw. The returned image is a slice
// of body and is not checked.
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

// Timeout returns how long the client waits, which is at most longest.
func (r DrawRequest) Timeout(longest time.Duration) time.Duration {
	if r.TimeoutMS == 0 || r.TimeoutMS > longest.Milliseconds() {
		return longest
	}
	return time.Duration(r.TimeoutMS) * time.Millisecond
}

// Limits of the pieces of a drawn image, which can be larger than a message may be.
const (
	// MaxPiece is the largest number of bytes of a piece.
	MaxPiece = 512 << 10
	// MaxPieces is the largest number of pieces of an image.
	MaxPieces = 512
)

// Piece is the value of [HeaderPiece]: which piece of a drawn image a message has.
type Piece struct {
	Number int // number of the piece, from 0
	Total  int // number of pieces
}

// String returns the value of the header, such as 0/3 for the first of three pieces.
func (p Piece) String() string { return strconv.Itoa(p.Number) + "/" + strconv.Itoa(p.Total) }

// ParsePiece parses the value of [HeaderPiece].
func ParsePiece(s string) (Piece, error) {
	number, total, _ := strings.Cut(s, "/")
	n, err := strconv.Atoi(number)
	m, err2 := strconv.Atoi(total)
	if err != nil || err2 != nil || n < 0 || n >= m || m > MaxPieces {
		return Piece{}, fmt.Errorf("%s: %.40q, want N/TOTAL with a TOTAL of at most %d", HeaderPiece, s, MaxPieces)
	}
	return Piece{Number: n, Total: m}, nil
}
