// Package imagefile checks the headers of image files without decoding them: it accepts
// some types, up to size limits. Ingress rejects files that do not pass. Detect checks
// them again, because other clients can publish to its subject.
package imagefile

import (
	"bytes"
	"flag"
	"fmt"
	"strconv"
	"strings"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Limits of an image. The zero value of a field means no limit.
type Limits struct {
	// MaxBytes limits the size of the file.
	MaxBytes int64
	// MaxSide limits the larger of width and height, in pixels.
	MaxSide int
	// MaxPixels limits width × height.
	MaxPixels int
	// MaxScans limits the scans of a progressive JPEG. The decoder passes over all
	// pixels for each scan: a 47 kB file with 1,500 scans occupies it for many
	// seconds. Encoders write about ten.
	MaxScans int
}

// DefaultLimits returns the limits of a mesh without flags for them.
func DefaultLimits() Limits {
	return Limits{MaxBytes: 8 << 20, MaxSide: 16_384, MaxPixels: 50_000_000, MaxScans: 64}
}

// Register defines a flag for each limit, with its current value as the default.
func (l *Limits) Register(fs *flag.FlagSet) {
	fs.Int64Var(&l.MaxBytes, "max-bytes", l.MaxBytes, "largest image file, in `bytes`")
	fs.IntVar(&l.MaxSide, "max-side", l.MaxSide, "longest side of an image, in `pixels`")
	fs.IntVar(&l.MaxPixels, "max-pixels", l.MaxPixels, "largest width x height of an image, in `pixels`")
	fs.IntVar(&l.MaxScans, "max-scans", l.MaxScans, "maximum number of scans of a progressive JPEG")
}

// Metadata returns the accepted types and the limits as metadata of a NATS endpoint that
// accepts images, under the names that GET /v1/pipelines uses.
func (l *Limits) Metadata() map[string]string {
	return map[string]string{
		"types": strings.Join(Types(), ","), "max_bytes": strconv.FormatInt(l.MaxBytes, 10),
		"max_side": strconv.Itoa(l.MaxSide), "max_pixels": strconv.Itoa(l.MaxPixels),
	}
}

// Header is what a file says about its image without being decoded.
type Header struct {
	// Type is one of [Types].
	Type string
	// Width and Height are those of the stored image, before Orientation is applied.
	Width  int
	Height int
	// Orientation is the EXIF orientation, 1 to 8: from the EXIF of a JPEG, PNG or
	// WebP, or from the tag of a TIFF. It is 1 for a file without one.
	Orientation int
	// Scans is the number of scans of a JPEG, up to its end-of-image marker.
	Scans int
	// Alpha says that a TIFF has an alpha sample.
	Alpha bool
	// Depth is the number of bits of a sample of a PNG. TransparentGrey is the value of
	// the transparent pixels of a grey PNG, or -1 if it has none.
	Depth           int
	TransparentGrey int
	// BMP is set for a BMP of 32 bits per pixel, which may have alpha; nil otherwise.
	BMP *BMPPixels
}

// Types returns the accepted media types.
func Types() []string {
	return []string{"image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff"}
}

// HeadBytes is the number of bytes that [TypeOf] needs from the start of a file.
const HeadBytes = 14

// TypeOf returns the media type of a file from its content, or "" if it is not one of
// [Types].
func TypeOf(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		return "image/jpeg"
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return "image/png"
	case len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP":
		return "image/webp"
	case bytes.HasPrefix(data, []byte("BM")) && len(data) >= 14 && string(data[6:10]) == "\x00\x00\x00\x00":
		return "image/bmp" // the reserved bytes exclude text that starts with BM
	case bytes.HasPrefix(data, []byte("II*\x00")), bytes.HasPrefix(data, []byte("MM\x00*")),
		bytes.HasPrefix(data, []byte("II+\x00")), bytes.HasPrefix(data, []byte("MM\x00+")): // with +, BigTIFF
		return "image/tiff"
	}
	return ""
}

// Parse reads the header of a file. The error is a [*v1.Problem]: [v1.UnsupportedType],
// which names the variant that the decoder does not support, or [v1.Damaged].
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

// Inspect checks a complete file against the limits without decoding it. The error is
// always a [*v1.Problem].
func Inspect(data []byte, lim Limits) (Header, error) {
	if len(data) == 0 {
		return Header{}, v1.NewProblem(v1.EmptyBody, "the picture has no bytes")
	}
	if lim.MaxBytes > 0 && int64(len(data)) > lim.MaxBytes {
		return Header{}, v1.NewProblem(v1.TooLarge,
			"the picture has %d bytes, the limit is %d", len(data), lim.MaxBytes).WithLimit(lim.MaxBytes)
	}
	h, err := Parse(data)
	if err != nil {
		return h, err
	}
	return h, h.check(lim)
}

func (h Header) check(lim Limits) error {
	if lim.MaxSide > 0 && max(h.Width, h.Height) > lim.MaxSide {
		return v1.NewProblem(v1.TooManyPixels, "the picture is %d x %d pixels, a side may have %d",
			h.Width, h.Height, lim.MaxSide).WithLimit(int64(lim.MaxSide))
	}
	// Each side is below 2^31, so the product does not overflow.
	if lim.MaxPixels > 0 && int64(h.Width)*int64(h.Height) > int64(lim.MaxPixels) {
		return v1.NewProblem(v1.TooManyPixels, "the picture is %d x %d = %d pixels, the limit is %d",
			h.Width, h.Height, int64(h.Width)*int64(h.Height), lim.MaxPixels).WithLimit(int64(lim.MaxPixels))
	}
	if lim.MaxScans > 0 && h.Scans > lim.MaxScans {
		return v1.NewProblem(v1.TooManyScans, "the JPEG has more than %d scans", lim.MaxScans).WithLimit(int64(lim.MaxScans))
	}
	return nil
}

// unsupportedProblem returns the problem of an image variant that the decoder does not support.
func unsupportedProblem(kind string, args ...any) *v1.Problem {
	return v1.NewProblem(v1.UnsupportedType, "%s is not read", fmt.Sprintf(kind, args...))
}

// damagedProblem returns the problem of a file whose header is invalid.
func damagedProblem(mediaType, why string, args ...any) *v1.Problem {
	return v1.NewProblem(v1.Damaged, "the header of the %s does not make sense: %s", mediaType, fmt.Sprintf(why, args...))
}

// String returns type and size, for logs.
func (h Header) String() string { return fmt.Sprintf("%s %dx%d", h.Type, h.Width, h.Height) }
