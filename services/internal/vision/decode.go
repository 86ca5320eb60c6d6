package vision

import (
	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
)

// Image is a decoded file. The caller closes Mat.
type Image struct {
	// Mat is upright and has 8-bit blue, green and red. Transparent pixels are on white.
	Mat gocv.Mat
	// Orientation is the EXIF orientation, 1 to 8, that was applied.
	Orientation int
	// Damage says what is missing or wrong in a file that is damaged but was decoded. It
	// is empty for an intact file.
	Damage string
}

// Decode decodes an image file of one of [imagefile.Types]. It is the only decoder of the
// mesh: detectors read its pixels, and regions are drawn on them. The error is a
// [*v1.Problem] with a code of [imagefile.Parse], or [v1.Damaged].
func Decode(data []byte) (Image, error) {
	if len(data) == 0 {
		return Image{}, v1.NewProblem(v1.EmptyBody, "the picture has no bytes")
	}
	h, err := imagefile.Parse(data)
	if err != nil {
		return Image{}, err
	}
	img := Image{Orientation: h.Orientation}
	switch h.Type {
	case "image/jpeg":
		img.Mat, img.Damage, err = decodeJPEG(data, h)
	case "image/tiff":
		img.Mat, img.Damage, err = decodeTIFF(data, h)
	default:
		img.Mat, err = decodeOther(data, h)
	}
	if err != nil {
		return Image{}, err
	}
	applyOrientation(&img.Mat, h.Orientation)
	return img, nil
}

// decodeOther decodes PNG, WebP and BMP with OpenCV.
func decodeOther(data []byte, h imagefile.Header) (gocv.Mat, error) {
	// Unchanged means with alpha, with all bits, and without applying the orientation.
	m, err := gocv.IMDecode(data, gocv.IMReadUnchanged)
	if err != nil {
		return m, v1.NewProblem(v1.Damaged, "the picture cannot be decoded: %v", err)
	}
	if m.Empty() {
		m.Close()
		return m, v1.NewProblem(v1.Damaged, "the picture cannot be decoded")
	}
	if h.TransparentGrey >= 0 && m.Channels() == 1 {
		if err := whitenTransparentGrey(m, h); err != nil {
			m.Close()
			return m, v1.NewProblem(v1.UnsupportedType, "this kind of grey PNG is not read: %v", err)
		}
	}
	const depth = 7 // the bits of a matrix type that say what its numbers are
	switch m.Type() & depth {
	case gocv.MatTypeCV8U:
	case gocv.MatTypeCV16U:
		m.ConvertToWithParams(&m, gocv.MatTypeCV8U, 255.0/65535, 0)
	default:
		m.Close()
		return m, v1.NewProblem(v1.UnsupportedType, "an image of numbers that are no whole ones of 8 or 16 bits is not read")
	}
	switch m.Channels() {
	case 1:
		gocv.CvtColor(m, &m, gocv.ColorGrayToBGR)
	case 3:
	case 4:
		blendOnWhite(&m)
	default:
		m.Close()
		return m, v1.NewProblem(v1.UnsupportedType, "an image of %d channels is not read", m.Channels())
	}
	if h.BMP != nil {
		blendBMPOnWhite(m, data, *h.BMP)
	}
	return m, nil
}

// applyOrientation applies an EXIF orientation in place, see the table of CIPA DC-008 (Exif 2.32),
// tag 0x0112.
func applyOrientation(m *gocv.Mat, orientation int) {
	const bothAxes, aroundX, aroundY = -1, 0, 1 // codes of Flip
	switch orientation {
	case 2:
		gocv.Flip(*m, m, aroundY)
	case 3:
		gocv.Flip(*m, m, bothAxes)
	case 4:
		gocv.Flip(*m, m, aroundX)
	case 5, 6, 7, 8:
		turned := gocv.NewMat()
		gocv.Transpose(*m, &turned)
		m.Close()
		*m = turned
		switch orientation {
		case 6:
			gocv.Flip(*m, m, aroundY)
		case 7:
			gocv.Flip(*m, m, bothAxes)
		case 8:
			gocv.Flip(*m, m, aroundX)
		}
	}
}

// ToGrey converts a colour image to grey. The caller closes the returned image.
func ToGrey(m gocv.Mat) gocv.Mat {
	g := gocv.NewMat()
	gocv.CvtColor(m, &g, gocv.ColorBGRToGray)
	return g
}
