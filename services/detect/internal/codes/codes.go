// Package codes reads QR codes, bar codes and similar codes with ZXing-C++.
//
// The library reads several views of an image:
//
//   - several sizes, because codes with modules of 1.5 pixels and codes with modules of 20
//     pixels are not read at the same size,
//   - inverted, because the library does not read light codes on a dark background,
//   - rotated, because it reads bar codes and PDF417 only along rows and columns.
//
// docs/adr/0011 says how many more codes each view finds.
//
// The library ends the process when one of its assertions fails, so it runs in a lane.
package codes

import (
	"encoding/base64"
	"fmt"
	"image"
	"slices"
	"strings"
	"unicode/utf8"

	"gocv.io/x/gocv"
)

// Code is a code that was read.
type Code struct {
	// Format is one of [Formats].
	Format string
	// Text is the content as UTF-8. Content that is not text in a known encoding, or
	// contains NUL, is a data URL (RFC 2397) of its bytes, in base64.
	Text string
	// Corners are in pixels of the image, clockwise from the top left corner of the code
	// itself, which may be rotated. They may be a few pixels outside of the image.
	Corners [4]image.Point
}

// Box returns the smallest box that contains the corners.
func (c Code) Box() image.Rectangle {
	box := image.Rectangle{Min: c.Corners[0], Max: c.Corners[0]}
	for _, p := range c.Corners[1:] {
		box.Min.X, box.Min.Y = min(box.Min.X, p.X), min(box.Min.Y, p.Y)
		box.Max.X, box.Max.Y = max(box.Max.X, p.X), max(box.Max.Y, p.Y)
	}
	return box
}

// Reader reads codes of some formats.
type Reader struct {
	all string // ZXing's names of the formats, separated by |
	// rows has those formats of all that are read only along rows and columns.
	rows string
}

// format is a format of codes.
type format struct {
	name, zxing string
	// rows says that the format is read only along rows and columns.
	rows bool
}

// formats returns the formats that ZXing-C++ supports from version 1.4 on.
func formats() []format {
	return []format{
		{"aztec", "Aztec", false},
		{"codabar", "Codabar", true},
		{"code-39", "Code39", true},
		{"code-93", "Code93", true},
		{"code-128", "Code128", true},
		{"data-matrix", "DataMatrix", false},
		{"databar", "DataBar", true},
		{"databar-expanded", "DataBarExpanded", true},
		{"ean-8", "EAN-8", true},
		{"ean-13", "EAN-13", true},
		{"itf", "ITF", true},
		{"maxicode", "MaxiCode", false},
		{"micro-qr-code", "MicroQRCode", false},
		{"pdf417", "PDF417", true},
		{"qr-code", "QRCode", false},
		{"upc-a", "UPC-A", true},
		{"upc-e", "UPC-E", true},
	}
}

// Formats returns the names of all formats.
func Formats() []string {
	var names []string
	for _, f := range formats() {
		names = append(names, f.name)
	}
	return names
}

// formatName returns the name of a format from ZXing's name.
func formatName(zxing string) string {
	for _, f := range formats() {
		if f.zxing == zxing {
			return f.name
		}
	}
	return strings.ToLower(zxing)
}

// NewReader returns a reader of the named formats, or of all formats when there are no
// names. A name that is not in [Formats] is an error.
func NewReader(names ...string) (*Reader, error) {
	for _, n := range names {
		if known := Formats(); !slices.Contains(known, n) {
			return nil, fmt.Errorf("format %q is not one of %s", n, strings.Join(known, ", "))
		}
	}
	var all, rows []string
	for _, f := range formats() {
		if len(names) > 0 && !slices.Contains(names, f.name) {
			continue
		}
		all = append(all, f.zxing)
		if f.rows {
			rows = append(rows, f.zxing)
		}
	}
	return &Reader{all: strings.Join(all, "|"), rows: strings.Join(rows, "|")}, nil
}

// Read returns the codes of a grey image, in no particular order.
func (r *Reader) Read(grey gocv.Mat) ([]Code, error) {
	var found []Code
	for v := range views(grey, r.rows != "") {
		wanted := r.all
		if v.rotated {
			wanted = r.rows
		}
		codes, err := scan(v.Mat, wanted)
		if err != nil {
			return nil, err
		}
		for _, c := range codes {
			for i, p := range c.Corners {
				c.Corners[i] = v.toImage(p)
			}
			c.sortCorners()
			if !slices.ContainsFunc(found, func(f Code) bool { return f.covers(c) }) {
				found = append(found, c)
			}
		}
	}
	return found, nil
}

// sortCorners sorts the corners clockwise. The library returns the corners of a bar code
// from its first bar to its last, even if it is upside down, and those of any other code
// counter-clockwise if it is mirrored.
func (c *Code) sortCorners() {
	p := &c.Corners
	if a, b := p[2].Sub(p[0]), p[3].Sub(p[1]); a.X*b.Y >= a.Y*b.X {
		return
	}
	if isReadInRows(c.Format) {
		p[0], p[1], p[2], p[3] = p[3], p[2], p[1], p[0]
	} else {
		p[1], p[3] = p[3], p[1]
	}
}

// isReadInRows reports whether a format is read only along rows and columns.
func isReadInRows(name string) bool {
	return slices.ContainsFunc(formats(), func(f format) bool { return f.name == name && f.rows })
}

// covers reports whether o is a duplicate of c, or a bar code that was read from the bars of
// c or around them.
func (c Code) covers(o Code) bool {
	if c.Format == o.Format && c.Text == o.Text && c.Box().Inset(-margin).Overlaps(o.Box().Inset(-margin)) {
		return true
	}
	return c.contains(o.center()) || o.contains(c.center())
}

// margin is the distance, in pixels, by which boxes are expanded before they are compared:
// rows of the same bar code may be found apart from each other.
const margin = 2

func (c Code) center() image.Point {
	return c.Corners[0].Add(c.Corners[1]).Add(c.Corners[2]).Add(c.Corners[3]).Div(4)
}

// contains reports whether p is inside the corners: on the same side of all four edges.
func (c Code) contains(p image.Point) bool {
	for i, from := range c.Corners {
		edge, to := c.Corners[(i+1)%4].Sub(from), p.Sub(from)
		if edge.X*to.Y < edge.Y*to.X {
			return false
		}
	}
	return true
}

// encodeContent returns the content of a code for a result: unchanged, or as a data URL when it is
// not UTF-8 or contains NUL.
func encodeContent(content []byte) string {
	if utf8.Valid(content) && !slices.Contains(content, 0) {
		return string(content)
	}
	return "data:application/octet-stream;base64," + base64.StdEncoding.EncodeToString(content)
}
