// Package imagefile says which files are accepted as images: which types, how
// large they may be, and how that is checked from the first bytes of a file
// without decoding it. Ingress rejects what does not pass; detect checks again
// what other publishers put on its subject.
package imagefile

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	_ "golang.org/x/image/webp" // header reader

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Limits of a picture. The zero value of a field means no limit.
type Limits struct {
	// MaxBytes is the size of the file.
	MaxBytes int64
	// MaxSide is the larger of width and height, in pixels.
	MaxSide int
	// MaxPixels is width × height.
	MaxPixels int
	// MaxScans is how many scans a progressive JPEG may have. Each costs a
	// pass over all pixels: a 47 kB file with 1,500 of them holds a decoder
	// for many seconds. Encoders write about ten.
	MaxScans int
}

// DefaultLimits are those of a mesh that is not told otherwise.
func DefaultLimits() Limits {
	return Limits{MaxBytes: 8 << 20, MaxSide: 16_384, MaxPixels: 50_000_000, MaxScans: 64}
}

// Register makes flags of the limits, their present values as defaults.
func (l *Limits) Register(fs *flag.FlagSet) {
	fs.Int64Var(&l.MaxBytes, "max-bytes", l.MaxBytes, "largest picture, in `bytes`")
	fs.IntVar(&l.MaxSide, "max-side", l.MaxSide, "longest side of a picture, in `pixels`")
	fs.IntVar(&l.MaxPixels, "max-pixels", l.MaxPixels, "largest width x height of a picture, in `pixels`")
	fs.IntVar(&l.MaxScans, "max-scans", l.MaxScans, "most scans of a progressive JPEG")
}

// Header is what the first bytes of a file say of the picture. Width and
// Height are as stored, before any EXIF orientation.
type Header struct {
	Type   string
	Width  int
	Height int
}

// Types lists the media types that are read.
func Types() []string {
	return []string{"image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff"}
}

// TypeOf finds the media type of a file from its content; it is empty for
// everything that is not in [Types].
func TypeOf(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		return "image/jpeg"
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return "image/png"
	case len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP":
		return "image/webp"
	case bytes.HasPrefix(data, []byte("BM")) && len(data) >= 14 && data[6] == 0 && data[7] == 0 && data[8] == 0 && data[9] == 0:
		return "image/bmp" // the reserved bytes keep text that starts with BM out
	case bytes.HasPrefix(data, []byte("II*\x00")), bytes.HasPrefix(data, []byte("MM\x00*")):
		return "image/tiff"
	}
	return ""
}

// Inspect checks a whole file against the limits, reading only its header and,
// for JPEG, the places of its markers. The error is always a [*v1.Problem].
func Inspect(data []byte, lim Limits) (Header, error) {
	if len(data) == 0 {
		return Header{}, v1.NewProblem(v1.EmptyBody, "the picture has no bytes")
	}
	if lim.MaxBytes > 0 && int64(len(data)) > lim.MaxBytes {
		return Header{}, v1.NewProblem(v1.TooLarge, "the picture has %d bytes, the limit is %d", len(data), lim.MaxBytes).WithLimit(lim.MaxBytes)
	}
	typ := TypeOf(data)
	if typ == "" {
		return Header{}, v1.NewProblem(v1.UnsupportedType, "the content is none of JPEG, PNG, WebP, BMP, TIFF")
	}
	cfg, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		if unsupported(err) {
			return Header{}, v1.NewProblem(v1.UnsupportedType, "this kind of %s is not read: %v", typ, err)
		}
		return Header{}, v1.NewProblem(v1.Damaged, "the header of the %s does not make sense: %v", typ, err)
	}
	h := Header{Type: typ, Width: cfg.Width, Height: cfg.Height}
	if err := h.check(lim); err != nil {
		return h, err
	}
	if typ == "image/jpeg" && lim.MaxScans > 0 {
		if n := scans(data, lim.MaxScans+1); n > lim.MaxScans {
			return h, v1.NewProblem(v1.TooManyScans, "the JPEG has more than %d scans", lim.MaxScans).WithLimit(int64(lim.MaxScans))
		}
	}
	return h, nil
}

func (h Header) check(lim Limits) error {
	if h.Width <= 0 || h.Height <= 0 {
		return v1.NewProblem(v1.Damaged, "the header says %d x %d pixels", h.Width, h.Height)
	}
	if lim.MaxSide > 0 && max(h.Width, h.Height) > lim.MaxSide {
		return v1.NewProblem(v1.TooManyPixels, "the picture is %d x %d pixels, a side may have %d", h.Width, h.Height, lim.MaxSide).WithLimit(int64(lim.MaxSide))
	}
	// The sides are below 2^31 each, so the product fits.
	if lim.MaxPixels > 0 && int64(h.Width)*int64(h.Height) > int64(lim.MaxPixels) {
		return v1.NewProblem(v1.TooManyPixels, "the picture is %d x %d = %d pixels, the limit is %d", h.Width, h.Height, int64(h.Width)*int64(h.Height), lim.MaxPixels).WithLimit(int64(lim.MaxPixels))
	}
	return nil
}

// unsupported tells a valid file of an unusual kind from a damaged one.
func unsupported(err error) bool {
	var j jpeg.UnsupportedError
	var p png.UnsupportedError
	var t tiff.UnsupportedError
	return errors.Is(err, image.ErrFormat) || errors.Is(err, bmp.ErrUnsupported) ||
		errors.As(err, &j) || errors.As(err, &p) || errors.As(err, &t)
}

// scans counts the start-of-scan markers of a JPEG, up to most. In coded data
// a 0xff is always followed by 0x00 or a restart marker, so every ff da is a
// marker or lies in a segment such as a thumbnail, which has few.
func scans(data []byte, most int) int {
	n := 0
	for n < most {
		i := bytes.Index(data, []byte{0xff, 0xda})
		if i < 0 {
			break
		}
		n++
		data = data[i+2:]
	}
	return n
}

// String gives type and size, for logs.
func (h Header) String() string { return fmt.Sprintf("%s %dx%d", h.Type, h.Width, h.Height) }
