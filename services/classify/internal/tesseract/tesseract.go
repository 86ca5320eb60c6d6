// Package tesseract reads lines of text with libtesseract's LSTM engine.
//
// It is a thin layer over the library's C interface: its input is the pixels of a crop, its
// output words with boxes and confidences. It does not use gosseract, the common package for
// this, which accepts only image files, never frees the words that it returns, and redirects
// the standard error of the process into memory that it leaks.
//
// OMP_THREAD_LIMIT=1 must be in the environment when the process starts: with small
// matrices, several threads are slower than one, and the variable is read before main.
package tesseract

/*
#cgo pkg-config: tesseract lept
#include <stdlib.h>
#include <tesseract/capi.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"image"
	"strings"
	"unsafe"
)

// Engine reads one language. It is never freed. It is not safe for concurrent use.
type Engine struct{ api *C.TessBaseAPI }

// Word is a word of a line.
type Word struct {
	Text       string
	Box        image.Rectangle // in pixels of the crop
	Confidence float64         // 0 to 1
}

// Version returns the version of the library.
func Version() string { return C.GoString(C.TessVersion()) }

// New loads a language such as "eng" or "chi_sim" from the folder dir. An empty dir means
// the library's default folder.
func New(dir, language string) (*Engine, error) {
	var cdir *C.char
	if dir != "" {
		cdir = C.CString(dir)
		defer C.free(unsafe.Pointer(cdir))
	}
	lang := C.CString(language)
	defer C.free(unsafe.Pointer(lang))
	api := C.TessBaseAPICreate()
	if C.TessBaseAPIInit2(api, cdir, lang, C.OEM_LSTM_ONLY) != 0 {
		searched := strings.TrimSuffix(C.GoString(C.TessBaseAPIGetDatapath(api)), "/")
		C.TessBaseAPIDelete(api)
		return nil, fmt.Errorf("load language %q: libtesseract has no such data in %s", language, searched)
	}
	C.TessBaseAPISetPageSegMode(api, C.PSM_SINGLE_LINE)
	// The library prints statistics of empty lines. They would hide what the process prints
	// before it crashes.
	name, value := C.CString("debug_file"), C.CString("/dev/null")
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(value))
	C.TessBaseAPISetVariable(api, name, value)
	return &Engine{api: api}, nil
}

// sourceDPI is the resolution that the library gets. It estimates the resolution from the
// height of the text, and logs a warning when none is set.
const sourceDPI = 70

// Read reads a grey image of one line, width × height bytes. It returns the text, with
// spaces as usual in the language, and the words.
func (e *Engine) Read(pixels []byte, width, height int) (text string, words []Word, err error) {
	if width < 1 || height < 1 || len(pixels) != width*height {
		return "", nil, fmt.Errorf("read line: %d bytes for %d x %d pixels", len(pixels), width, height)
	}
	C.TessBaseAPISetImage(e.api, (*C.uchar)(unsafe.Pointer(&pixels[0])), C.int(width), C.int(height), 1, C.int(width))
	C.TessBaseAPISetSourceResolution(e.api, sourceDPI)
	defer C.TessBaseAPIClear(e.api)
	if C.TessBaseAPIRecognize(e.api, nil) != 0 {
		return "", nil, errors.New("read line: libtesseract failed")
	}
	it := C.TessBaseAPIGetIterator(e.api)
	if it == nil {
		return "", nil, nil // no text
	}
	defer C.TessResultIteratorDelete(it)
	page := C.TessResultIteratorGetPageIterator(it)
	for {
		if C.TessPageIteratorIsAtBeginningOf(page, C.RIL_TEXTLINE) != 0 {
			text = strings.TrimSpace(text + " " + textAt(it, C.RIL_TEXTLINE))
		}
		if s := textAt(it, C.RIL_WORD); s != "" {
			w := Word{Text: s, Confidence: float64(C.TessResultIteratorConfidence(it, C.RIL_WORD)) / 100}
			var l, t, r, b C.int
			if C.TessPageIteratorBoundingBox(page, C.RIL_WORD, &l, &t, &r, &b) != 0 {
				w.Box = image.Rect(int(l), int(t), int(r), int(b))
			}
			words = append(words, w)
		}
		if C.TessResultIteratorNext(it, C.RIL_WORD) == 0 {
			return text, words, nil
		}
	}
}

// textAt returns the text at the iterator, without leading and trailing spaces.
func textAt(it *C.TessResultIterator, level C.TessPageIteratorLevel) string {
	text := C.TessResultIteratorGetUTF8Text(it, level)
	if text == nil {
		return ""
	}
	defer C.TessDeleteText(text)
	return strings.TrimSpace(C.GoString(text))
}
