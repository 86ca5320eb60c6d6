package vision

import (
	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Decode reads a picture file into an upright matrix of 8-bit blue, green and
// red, and says which EXIF orientation it applied. Only JPEG files are asked
// for theirs. The error is a [*v1.Problem] with code [v1.Damaged].
//
// A JPEG that is cut off or damaged inside is still decoded, grey where
// nothing is left: so do all viewers.
func Decode(data []byte) (gocv.Mat, int, error) {
	if len(data) == 0 {
		return gocv.Mat{}, 0, v1.NewProblem(v1.EmptyBody, "the picture has no bytes")
	}
	// Orientation is ours to apply: OpenCV versions differ in where they look
	// for it, and the answer has to say what was done.
	m, err := gocv.IMDecode(data, gocv.IMReadColor|gocv.IMReadIgnoreOrientation)
	if err != nil {
		return gocv.Mat{}, 0, v1.NewProblem(v1.Damaged, "the picture cannot be decoded: %v", err)
	}
	if m.Empty() {
		m.Close()
		return gocv.Mat{}, 0, v1.NewProblem(v1.Damaged, "the picture cannot be decoded")
	}
	o := orientation(data)
	upright(&m, o)
	return m, o, nil
}

// upright undoes an EXIF orientation in place, see the table of CIPA
// DC-008 (Exif 2.32), tag 0x0112.
func upright(m *gocv.Mat, orientation int) {
	const bothAxes, aroundX, aroundY = -1, 0, 1 // of Flip
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

// Grey gives the grey picture of one in colour. The caller closes it.
func Grey(m gocv.Mat) gocv.Mat {
	g := gocv.NewMat()
	gocv.CvtColor(m, &g, gocv.ColorBGRToGray)
	return g
}
