package vision

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gocv.io/x/gocv"
	"golang.org/x/image/tiff"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
)

var update = flag.Bool("update", false, "write the table of formats in docs/api.md")

// All files made here have the same image: four quarters of these colours, in reading
// order. In files with alpha the last quarter is transparent: its stored colour is black,
// and it is decoded as white.
const (
	width  = 64
	height = 48
)

var quarters = [4]color.NRGBA{{0, 0, 0, 255}, {200, 30, 30, 255}, {30, 30, 200, 255}, {255, 255, 255, 255}}

// colourAt returns the colour of a pixel. transparent makes the last quarter transparent.
func colourAt(x, y int, transparent bool) color.NRGBA {
	q := x/(width/2) + 2*(y/(height/2))
	if q == 3 && transparent {
		return color.NRGBA{}
	}
	return quarters[q]
}

// raster returns the rows of the image from the top. pixel encodes the colour of a pixel.
func raster(transparent bool, pixel func(color.NRGBA) []byte) (rows [][]byte) {
	for y := range height {
		var row []byte
		for x := range width {
			row = append(row, pixel(colourAt(x, y, transparent))...)
		}
		rows = append(rows, row)
	}
	return rows
}

func grey(c color.NRGBA) byte {
	return color.GrayModel.Convert(color.NRGBA{c.R, c.G, c.B, 255}).(color.Gray).Y
}

// These functions encode a pixel for the kinds of rasters.
func asGrey(c color.NRGBA) []byte         { return []byte{grey(c)} }
func asGreyAlpha(c color.NRGBA) []byte    { return []byte{grey(c), c.A} }
func asInvertedGrey(c color.NRGBA) []byte { return []byte{255 - grey(c)} }
func asRGB(c color.NRGBA) []byte          { return []byte{c.R, c.G, c.B} }
func asRGB0(c color.NRGBA) []byte         { return []byte{c.R, c.G, c.B, 0} }
func asRGBA(c color.NRGBA) []byte         { return []byte{c.R, c.G, c.B, c.A} }
func asBGR(c color.NRGBA) []byte          { return []byte{c.B, c.G, c.R} }
func asBGRA(c color.NRGBA) []byte         { return []byte{c.B, c.G, c.R, c.A} }
func asInks(c color.NRGBA) []byte         { return []byte{255 - c.R, 255 - c.G, 255 - c.B, 0} }
func asIndex(c color.NRGBA) []byte        { return []byte{byte(indexOf(c))} }
func as565(c color.NRGBA) []byte {
	return binary.LittleEndian.AppendUint16(nil, uint16(c.R>>3)<<11|uint16(c.G>>2)<<5|uint16(c.B>>3))
}
func as555(c color.NRGBA) []byte {
	return binary.LittleEndian.AppendUint16(nil, uint16(c.R>>3)<<10|uint16(c.G>>3)<<5|uint16(c.B>>3))
}
func asPremultiplied(c color.NRGBA) []byte {
	if c.A == 0 {
		return make([]byte, 4)
	}
	return asRGBA(c)
}

func indexOf(c color.NRGBA) int {
	if c.A == 0 {
		return 3
	}
	return slices.Index(quarters[:], c)
}

// as16Bits returns a function that encodes samples with 16 bits instead of 8.
func as16Bits(order binary.AppendByteOrder, pixel func(color.NRGBA) []byte) func(color.NRGBA) []byte {
	return func(c color.NRGBA) (out []byte) {
		for _, b := range pixel(c) {
			out = order.AppendUint16(out, uint16(b)*257)
		}
		return out
	}
}

// asHalfTransparent returns a function that makes the second quarter half transparent.
func asHalfTransparent(pixel func(color.NRGBA) []byte) func(color.NRGBA) []byte {
	return func(c color.NRGBA) []byte {
		if c == quarters[1] {
			c.A = 128
		}
		return pixel(c)
	}
}

// pngFile returns a PNG file. depth and kind are fields of IHDR.
func pngFile(depth, kind byte, rows [][]byte, chunks ...[]byte) []byte {
	out := []byte("\x89PNG\r\n\x1a\n")
	ihdr := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, width), height)
	out = append(out, chunk("IHDR", append(ihdr, depth, kind, 0, 0, 0))...)
	for _, c := range chunks {
		out = append(out, c...)
	}
	var data bytes.Buffer
	z := zlib.NewWriter(&data)
	for _, r := range rows {
		z.Write([]byte{0}) // no filter
		z.Write(r)
	}
	z.Close()
	out = append(out, chunk("IDAT", data.Bytes())...)
	return append(out, chunk("IEND", nil)...)
}

func chunk(name string, data []byte) []byte {
	out := append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), name...)
	out = append(out, data...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[4:]))
}

// packSamples packs samples of bits bits each into bytes, the first one into the highest bits.
func packSamples(rows [][]byte, bits int) (out [][]byte) {
	for _, r := range rows {
		row := make([]byte, (len(r)*bits+7)/8)
		for i, v := range r {
			row[i*bits/8] |= v << (8 - bits - i*bits%8)
		}
		out = append(out, row)
	}
	return out
}

func palette(entry func(color.NRGBA) []byte, n int) (out []byte) {
	for i := range n {
		out = append(out, entry(quarters[min(i, 3)])...)
	}
	return out
}

