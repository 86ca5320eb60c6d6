package vision

// #cgo LDFLAGS: -ljpeg
// #include "jpeg.h"
import "C"

import (
	"fmt"
	"unsafe"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
)

// decodeJPEG decodes with libjpeg directly. OpenCV also uses libjpeg, but does not report
// the damage that libjpeg finds. When data of the image is missing or wrong, damage says
// so, and the pixels are what libjpeg decodes from the rest.
func decodeJPEG(data []byte, h imagefile.Header) (m gocv.Mat, damage string, err error) {
	m = gocv.NewMatWithSize(h.Height, h.Width, gocv.MatTypeCV8UC3)
	rows := pixels(m)
	var report C.sight_jpeg_report
	failed := C.sight_jpeg_decode((*C.uchar)(unsafe.Pointer(unsafe.SliceData(data))), C.size_t(len(data)),
		(*C.uchar)(unsafe.Pointer(unsafe.SliceData(rows))), C.int(h.Width), C.int(h.Height), &report)
	message := C.GoString(&report.message[0])
	if failed != 0 {
		m.Close()
		return m, "", v1.NewProblem(v1.Damaged, "the JPEG cannot be decoded: %s", message)
	}
	if report.damaged == 0 {
		return m, "", nil
	}
	if row := int(report.row); row >= 0 && row < h.Height {
		return m, fmt.Sprintf("%s: rows %d to %d, as stored, are missing or wrong", message, row, h.Height-1), nil
	}
	return m, message + ": parts of the image are missing or wrong", nil
}
