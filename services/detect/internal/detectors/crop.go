package detectors

import (
	"image"

	"gocv.io/x/gocv"
)

// crop is the pixels of a region.
type crop struct {
	width, height, channels int
	pixels                  []byte
}

// cropSide bounds the sides of a region that is handed on.
const cropSide = 256

// cutGrey takes the pixels of a region.
func cutGrey(grey gocv.Mat, box image.Rectangle) crop {
	region := grey.Region(box)
	defer region.Close()
	out := gocv.NewMat()
	defer out.Close()
	region.CopyTo(&out)
	if max(box.Dx(), box.Dy()) > cropSide {
		reduce(out, &out, cropSide)
	}
	return crop{width: out.Cols(), height: out.Rows(), channels: 1, pixels: out.ToBytes()}
}

// reduce resizes an image so that its longer side is long, and returns the factor.
func reduce(from gocv.Mat, to *gocv.Mat, long int) (scale float64) {
	width, height := from.Cols(), from.Rows()
	scale = float64(long) / float64(max(width, height))
	size := image.Pt(max(1, int(float64(width)*scale)), max(1, int(float64(height)*scale)))
	gocv.Resize(from, to, size, 0, 0, gocv.InterpolationArea)
	return scale
}

// squareAround returns the square of the mean of the sides of a region, around its
// center or as near to it as the image allows. It is no square where the image is too
// small for one.
func squareAround(box image.Rectangle, width, height int) image.Rectangle {
	side := (box.Dx() + box.Dy() + 1) / 2
	w, h := min(side, width), min(side, height)
	x := min(max((box.Min.X+box.Max.X-w)/2, 0), width-w)
	y := min(max((box.Min.Y+box.Max.Y-h)/2, 0), height-h)
	return image.Rect(x, y, x+w, y+h)
}
