// Package imagefile says which files are accepted as images: which types, how
// large they may be, and how that is checked without decoding them. Ingress rejects what does not pass; detect checks again
// what other publishers put on its subject.
package imagefile

import (
	"bytes"
	"flag"
	"fmt"
	"strconv"
	"strings"

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
	fs.Int64Var(&l.MaxBytes, "max-bytes", l.MaxBytes, "largest image file, in `bytes`")
	fs.IntVar(&l.MaxSide, "max-side", l.MaxSide, "longest side of an image, in `pixels`")
	fs.IntVar(&l.MaxPixels, "max-pixels", l.MaxPixels, "largest width x height of an image, in `pixels`")
	fs.IntVar(&l.MaxScans, "max-scans", l.MaxScans, "maximum number of scans of a progressive JPEG")
}

// Metadata describes the limits to clients of an endpoint that takes images, with the
// names that GET /v1/pipelines has.
func (l *Limits) Metadata() map[string]string {
	return map[string]string{
		"types": strings.Join(Types(), ","), "max_bytes": strconv.FormatInt(l.MaxBytes, 10),
		"max_side": strconv.Itoa(l.MaxSide), "max_pixels": strconv.Itoa(l.MaxPixels),
	}
}

// Header is what a file says of its image without being decoded.
type Header struct {
	// Type is one of [Types].
	Type string
	// Width and Height are as stored, before Orientation is applied.
	Width  int
	Height int
	// Orientation is 1 to 8 as in EXIF, from wherever the type has it: the EXIF of
	// JPEG, PNG and WebP, the tag of TIFF. It is 1 where there is none.
	Orientation int
	// Scans of a JPEG, up to its end-of-image marker.
	Scans int
	// Alpha says that a sample of a TIFF is alpha.
	Alpha bool
	// Depth is the bits of a sample of a PNG, and TransparentGrey the value of a grey
	// one that is transparent, or -1.
	Depth           int
	TransparentGrey int
	// BMP is set for a BMP of 32 bits a pixel, which may have alpha.
	BMP *BMPPixels
}

// Types lists the media types that are read.
func Types() []string {
	return []string{"image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff"}
}

// HeadBytes is how many bytes of a file [TypeOf] looks at.
const HeadBytes = 14

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
	case bytes.HasPrefix(data, []byte("II*\x00")), bytes.HasPrefix(data, []byte("MM\x00*")),
		bytes.HasPrefix(data, []byte("II+\x00")), bytes.HasPrefix(data, []byte("MM\x00+")): // the latter is BigTIFF
		return "image/tiff"
	}
	return ""
}

// Parse reads the header of a file. The error is a [*v1.Problem]:
// [v1.UnsupportedType] for a kind that the decoder does not read, which it names,
// or [v1.Damaged].
func Parse(data []byte) (Header, error) {
	h := Header{Type: TypeOf(data), Orientation: 1, TransparentGrey: -1}
	switch h.Type {
	case "image/jpeg":
		return parseJPEG(h, data)
	case "image/png":
		return parsePNG(h, data)
	case "image/webp":
		return parseWebP(h, data)
	case "image/bmp":
		return parseBMP(h, data)
	case "image/tiff":
		return parseTIFF(h, data)
	}
	return Header{}, v1.NewProblem(v1.UnsupportedType, "the content is none of JPEG, PNG, WebP, BMP, TIFF")
}

// Inspect checks a whole file against the limits without decoding it. The error
// is always a [*v1.Problem].
func Inspect(data []byte, lim Limits) (Header, error) {
	if len(data) == 0 {
		return Header{}, v1.NewProblem(v1.EmptyBody, "the picture has no bytes")
	}
	if lim.MaxBytes > 0 && int64(len(data)) > lim.MaxBytes {
		return Header{}, v1.NewProblem(v1.TooLarge, "the picture has %d bytes, the limit is %d", len(data), lim.MaxBytes).WithLimit(lim.MaxBytes)
	}
	h, err := Parse(data)
	if err != nil {
		return h, err
	}
	return h, h.check(lim)
}

func (h Header) check(lim Limits) error {
	if lim.MaxSide > 0 && max(h.Width, h.Height) > lim.MaxSide {
		return v1.NewProblem(v1.TooManyPixels, "the picture is %d x %d pixels, a side may have %d", h.Width, h.Height, lim.MaxSide).WithLimit(int64(lim.MaxSide))
	}
	// The sides are below 2^31 each, so the product fits.
	if lim.MaxPixels > 0 && int64(h.Width)*int64(h.Height) > int64(lim.MaxPixels) {
		return v1.NewProblem(v1.TooManyPixels, "the picture is %d x %d = %d pixels, the limit is %d", h.Width, h.Height, int64(h.Width)*int64(h.Height), lim.MaxPixels).WithLimit(int64(lim.MaxPixels))
	}
	if lim.MaxScans > 0 && h.Scans > lim.MaxScans {
		return v1.NewProblem(v1.TooManyScans, "the JPEG has more than %d scans", lim.MaxScans).WithLimit(int64(lim.MaxScans))
	}
	return nil
}

// unsupported returns the problem of a kind of image that the decoder does not
// read.
func unsupported(kind string, args ...any) *v1.Problem {
	return v1.NewProblem(v1.UnsupportedType, "%s is not read", fmt.Sprintf(kind, args...))
}

// damaged returns the problem of a file whose header makes no sense.
func damaged(mediaType, why string, args ...any) *v1.Problem {
	return v1.NewProblem(v1.Damaged, "the header of the %s does not make sense: %s", mediaType, fmt.Sprintf(why, args...))
}

// String gives type and size, for logs.
func (h Header) String() string { return fmt.Sprintf("%s %dx%d", h.Type, h.Width, h.Height) }
