package lanes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // WholeCrop decodes these formats
	_ "image/png"
	"net/http"
	"time"

	_ "golang.org/x/image/bmp" // like image/jpeg
	_ "golang.org/x/image/tiff"
	_ "golang.org/x/image/webp"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pool"
)

// Lane is one lane with one lane program. The caller must call Close.
type Lane struct {
	*pool.Lane
	// StartTime is how long the lane took from its start until its models were loaded.
	StartTime time.Duration
	stop      func() error
}

// NotReadyError has the reason why a lane cannot serve its pipeline.
type NotReadyError struct{ Reason string }

// Error returns the reason.
func (e *NotReadyError) Error() string { return e.Reason }

// StartLane starts one lane of a configuration with one program and one pipeline, and returns when the lane is ready.
// The error wraps a [*NotReadyError] when the lane cannot serve the pipeline.
func StartLane(ctx context.Context, cfg pool.Config) (*Lane, error) {
	cfg.Lanes = 1
	began := time.Now()
	p, stop, err := Run(ctx, cfg)
	if err != nil {
		return nil, err
	}
	l := &Lane{StartTime: time.Since(began), stop: stop}
	for _, s := range p.Status() {
		if !s.Ready {
			return nil, errors.Join(&NotReadyError{s.Reason}, stop())
		}
	}
	if l.Lane, err = p.Acquire(ctx); err != nil {
		return nil, errors.Join(err, stop())
	}
	return l, nil
}

// Close ends the lane and waits for its end.
func (l *Lane) Close() error { return l.stop() }

// WholeCrop decodes an image file into one crop with the channels blue, green and red.
func WholeCrop(file []byte) (lane.Crop, []byte, error) {
	m, _, err := image.Decode(bytes.NewReader(file))
	if err != nil {
		return lane.Crop{}, nil, fmt.Errorf("decode: %w", err)
	}
	b := m.Bounds()
	pixels := make([]byte, 0, 3*b.Dx()*b.Dy())
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			red, green, blue, _ := m.At(x, y).RGBA()
			pixels = append(pixels, byte(blue>>8), byte(green>>8), byte(red>>8))
		}
	}
	return lane.Crop{Width: b.Dx(), Height: b.Dy(), Channels: 3}, pixels, nil
}

// MediaType returns the media type of an image file, as ingress detects it.
func MediaType(file []byte) string {
	if bytes.HasPrefix(file, []byte("II*\x00")) || bytes.HasPrefix(file, []byte("MM\x00*")) {
		return "image/tiff" // net/http does not detect it
	}
	return http.DetectContentType(file)
}
