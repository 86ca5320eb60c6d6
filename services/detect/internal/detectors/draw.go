package detectors

import (
	"fmt"
	"image"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/detect/internal/draw"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// DrawKind is the kind of the pipeline for requests to draw. It loads nothing.
const DrawKind = "draw"

// Draw decodes an image, as Detect does, and draws regions on it.
func (h *handler) Draw(r lane.Draw, file []byte) (lane.Drawn, []byte, error) {
	m, err := decodeRGBA(file)
	if err != nil {
		return lane.Drawn{}, nil, err
	}
	defer m.Close()
	pixels, err := m.DataPtrUint8()
	if err != nil {
		return lane.Drawn{}, nil, fmt.Errorf("draw: read pixels: %w", err)
	}
	// The image uses the pixels of the matrix: a copy could need hundreds of megabytes.
	img := &image.RGBA{Pix: pixels, Stride: 4 * m.Cols(), Rect: image.Rect(0, 0, m.Cols(), m.Rows())}
	if err := draw.Regions(img, r.Regions); err != nil {
		return lane.Drawn{}, nil, err
	}
	encoded, err := draw.Encode(img, r.MediaType)
	if err != nil {
		return lane.Drawn{}, nil, err
	}
	return lane.Drawn{Width: m.Cols(), Height: m.Rows()}, encoded, nil
}

// decodeRGBA decodes an image into an upright matrix with the pixel format of [image.RGBA].
// The caller closes it.
func decodeRGBA(file []byte) (gocv.Mat, error) {
	img, err := vision.Decode(file)
	if err != nil {
		return gocv.Mat{}, err
	}
	defer img.Mat.Close()
	out := gocv.NewMat()
	gocv.CvtColor(img.Mat, &out, gocv.ColorBGRToRGBA)
	return out, nil
}