// exif returns EXIF data with an orientation: a TIFF with one directory.
func exif(orientation int) []byte {
	b := []byte("MM\x00*\x00\x00\x00\x08\x00\x01")
	b = append(b, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, byte(orientation), 0, 0)
	return append(b, 0, 0, 0, 0)
}

// bmpFile returns a BMP file. size is the size of its information header, which contains
// the colour masks if it has 52 bytes or more, and the alpha mask if it has 56 or more.
func bmpFile(size, bits, compression int, topDown bool, masks [4]uint32, colours []byte, rows [][]byte) []byte {
	le := binary.LittleEndian
	var pixels []byte
	if compression == 1 { // RLE8: runs of the same index
		for y := range rows {
			for _, v := range rows[len(rows)-1-y] {
				pixels = append(pixels, 1, v)
			}
			pixels = append(pixels, 0, 0)
		}
		pixels = append(pixels, 0, 1)
	} else {
		for y := range rows {
			r := rows[len(rows)-1-y]
			if topDown {
				r = rows[y]
			}
			pixels = append(pixels, r...)
			pixels = append(pixels, make([]byte, (4-len(r)%4)%4)...)
		}
	}
	extra := 0
	if size == 40 && compression == 3 {
		extra = 12 // masks after the header
	}
	offset := 14 + size + extra + len(colours)
	out := append([]byte("BM"), le.AppendUint32(nil, uint32(offset+len(pixels)))...)
	out = le.AppendUint32(append(out, 0, 0, 0, 0), uint32(offset))
	out = le.AppendUint32(out, uint32(size))
	if size == 12 {
		out = le.AppendUint16(le.AppendUint16(out, width), height)
		out = le.AppendUint16(le.AppendUint16(out, 1), uint16(bits))
	} else {
		h := int32(height)
		if topDown {
			h = -h
		}
		out = le.AppendUint32(le.AppendUint32(out, width), uint32(h))
		out = le.AppendUint16(le.AppendUint16(out, 1), uint16(bits))
		out = le.AppendUint32(le.AppendUint32(out, uint32(compression)), uint32(len(pixels)))
		out = append(out, make([]byte, 8)...)
		used := 0
		if bits <= 8 {
			used = len(colours) / 4
		}
		out = le.AppendUint32(le.AppendUint32(out, uint32(used)), 0)
		n := 0
		switch {
		case size >= 56:
			n = 4
		case compression == 3:
			n = 3
		}
		for _, m := range masks[:n] {
			out = le.AppendUint32(out, m)
		}
		out = append(out, make([]byte, max(0, 14+size+extra-len(out)))...)
	}
	return append(append(out, colours...), pixels...)
}

// A tag is an entry of a TIFF directory. Its values have 16 bits, or 32 bits if it is long.
type tag struct {
	number uint16
	long   bool
	values []int
}

// tiffFile returns a TIFF file with one strip.
func tiffFile(tags []tag, rows [][]byte) []byte {
	le := binary.LittleEndian
	data := bytes.Join(rows, nil)
	for _, d := range []tag{
		{256, false, []int{width}}, {257, false, []int{height}}, {259, false, []int{1}}, {278, false, []int{height}},
		{273, true, []int{8}}, {279, true, []int{len(data)}},
	} {
		if !slices.ContainsFunc(tags, func(t tag) bool { return t.number == d.number }) {
			tags = append(tags, d)
		}
	}
	slices.SortStableFunc(tags, func(a, b tag) int { return int(a.number) - int(b.number) })
	at := 8 + len(data)
	out := le.AppendUint32([]byte("II*\x00"), uint32(at))
	out = append(out, data...)
	out = le.AppendUint16(out, uint16(len(tags)))
	after := at + 2 + 12*len(tags) + 4
	var values []byte
	for _, t := range tags {
		out = le.AppendUint16(out, t.number)
		kind, size := uint16(3), 2
		if t.long {
			kind, size = 4, 4
		}
		var v []byte
		for _, n := range t.values {
			if t.long {
				v = le.AppendUint32(v, uint32(n))
			} else {
				v = le.AppendUint16(v, uint16(n))
			}
		}
		out = le.AppendUint32(le.AppendUint16(out, kind), uint32(len(t.values)))
		if len(t.values)*size <= 4 {
			out = append(out, append(v, make([]byte, 4-len(v))...)...)
		} else {
			out = le.AppendUint32(out, uint32(after+len(values)))
			values = append(values, v...)
		}
	}
	return append(le.AppendUint32(out, 0), values...)
}

// tiffTags returns the tags that describe the pixels of a TIFF, and more tags.
func tiffTags(photometric, samples, bits int, more ...tag) []tag {
	each := slices.Repeat([]int{bits}, samples)
	return append([]tag{{258, false, each}, {262, false, []int{photometric}}, {277, false, []int{samples}}}, more...)
}

