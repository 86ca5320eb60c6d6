package vision

// #cgo LDFLAGS: -ltiff
// #include "tiff.h"
import "C"

import (
	"unsafe"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
)

// decodeTIFF decodes with libtiff directly. OpenCV also uses libtiff, but ignores some of
// its errors, returns pixels that were never written, and rotates some images wrongly.
// When libtiff reports an error and still returns an image, damage is that error.
func decodeTIFF(data []byte, h imagefile.Header) (m gocv.Mat, damage string, err error) {
	stored := make([]uint32, h.Width*h.Height)
	var message [C.SIGHT_TIFF_MESSAGE]C.char
	result := C.sight_tiff_decode((*C.uchar)(unsafe.Pointer(unsafe.SliceData(data))), C.size_t(len(data)),
		(*C.uint32_t)(unsafe.Pointer(unsafe.SliceData(stored))), C.int(h.Width), C.int(h.Height), &message[0])
	why := C.GoString(&message[0])
	switch result {
	case 0:
	case -1:
		return m, "", v1.NewProblem(v1.UnsupportedType, "this kind of TIFF is not read: %s", why)
	default:
		return m, "", v1.NewProblem(v1.Damaged, "the TIFF cannot be decoded: %s", why)
	}
	m = gocv.NewMatWithSize(h.Height, h.Width, gocv.MatTypeCV8UC3)
	to := pixels(m)
	for i, p := range stored {
		red, green, blue, alpha := uint8(p), uint8(p>>8), uint8(p>>16), uint8(p>>24)
		if !h.Alpha { // the fourth sample is not alpha
			alpha = 255
		}
		for c, v := range [3]uint8{blue, green, red} {
			to[3*i+c] = blendValueOnWhite(v, alpha)
		}
	}
	if why != "" {
		damage = why + ": parts of the image may be wrong"
	}
	return m, damage, nil
}
