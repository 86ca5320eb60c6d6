package detectors

import (
	"fmt"
	"image"
	"math"
	"slices"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// crop has the pixels of a region.
type crop struct {
	// source is the part of the image with these pixels. It is empty if it is the box of
	// the region.
	source                  image.Rectangle
	width, height, channels int
	pixels                  []byte
}

// cropping says how regions are cropped.
type cropping struct {
	// Channels is grey, or bgr for classifiers that use colours. The default is grey.
	Channels model.Channels `json:"channels"`
	// CropSide limits the sides of a crop, in pixels: larger crops are reduced. The
	// default is 256.
	CropSide int `json:"crop_side"`
	// Padding is added on each side of a region, as a fraction of its width and height,
	// 0 to 1. The default is 0.
	Padding float64 `json:"padding"`
	// SquareCrops makes each crop a square around its region whose side is the mean of
	// width and height. The cascades for faces were trained with such crops.
	SquareCrops bool `json:"square_crops"`
}

// defaultCropping returns the defaults of the settings.
func defaultCropping() cropping { return cropping{Channels: model.Grey, CropSide: 256} }

// maxCropSide limits a crop to 3 MiB, so that it fits into a message.
const maxCropSide = 1024

func (c cropping) validate() error {
	switch {
	case c.Channels != model.Grey && c.Channels != model.BGR:
		return fmt.Errorf("channels: %q, want %s or %s", c.Channels, model.Grey, model.BGR)
	case c.CropSide < 1 || c.CropSide > maxCropSide:
		return fmt.Errorf("crop_side: %d, want 1 to %d", c.CropSide, maxCropSide)
	case !(c.Padding >= 0 && c.Padding <= 1):
		return fmt.Errorf("padding: %v, want 0 to 1", c.Padding)
	}
	return nil
}

// cropRegions returns the crops of the regions with a wanted label from an image of blue, green and
// red.
func (c cropping) cropRegions(m gocv.Mat, regions []lane.Region, want cropFilter) []crop {
	if !slices.ContainsFunc(regions, func(r lane.Region) bool { return want(r.Label) }) {
		return nil
	}
	from := m
	if c.Channels == model.Grey {
		from = vision.ToGrey(m)
		defer from.Close()
	}
	var crops []crop
	for _, r := range regions {
		if want(r.Label) {
			crops = append(crops, c.cropBox(from, toRectangle(r.Box)))
		}
	}
	return crops
}

// cropBox returns the crop of a region from an image that already has the channels of the
// crop.
func (c cropping) cropBox(from gocv.Mat, region image.Rectangle) crop {
	box := padBox(region, c.Padding).Intersect(image.Rect(0, 0, from.Cols(), from.Rows()))
	if c.SquareCrops {
		box = squareAround(box, from.Cols(), from.Rows())
	}
	pixels := from.Region(box)
	defer pixels.Close()
	out := gocv.NewMat()
	defer out.Close()
	pixels.CopyTo(&out)
	if max(box.Dx(), box.Dy()) > c.CropSide {
		reduce(out, &out, c.CropSide)
	}
	cut := crop{width: out.Cols(), height: out.Rows(), channels: out.Channels(), pixels: out.ToBytes()}
	if box != region {
		cut.source = box
	}
	return cut
}

// padBox returns a region extended on each side by a fraction of its width or height.
func padBox(box image.Rectangle, fraction float64) image.Rectangle {
	x, y := int(math.Round(float64(box.Dx())*fraction)), int(math.Round(float64(box.Dy())*fraction))
	return image.Rect(box.Min.X-x, box.Min.Y-y, box.Max.X+x, box.Max.Y+y)
}

// finder finds regions in an upright image. If there are more than most, it returns those
// with the highest scores.
type finder interface {
	find(m gocv.Mat, most int) ([]lane.Region, error)
}

// cropper is a detector that crops the regions that a finder finds.
type cropper struct {
	finder
	crops cropping
}

func (d cropper) detect(m gocv.Mat, most int, want cropFilter) ([]lane.Region, []crop, error) {
	regions, err := d.find(m, most)
	if err != nil {
		return nil, nil, err
	}
	return regions, d.crops.cropRegions(m, regions, want), nil
}

// reduce resizes an image so that its longer side has long pixels, and returns the scale.
func reduce(from gocv.Mat, to *gocv.Mat, long int) (scale float64) {
	width, height := from.Cols(), from.Rows()
	scale = float64(long) / float64(max(width, height))
	size := image.Pt(max(1, int(float64(width)*scale)), max(1, int(float64(height)*scale)))
	gocv.Resize(from, to, size, 0, 0, gocv.InterpolationArea)
	return scale
}

// squareAround returns the square whose side is the mean of width and height of a region.
// Its center is that of the region, or as near to it as the image allows. It is not a square
// if the image is too small.
func squareAround(box image.Rectangle, width, height int) image.Rectangle {
	side := (box.Dx() + box.Dy() + 1) / 2
	w, h := min(side, width), min(side, height)
	x := min(max((box.Min.X+box.Max.X-w)/2, 0), width-w)
	y := min(max((box.Min.Y+box.Max.Y-h)/2, 0), height-h)
	return image.Rect(x, y, x+w, y+h)
}

// cropUpright returns the crop between four corners, rotated upright. The corners are
// clockwise from the top left corner of the content.
func cropUpright(grey gocv.Mat, corners [4]image.Point) crop {
	side := func(a, b image.Point) float64 { return math.Hypot(float64(a.X-b.X), float64(a.Y-b.Y)) }
	width := max(1, side(corners[0], corners[1]), side(corners[3], corners[2]))
	height := max(1, side(corners[0], corners[3]), side(corners[1], corners[2]))
	f := min(1, float64(defaultCropping().CropSide)/max(width, height))
	size := image.Pt(max(1, int(width*f)), max(1, int(height*f)))
	from := gocv.NewPointVectorFromPoints(corners[:])
	defer from.Close()
	to := gocv.NewPointVectorFromPoints([]image.Point{{}, {X: size.X}, size, {Y: size.Y}})
	defer to.Close()
	m := gocv.GetPerspectiveTransform(from, to)
	defer m.Close()
	out := gocv.NewMat()
	defer out.Close()
	gocv.WarpPerspective(grey, &out, m, size)
	return crop{width: out.Cols(), height: out.Rows(), channels: 1, pixels: out.ToBytes()}
}
