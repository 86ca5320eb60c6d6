package codes

/*
#cgo pkg-config: zxing
#cgo CXXFLAGS: --std=c++17
#include <stdlib.h>
#include "zxing.h"
*/
import "C"

import (
	"fmt"
	"image"
	"unsafe"

	"gocv.io/x/gocv"
)

// maxReason is the size of the buffer for the message of an exception, in bytes.
const maxReason = 1024

// Version returns the version of ZXing-C++.
func Version() string { return C.GoString(C.sightmesh_codes_version()) }

// scan reads the codes in a grey image without changing it. formats has ZXing's names,
// separated by |.
func scan(grey gocv.Mat, formats string) ([]Code, error) {
	pixels, err := grey.DataPtrUint8()
	if err != nil {
		return nil, fmt.Errorf("read codes: %w", err)
	}
	wanted := C.CString(formats)
	defer C.free(unsafe.Pointer(wanted))
	why := (*C.char)(C.calloc(1, maxReason))
	defer C.free(unsafe.Pointer(why))
	found := C.sightmesh_codes_read((*C.uchar)(unsafe.SliceData(pixels)), C.int(grey.Cols()), C.int(grey.Rows()),
		C.int(grey.Step()), wanted, why, maxReason)
	if found == nil {
		return nil, fmt.Errorf("read codes of an image of %d x %d: %s", grey.Cols(), grey.Rows(), C.GoString(why))
	}
	defer C.sightmesh_codes_free(found)
	var n C.size_t
	list := C.sightmesh_codes_list(found, &n)
	var codes []Code
	for _, c := range unsafe.Slice(list, int(n)) {
		code := Code{
			Format: formatName(C.GoString(c.format)),
			Text:   encodeContent(unsafe.Slice((*byte)(unsafe.Pointer(c.content)), int(c.length))),
		}
		for i := range code.Corners {
			code.Corners[i] = image.Pt(int(c.corners[2*i]), int(c.corners[2*i+1]))
		}
		codes = append(codes, code)
	}
	return codes, nil
}