// imageMat returns the image as a matrix of OpenCV. The caller closes it.
func imageMat(t testing.TB, transparent bool) gocv.Mat {
	t.Helper()
	kind, pixel := gocv.MatTypeCV8UC3, asBGR
	if transparent {
		kind, pixel = gocv.MatTypeCV8UC4, asBGRA
	}
	m, err := gocv.NewMatFromBytes(height, width, kind, bytes.Join(raster(transparent, pixel), nil))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// encodeOpenCV returns the image, encoded by OpenCV.
func encodeOpenCV(t testing.TB, ext gocv.FileExt, transparent bool, params ...int) []byte {
	t.Helper()
	m := imageMat(t, transparent)
	defer m.Close()
	b, err := gocv.IMEncodeWithParams(ext, m, params)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	return bytes.Clone(b.GetBytes())
}

// goJPEG returns the image, encoded by the standard library, which uses the Huffman tables
// of the JPEG standard.
func goJPEG(t testing.TB, greyscale bool) []byte {
	t.Helper()
	var img image.Image
	if greyscale {
		g := image.NewGray(image.Rect(0, 0, width, height))
		g.Pix = bytes.Join(raster(false, asGrey), nil)
		img = g
	} else {
		c := image.NewNRGBA(image.Rect(0, 0, width, height))
		c.Pix = bytes.Join(raster(false, asRGBA), nil)
		img = c
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// encodeDeflateTIFF returns the image as a TIFF compressed with Deflate.
func encodeDeflateTIFF(t testing.TB) []byte {
	t.Helper()
	c := image.NewNRGBA(image.Rect(0, 0, width, height))
	c.Pix = bytes.Join(raster(false, asRGBA), nil)
	var b bytes.Buffer
	if err := tiff.Encode(&b, c, &tiff.Options{Compression: tiff.Deflate}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// addJPEGExif adds EXIF data with an orientation to a JPEG.
func addJPEGExif(jpg []byte, orientation int) []byte {
	segment := append([]byte("Exif\x00\x00"), exif(orientation)...)
	out := binary.BigEndian.AppendUint16([]byte{0xff, 0xd8, 0xff, 0xe1}, uint16(len(segment)+2))
	return append(append(out, segment...), jpg[2:]...)
}

// addWebPExif converts a WebP to the extended format, with a chunk EXIF.
func addWebPExif(webp []byte, orientation int) []byte {
	le := binary.LittleEndian
	x := append([]byte("VP8X"), le.AppendUint32(nil, 10)...)
	x = append(x, 0x08, 0, 0, 0, width-1, 0, 0, height-1, 0, 0)
	e := append([]byte("EXIF"), le.AppendUint32(nil, uint32(len(exif(orientation))))...)
	body := append(append(append([]byte("WEBP"), x...), webp[12:]...), append(e, exif(orientation)...)...)
	return append(append([]byte("RIFF"), le.AppendUint32(nil, uint32(len(body)))...), body...)
}

// removeHuffmanTables removes the Huffman tables, which webcams leave out.
func removeHuffmanTables(jpg []byte) []byte {
	for {
		i := bytes.Index(jpg, []byte{0xff, 0xc4})
		if i < 0 {
			return jpg
		}
		size := int(binary.BigEndian.Uint16(jpg[i+2:]))
		jpg = slices.Concat(jpg[:i], jpg[i+2+size:])
	}
}

// keepFirstScan removes all scans but the first from a progressive JPEG.
func keepFirstScan(jpg []byte) []byte {
	first := bytes.Index(jpg, []byte{0xff, 0xda})
	second := first + 2 + bytes.Index(jpg[first+2:], []byte{0xff, 0xc4})
	return append(bytes.Clone(jpg[:second]), 0xff, 0xd9)
}

// truncate returns the first 70 % of a file.
func truncate(data []byte) []byte { return data[:len(data)*7/10] }

// setByte returns a copy of data with one byte changed.
func setByte(data []byte, at int, to byte) []byte {
	data = bytes.Clone(data)
	data[at] = to
	return data
}

// format is a file and the expected outcome.
type format struct {
	kind, property, name string
	data                 []byte
	// grey says that the file has no colour.
	grey bool
	// half says that the second quarter is half transparent.
	half bool
	// twoColours says that the first quarter is black and the others are white.
	twoColours bool
	// orientation is that of the file, 0 if it has none.
	orientation int
	// damage says that the file is decoded with damage.
	damage bool
	// code is the code of the problem for a file that is rejected.
	code v1.Code
}

// formats returns a file of each kind.
func formats(t testing.TB) []format {
	be, le := binary.BigEndian, binary.LittleEndian
	none := [4]uint32{}
	bgra := [4]uint32{0xff0000, 0xff00, 0xff, 0xff000000}
	bgr := [4]uint32{0xff0000, 0xff00, 0xff, 0}
	jpg, png := goJPEG(t, false), pngFile(8, 2, raster(false, asRGB))
	webp := encodeOpenCV(t, ".webp", false, 64, 101)
	rgb := tiffTags(2, 3, 8)
	sos := bytes.Index(jpg, []byte{0xff, 0xda})
	sof := bytes.Index(jpg, []byte{0xff, 0xc0})
	trns := chunk("tRNS", []byte{255, 255, 255, 0})
	plte := chunk("PLTE", palette(asRGB, 4))
	const compression = 259
	extra := func(n int) tag { return tag{338, false, []int{n}} }
	all := []format{
		{kind: "JPEG", property: "depth", name: "8 bits", data: jpg},
		{kind: "JPEG", property: "depth", name: "12 bits", data: setByte(jpg, sof+4, 12), code: v1.UnsupportedType},
		{kind: "JPEG", property: "colour", name: "YCbCr", data: jpg},
		{kind: "JPEG", property: "colour", name: "grey", data: goJPEG(t, true), grey: true},
		{kind: "JPEG", property: "compression", name: "baseline", data: jpg},
		{kind: "JPEG", property: "compression", name: "progressive", data: encodeOpenCV(t, ".jpg", false, 2, 1)},
		{kind: "JPEG", property: "compression", name: "restart intervals", data: encodeOpenCV(t, ".jpg", false, 4, 2)},
		{kind: "JPEG", property: "compression", name: "no Huffman tables (webcams)", data: removeHuffmanTables(jpg)},
		{kind: "JPEG", property: "compression", name: "lossless", data: setByte(jpg, sof+1, 0xc3), code: v1.UnsupportedType},
		{kind: "JPEG", property: "damage", name: "cut off", data: jpg[:sos+(len(jpg)-sos)/2], damage: true},
		{kind: "JPEG", property: "damage", name: "wrong data", data: setByte(jpg, sos+20, jpg[sos+20]^0x5a), damage: true},
		{kind: "JPEG", property: "damage", name: "progressive, without its last scans",
			data: keepFirstScan(encodeOpenCV(t, ".jpg", false, 2, 1)), damage: true},
		{kind: "JPEG", property: "damage", name: "further bytes after the end",
			data: slices.Concat(jpg, bytes.Repeat([]byte{0xff, 0xda}, 100))},
		{kind: "JPEG", property: "damage", name: "cut off in the header", data: jpg[:sof+3], code: v1.Damaged},

		{kind: "PNG", property: "alpha", name: "RGBA", data: pngFile(8, 6, raster(true, asRGBA))},
		{kind: "PNG", property: "alpha", name: "RGBA, half transparent",
			data: pngFile(8, 6, raster(true, asHalfTransparent(asRGBA))), half: true},
		{kind: "PNG", property: "alpha", name: "RGBA of 16 bits", data: pngFile(16, 6, raster(true, as16Bits(be, asRGBA)))},
		{kind: "PNG", property: "alpha", name: "grey with alpha", data: pngFile(8, 4, raster(true, asGreyAlpha)), grey: true},
		{kind: "PNG", property: "alpha", name: "grey of 16 bits with alpha",
			data: pngFile(16, 4, raster(true, as16Bits(be, asGreyAlpha))), grey: true},
		{kind: "PNG", property: "alpha", name: "palette with tRNS", data: pngFile(8, 3, raster(true, asIndex), plte, trns)},
		{kind: "PNG", property: "alpha", name: "grey with tRNS",
			data: pngFile(8, 0, raster(true, asMarkedGrey), chunk("tRNS", []byte{0, 7})), grey: true},
		{kind: "PNG", property: "alpha", name: "grey of 16 bits with tRNS",
			data: pngFile(16, 0, raster(true, as16Bits(be, asMarkedGrey)), chunk("tRNS", []byte{7, 7})), grey: true},
		{kind: "PNG", property: "alpha", name: "tRNS with a wrong checksum",
			data: pngFile(8, 3, raster(true, asIndex), plte, setByte(trns, len(trns)-1, trns[len(trns)-1]^1)), code: v1.Damaged},
		{kind: "PNG", property: "alpha", name: "RGB with tRNS",
			data: pngFile(8, 2, raster(false, asRGB), chunk("tRNS", []byte{0, 255, 0, 255, 0, 255}))},
		{kind: "PNG", property: "depth", name: "1 bit",
			data:       pngFile(1, 3, packSamples(raster(false, asBit), 1), chunk("PLTE", []byte{0, 0, 0, 255, 255, 255})),
			twoColours: true},
		{kind: "PNG", property: "depth", name: "2 bits", data: pngFile(2, 3, packSamples(raster(false, asIndex), 2), plte)},
		{kind: "PNG", property: "depth", name: "4 bits", data: pngFile(4, 3, packSamples(raster(false, asIndex), 4), plte)},
		{kind: "PNG", property: "depth", name: "8 bits", data: png},
		{kind: "PNG", property: "depth", name: "16 bits", data: pngFile(16, 2, raster(false, as16Bits(be, asRGB)))},
		{kind: "PNG", property: "colour", name: "RGB", data: png},
		{kind: "PNG", property: "colour", name: "grey", data: pngFile(8, 0, raster(false, asGrey)), grey: true},
		{kind: "PNG", property: "colour", name: "palette", data: pngFile(8, 3, raster(false, asIndex), plte)},
		{kind: "PNG", property: "damage", name: "cut off", data: truncate(png), code: v1.Damaged},
		{kind: "PNG", property: "damage", name: "wrong data",
			data: setByte(png, len(png)/2, png[len(png)/2]^0xff), code: v1.Damaged},

		{kind: "WebP", property: "alpha", name: "lossless", data: encodeOpenCV(t, ".webp", true, 64, 101)},
		{kind: "WebP", property: "alpha", name: "lossy", data: encodeOpenCV(t, ".webp", true, 64, 90)},
		{kind: "WebP", property: "compression", name: "lossless", data: webp},
		{kind: "WebP", property: "compression", name: "lossy", data: encodeOpenCV(t, ".webp", false, 64, 90)},
		{kind: "WebP", property: "compression", name: "animated",
			data: setByte(addWebPExif(webp, 1), 20, 0x0a), code: v1.UnsupportedType},
		{kind: "WebP", property: "damage", name: "cut off", data: truncate(webp), code: v1.Damaged},

		{kind: "BMP", property: "alpha", name: "32 bits", data: bmpFile(40, 32, 0, false, none, nil, raster(true, asBGRA))},
		{kind: "BMP", property: "alpha", name: "32 bits, top-down",
			data: bmpFile(40, 32, 0, true, none, nil, raster(true, asBGRA))},
		{kind: "BMP", property: "alpha", name: "32 bits, half transparent",
			data: bmpFile(40, 32, 0, false, none, nil, raster(true, asHalfTransparent(asBGRA))), half: true},
		{kind: "BMP", property: "alpha", name: "32 bits with masks",
			data: bmpFile(108, 32, 3, false, bgra, nil, raster(true, asBGRA))},
		{kind: "BMP", property: "alpha", name: "32 bits, alpha unused",
			data: bmpFile(40, 32, 0, false, none, nil, raster(false, bmpColour))},
		{kind: "BMP", property: "alpha", name: "32 bits with masks, without alpha",
			data: bmpFile(108, 32, 3, false, bgr, nil, raster(false, bmpColour))},
		{kind: "BMP", property: "depth", name: "4 bits",
			data: bmpFile(40, 4, 0, false, none, palette(bmpColour, 16), packSamples(raster(false, asIndex), 4))},
		{kind: "BMP", property: "depth", name: "8 bits",
			data: bmpFile(40, 8, 0, false, none, palette(bmpColour, 256), raster(false, asIndex))},
		{kind: "BMP", property: "depth", name: "16 bits (555)",
			data: bmpFile(40, 16, 0, false, none, nil, raster(false, as555))},
		{kind: "BMP", property: "depth", name: "16 bits (565)",
			data: bmpFile(40, 16, 3, false, [4]uint32{0xf800, 0x7e0, 0x1f}, nil, raster(false, as565))},
		{kind: "BMP", property: "depth", name: "24 bits", data: bmpFile(40, 24, 0, false, none, nil, raster(false, asBGR))},
		{kind: "BMP", property: "compression", name: "none",
			data: bmpFile(40, 24, 0, false, none, nil, raster(false, asBGR))},
		{kind: "BMP", property: "compression", name: "top-down",
			data: bmpFile(40, 24, 0, true, none, nil, raster(false, asBGR))},
		{kind: "BMP", property: "compression", name: "RLE8",
			data: bmpFile(40, 8, 1, false, none, palette(bmpColour, 256), raster(false, asIndex))},
		{kind: "BMP", property: "compression", name: "embedded JPEG",
			data: bmpFile(40, 0, 4, false, none, nil, nil), code: v1.UnsupportedType},
		{kind: "BMP", property: "damage", name: "cut off",
			data: truncate(bmpFile(40, 24, 0, false, none, nil, raster(false, asBGR))), code: v1.Damaged},

		{kind: "TIFF", property: "alpha", name: "RGBA, straight",
			data: tiffFile(tiffTags(2, 4, 8, extra(2)), raster(true, asRGBA))},
		{kind: "TIFF", property: "alpha", name: "RGBA, straight, half transparent",
			data: tiffFile(tiffTags(2, 4, 8, extra(2)), raster(true, asHalfTransparent(asRGBA))), half: true},
		{kind: "TIFF", property: "alpha", name: "RGBA, premultiplied",
			data: tiffFile(tiffTags(2, 4, 8, extra(1)), raster(true, asPremultiplied))},
		{kind: "TIFF", property: "alpha", name: "RGBA of 16 bits, straight",
			data: tiffFile(tiffTags(2, 4, 16, extra(2)), raster(true, as16Bits(le, asRGBA)))},
		{kind: "TIFF", property: "alpha", name: "RGBA of 16 bits, premultiplied",
			data: tiffFile(tiffTags(2, 4, 16, extra(1)), raster(true, as16Bits(le, asPremultiplied)))},
		{kind: "TIFF", property: "alpha", name: "grey with alpha",
			data: tiffFile(tiffTags(1, 2, 8, extra(2)), raster(true, asGreyAlpha)), grey: true},
		{kind: "TIFF", property: "alpha", name: "RGB with a fourth sample that is not alpha",
			data: tiffFile(tiffTags(2, 4, 8, extra(0)), raster(false, asRGB0))},
		{kind: "TIFF", property: "alpha", name: "grey with alpha and a third sample",
			data: tiffFile(tiffTags(1, 3, 8, tag{338, false, []int{2, 0}}), raster(true, asRGB)), code: v1.UnsupportedType},
		{kind: "TIFF", property: "depth", name: "1 bit",
			data: tiffFile(tiffTags(1, 1, 1), packSamples(raster(false, asBit), 1)), twoColours: true},
		{kind: "TIFF", property: "depth", name: "4 bits",
			data: tiffFile(tiffTags(3, 1, 4, tag{320, false, tiffPalette(16)}), packSamples(raster(false, asIndex), 4))},
		{kind: "TIFF", property: "depth", name: "12 bits",
			data: tiffFile(tiffTags(1, 1, 12), raster(false, asGrey)), code: v1.UnsupportedType},
		{kind: "TIFF", property: "depth", name: "8 bits", data: tiffFile(rgb, raster(false, asRGB))},
		{kind: "TIFF", property: "depth", name: "16 bits",
			data: tiffFile(tiffTags(2, 3, 16), raster(false, as16Bits(le, asRGB)))},
		{kind: "TIFF", property: "depth", name: "floating-point",
			data: tiffFile(tiffTags(1, 1, 32, tag{339, false, []int{3}}), raster(false, asBGRA)), code: v1.UnsupportedType},
		{kind: "TIFF", property: "colour", name: "RGB", data: tiffFile(rgb, raster(false, asRGB))},
		{kind: "TIFF", property: "colour", name: "grey",
			data: tiffFile(tiffTags(1, 1, 8), raster(false, asGrey)), grey: true},
		{kind: "TIFF", property: "colour", name: "grey of 16 bits",
			data: tiffFile(tiffTags(1, 1, 16), raster(false, as16Bits(le, asGrey))), grey: true},
		{kind: "TIFF", property: "colour", name: "grey, white is 0",
			data: tiffFile(tiffTags(0, 1, 8), raster(false, asInvertedGrey)), grey: true},
		{kind: "TIFF", property: "colour", name: "grey of 16 bits, white is 0",
			data: tiffFile(tiffTags(0, 1, 16), raster(false, as16Bits(le, asInvertedGrey))), grey: true},
		{kind: "TIFF", property: "colour", name: "planes of 16 bits",
			data: tiffFile(tiffTags(2, 3, 16, tag{284, false, []int{2}},
				tag{273, true, planeLayout(0)}, tag{279, true, planeLayout(1)}), planarRows())},
		{kind: "TIFF", property: "colour", name: "CMYK of 16 bits",
			data: tiffFile(tiffTags(5, 4, 16), raster(false, as16Bits(le, asInks))), code: v1.UnsupportedType},
		{kind: "TIFF", property: "colour", name: "palette",
			data: tiffFile(tiffTags(3, 1, 8, tag{320, false, tiffPalette(256)}), raster(false, asIndex))},
		{kind: "TIFF", property: "colour", name: "CMYK", data: tiffFile(tiffTags(5, 4, 8), raster(false, asInks))},
		{kind: "TIFF", property: "compression", name: "none", data: tiffFile(rgb, raster(false, asRGB))},
		{kind: "TIFF", property: "compression", name: "Deflate", data: encodeDeflateTIFF(t)},
		{kind: "TIFF", property: "compression", name: "LZW", data: encodeOpenCV(t, ".tiff", false, compression, 5)},
		{kind: "TIFF", property: "compression", name: "PackBits", data: encodeOpenCV(t, ".tiff", false, compression, 32773)},
		{kind: "TIFF", property: "compression", name: "JPEG",
			data: encodeOpenCV(t, ".tiff", false, compression, 7, 278, height)},
		{kind: "TIFF", property: "compression", name: "Zstandard", data: encodeOpenCV(t, ".tiff", false, compression, 50000)},
		{kind: "TIFF", property: "compression", name: "JPEG 2000",
			data: tiffFile(append(rgb, tag{compression, false, []int{34712}}), raster(false, asRGB)), code: v1.UnsupportedType},
		{kind: "TIFF", property: "damage", name: "cut off",
			data: extendStrip(tiffFile(rgb, raster(false, asRGB))), code: v1.Damaged},
	}
	for o := 1; o <= 8; o++ {
		name := fmt.Sprint(o)
		orient := tag{274, false, []int{o}}
		all = append(all,
			format{kind: "JPEG", property: "orientation", name: name, data: addJPEGExif(jpg, o), orientation: o},
			format{kind: "PNG", property: "orientation", name: name,
				data: pngFile(8, 2, raster(false, asRGB), chunk("eXIf", exif(o))), orientation: o},
			format{kind: "WebP", property: "orientation", name: name, data: addWebPExif(webp, o), orientation: o},
			format{kind: "TIFF", property: "orientation", name: name,
				data: tiffFile(append(rgb, orient), raster(false, asRGB)), orientation: o},
			format{kind: "TIFF", property: "orientation", name: name + ", grey",
				data: tiffFile(tiffTags(1, 1, 8, orient), raster(false, asGrey)), orientation: o, grey: true},
			format{kind: "TIFF", property: "orientation", name: name + ", 16 bits",
				data: tiffFile(tiffTags(2, 3, 16, orient), raster(false, as16Bits(le, asRGB))), orientation: o},
			format{kind: "TIFF", property: "orientation", name: name + ", alpha",
				data: tiffFile(tiffTags(2, 4, 8, extra(2), orient), raster(true, asRGBA)), orientation: o},
		)
	}
	return all
}

// asMarkedGrey encodes transparent pixels as the grey value 7.
func asMarkedGrey(c color.NRGBA) []byte {
	if c.A == 0 {
		return []byte{7}
	}
	return asGrey(c)
}

// planarRows returns the rows of the red plane, the green plane and the blue plane, of 16 bits.
func planarRows() [][]byte {
	var out [][]byte
	for channel := range 3 {
		sample := func(c color.NRGBA) []byte { return asRGB(c)[channel : channel+1] }
		out = append(out, raster(false, as16Bits(binary.LittleEndian, sample))...)
	}
	return out
}

// planeLayout returns the offsets of the planes of planar in a file if what is 0, and their sizes
// if it is 1.
func planeLayout(what int) []int {
	const size = 2 * width * height
	return [][]int{{8, 8 + size, 8 + 2*size}, {size, size, size}}[what]
}

func bmpColour(c color.NRGBA) []byte { return append(asBGR(c), 0) }

// asBit encodes the first quarter as 0 and the others as 1.
func asBit(c color.NRGBA) []byte {
	if c == quarters[0] {
		return []byte{0}
	}
	return []byte{1}
}

func tiffPalette(n int) (out []int) {
	for channel := range 3 {
		for i := range n {
			out = append(out, int(asRGB(quarters[min(i, 3)])[channel])*257)
		}
	}
	return out
}

// extendStrip changes a TIFF so that its strip extends beyond the end of the file.
func extendStrip(data []byte) []byte {
	i := bytes.Index(data, []byte{0x17, 1, 4, 0}) // tag 279
	out := bytes.Clone(data)
	binary.LittleEndian.PutUint32(out[i+8:], uint32(len(data)))
	binary.LittleEndian.PutUint32(out[bytes.Index(data, []byte{0x11, 1, 4, 0})+8:], uint32(len(data)/2))
	return out
}

// expectedColour returns the blue, green and red of a quarter of the stored image.
func (f format) expectedColour(quarter int) [3]int {
	c := quarters[quarter]
	if f.twoColours && quarter > 0 {
		c = quarters[3]
	}
	rgb := [3]int{int(c.B), int(c.G), int(c.R)}
	if f.grey {
		g := int(grey(c))
		rgb = [3]int{g, g, g}
	}
	if f.half && quarter == 1 {
		for i, v := range rgb {
			rgb[i] = (v*128 + 255*127) / 255
		}
	}
	return rgb
}

// storedQuarter returns the quarter of the stored image that is at x, y in the upright image (Exif
// 2.32, tag 0x0112).
func storedQuarter(orientation, x, y int) int {
	switch orientation {
	case 2:
		x = 1 - x
	case 3:
		x, y = 1-x, 1-y
	case 4:
		y = 1 - y
	case 5:
		x, y = y, x
	case 6:
		x, y = y, 1-x
	case 7:
		x, y = 1-y, 1-x
	case 8:
		x, y = 1-y, x
	}
	return x + 2*y
}

// TestDecode_EveryFormat checks that each kind of file is decoded correctly, or rejected
// with the expected code. It covers alpha, orientation, Huffman tables, damage, trailing
// bytes and colour, of which each once failed. The decoder must support every kind that
// the header check accepts.
func TestDecode_EveryFormat(t *testing.T) {
	for _, f := range formats(t) {
		t.Run(strings.Join([]string{f.kind, f.property, f.name}, "/"), func(t *testing.T) { f.check(t) })
	}
}

func (f format) check(t *testing.T) {
	img, err := Decode(f.data)
	if f.code != "" {
		if err == nil {
			img.Mat.Close()
		}
		checkCode(t, err, f.code)
		_, err = imagefile.Inspect(f.data, imagefile.DefaultLimits())
		if f.code == v1.UnsupportedType && err == nil {
			t.Error("the header check accepts a file that the decoder does not support")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer img.Mat.Close()
	h, err := imagefile.Inspect(f.data, imagefile.DefaultLimits())
	if err != nil {
		t.Fatalf("the header check rejects a file that the decoder reads: %v", err)
	}
	if size, want := image.Pt(h.Width, h.Height), image.Pt(width, height); size != want {
		t.Errorf("the size in the header is %v, want %v", size, want)
	}
	if want := max(f.orientation, 1); img.Orientation != want {
		t.Errorf("orientation %d, want %d", img.Orientation, want)
	}
	if (img.Damage != "") != f.damage {
		t.Errorf("damage is %q", img.Damage)
	}
	want := image.Pt(width, height)
	if f.orientation >= 5 {
		want = image.Pt(height, width)
	}
	if size := image.Pt(img.Mat.Cols(), img.Mat.Rows()); size != want {
		t.Fatalf("the decoded size is %v, want %v", size, want)
	}
	if f.damage {
		return // some of its pixels are missing
	}
	for y := range 2 {
		for x := range 2 {
			colour := f.expectedColour(storedQuarter(f.orientation, x, y))
			for i, v := range img.Mat.GetVecbAt(want.Y*(2*y+1)/4, want.X*(2*x+1)/4) {
				const tolerance = 12 // for lossy compression and for 5 bits per sample
				if d := int(v) - colour[i]; d > tolerance || d < -tolerance {
					t.Errorf("quarter %d,%d channel %d is %d, want %d", x, y, i, v, colour[i])
				}
			}
		}
	}
}

// checkCode checks that err is a problem with this code.
func checkCode(t *testing.T, err error, want v1.Code) {
	t.Helper()
	var p *v1.Problem
	if !errors.As(err, &p) {
		t.Errorf("got %v, want a problem", err)
	} else if p.Code != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestDecode_JPEGHasThePixelsOfOpenCV checks that JPEGs have the same pixels as with
// OpenCV's decoder, with which the models were measured.
func TestDecode_JPEGHasThePixelsOfOpenCV(t *testing.T) {
	for name, data := range map[string][]byte{
		"baseline": goJPEG(t, false), "grey": goJPEG(t, true), "progressive": encodeOpenCV(t, ".jpg", false, 2, 1),
	} {
		want, err := gocv.IMDecode(data, gocv.IMReadColor|gocv.IMReadIgnoreOrientation)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Mat.ToBytes(), want.ToBytes()) {
			t.Errorf("%s: the pixels differ", name)
		}
		got.Mat.Close()
		want.Close()
	}
}

// TestFormats_AreInTheDocs compares the table of formats in docs/api.md with the formats of
// these tests.
func TestFormats_AreInTheDocs(t *testing.T) {
	path := "../../../docs/api.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- formats -->\n", "<!-- end of formats -->"
	before, rest, ok := strings.Cut(string(doc), begin)
	if !ok {
		t.Fatalf("docs/api.md does not contain %q", begin)
	}
	old, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("docs/api.md does not contain %q after %q", end, begin)
	}
	table := formatTable(formats(t))
	if old == table {
		return
	}
	if !*update {
		t.Fatalf("docs/api.md is out of date; go test ./services/internal/vision -run Formats -update writes:\n%s", table)
	}
	if err := os.WriteFile(path, []byte(before+begin+table+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// formatTable returns a Markdown table of the properties of each format.
func formatTable(all []format) string {
	kinds := []string{"JPEG", "PNG", "WebP", "BMP", "TIFF"}
	properties := []string{"alpha", "orientation", "depth", "colour", "compression", "damage"}
	cells := map[string][]string{}
	for _, f := range all {
		name := f.name
		switch {
		case f.property == "orientation":
			if strings.Contains(name, ",") {
				continue // another file with the same orientation
			}
		case f.damage:
			name += ": read, with `damage`"
		case f.code != "":
			name += fmt.Sprintf(": %d `%s`", v1.NewProblem(f.code, "").Status, f.code)
		}
		cells[f.kind+f.property] = append(cells[f.kind+f.property], name)
	}
	var b strings.Builder
	b.WriteString("| property | " + strings.Join(kinds, " | ") + " |\n|---|" + strings.Repeat("---|", len(kinds)) + "\n")
	for _, p := range properties {
		b.WriteString("| " + p)
		for _, k := range kinds {
			list := cells[k+p]
			if p == "orientation" && len(list) == 8 {
				list = []string{"1 to 8"}
			}
			if len(list) == 0 {
				list = []string{"—"}
			}
			b.WriteString(" | " + strings.Join(list, "; "))
		}
		b.WriteString(" |\n")
	}
	return b.String()
}

// TestDecode_Cases decodes the files of ../shared/cases, of which each once failed. They were made
// from the page that `sightmesh up` draws.
func TestDecode_Cases(t *testing.T) {
	dir := "../../../../shared/cases"
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no cases beside the repository: %v", err)
	}
	for _, tt := range []struct {
		file        string
		orientation int
		damage      bool
	}{
		{"alpha.webp", 1, false}, {"alpha_black_on_transparent.png", 1, false}, {"alpha_palette_trns.png", 1, false},
		{"bmp_rgb565.bmp", 1, false}, {"cut_80.jpg", 1, true}, {"mjpeg_no_dht.jpg", 1, false}, {"rle.bmp", 1, false},
		{"rot6.png", 6, false}, {"rot6.webp", 6, false}, {"rot6_lzw.tif", 6, false}, {"samp_2x4.jpg", 1, false},
		{"tiff_g4.tif", 1, false}, {"tmpl_expr.png", 1, false}, {"trailer_65_ffda.jpg", 1, false},
		{"ycbcr_jpeg.tif", 1, false},
	} {
		data, err := os.ReadFile(filepath.Join(dir, tt.file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := imagefile.Inspect(data, imagefile.DefaultLimits()); err != nil {
			t.Errorf("%s: %v", tt.file, err)
			continue
		}
		img, err := Decode(data)
		if err != nil {
			t.Errorf("%s: %v", tt.file, err)
			continue
		}
		if img.Orientation != tt.orientation {
			t.Errorf("%s: orientation %d, want %d", tt.file, img.Orientation, tt.orientation)
		}
		if (img.Damage != "") != tt.damage {
			t.Errorf("%s: damage is %q", tt.file, img.Damage)
		}
		if size, want := image.Pt(img.Mat.Cols(), img.Mat.Rows()), image.Pt(820, 480); size != want {
			t.Errorf("%s: the size is %v, want %v", tt.file, size, want)
		}
		// The page is black text on white, and grey where data is missing.
		if mean := img.Mat.Mean().Val1; !tt.damage && (mean < 230 || mean > 250) {
			t.Errorf("%s: the mean brightness is %.0f, want 230 to 250, that of a page", tt.file, mean)
		}
		img.Mat.Close()
	}
}
