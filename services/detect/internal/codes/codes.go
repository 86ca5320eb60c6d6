// Package codes reads QR codes, bar codes and their like with ZXing-C++.
//
// The library is given an image several times: at several sizes, because modules of a
// pixel and a half, and those of twenty, are read at none of the others; inverted, because
// a light code on dark is another image to it; and turned, because it reads bar codes and
// PDF417 along rows and columns. docs/adr/0011 has what each is worth.
//
// The library ends the process when an assertion of its own fails, so that it belongs
// into a lane.
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
	// Text is the content. Content that is not UTF-8 and of no other encoding of text, or
	// has a NUL, is a data URL (RFC 2397) of its bytes, in base64.
	Text string
	// Corners are in pixels of the image, clockwise from the top left of the code, however
	// the code is turned. They may lie a little outside of the image.
	Corners [4]image.Point
}

// Box returns the smallest box with the corners.
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
	all string // the names of ZXing's
	// rows are those of all that are read along rows and columns only.
	rows string
}

// format is a kind of code.
type format struct {
	name, zxing string
	// rows tells whether it is read along rows and columns only.
	rows bool
}

// formats are those that ZXing-C++ knows from version 1.4 on.
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

func formatName(zxing string) string {
	for _, f := range formats() {
		if f.zxing == zxing {
			return f.name
		}
	}
	return strings.ToLower(zxing)
}

// NewReader returns a reader of some formats, or of all when none is named. A name that
// is not one of [Formats] is an error.
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
		if v.turned {
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

// sortCorners makes the corners go clockwise. The library gives those of a bar code from
// its first line to its last, also when it stands on its head, and those of any other code
// that is seen in a mirror the other way round.
func (c *Code) sortCorners() {
	p := &c.Corners
	if a, b := p[2].Sub(p[0]), p[3].Sub(p[1]); a.X*b.Y >= a.Y*b.X {
		return
	}
	if readInRows(c.Format) {
		p[0], p[1], p[2], p[3] = p[3], p[2], p[1], p[0]
	} else {
		p[1], p[3] = p[3], p[1]
	}
}

func readInRows(name string) bool {
	return slices.ContainsFunc(formats(), func(f format) bool { return f.name == name && f.rows })
}

// covers reports whether o is c once more, or a bar code that was seen in the bars of c
// or around them.
func (c Code) covers(o Code) bool {
	if c.Format == o.Format && c.Text == o.Text && c.Box().Inset(-margin).Overlaps(o.Box().Inset(-margin)) {
		return true
	}
	return c.contains(o.center()) || o.contains(c.center())
}

// margin is how far apart, in pixels, rows of the same bar code may be found.
const margin = 2

func (c Code) center() image.Point {
	return c.Corners[0].Add(c.Corners[1]).Add(c.Corners[2]).Add(c.Corners[3]).Div(4)
}

// contains reports whether p lies on the same side of the four edges.
func (c Code) contains(p image.Point) bool {
	for i, from := range c.Corners {
		edge, to := c.Corners[(i+1)%4].Sub(from), p.Sub(from)
		if edge.X*to.Y < edge.Y*to.X {
			return false
		}
	}
	return true
}

// text returns the content of a code as a result can have it: as it is, or as a data URL
// when it is not UTF-8 or has a NUL.
func text(content []byte) string {
	if utf8.Valid(content) && !slices.Contains(content, 0) {
		return string(content)
	}
	return "data:application/octet-stream;base64," + base64.StdEncoding.EncodeToString(content)
}
