package lanetest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
)

// Types of the images that the suite can generate.
const (
	bmpType  = "image/bmp"
	jpegType = "image/jpeg"
	pngType  = "image/png"
)

func mediaTypes() []string { return []string{bmpType, jpegType, pngType} }

// drawing returns an image of dark bars on a light gradient.
func drawing(width, height int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			c := color.RGBA{R: 255, G: uint8(200 + 50*x/width), B: uint8(200 + 50*y/height), A: 255}
			if y%40 > 25 && x%60 > 20 {
				c = color.RGBA{R: 20, G: uint8(x), B: uint8(y), A: 255}
			}
			m.SetRGBA(x, y, c)
		}
	}
	return m
}

// encode returns an image file of one of [mediaTypes].
func encode(m *image.RGBA, mediaType string) ([]byte, error) {
	var b bytes.Buffer
	var err error
	switch mediaType {
	case bmpType:
		encodeBMP(&b, m)
	case jpegType:
		err = jpeg.Encode(&b, m, nil)
	default:
		err = png.Encode(&b, m)
	}
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", mediaType, err)
	}
	return b.Bytes(), nil
}

// encodeBMP writes an uncompressed file with 24 bits for each pixel.
func encodeBMP(b *bytes.Buffer, m *image.RGBA) {
	const headers = 14 + 40 // bytes of the file header and the image header
	width, height := m.Rect.Dx(), m.Rect.Dy()
	row := (3*width + 3) / 4 * 4 // rows are padded to four bytes
	b.WriteString("BM")
	for _, field := range []any{
		uint32(headers + row*height), uint32(0), uint32(headers),
		uint32(40), int32(width), int32(height), uint16(1), uint16(24), uint32(0), uint32(row * height),
		int32(2835), int32(2835), uint32(0), uint32(0), // 2835 pixels a meter are 72 dpi
	} {
		_ = binary.Write(b, binary.LittleEndian, field) // does not fail: the sizes are fixed
	}
	for y := height - 1; y >= 0; y-- { // from the bottom
		line := make([]byte, 0, row)
		for x := range width {
			c := m.RGBAAt(x, y)
			line = append(line, c.B, c.G, c.R)
		}
		b.Write(line[:row:row])
	}
}

// withOrientation returns a JPEG file with an EXIF orientation.
func withOrientation(file []byte, orientation byte) []byte {
	exif := []byte("\xff\xe1\x00\x22Exif\x00\x00" + // APP1 with 34 bytes
		"MM\x00*\x00\x00\x00\x08" + // TIFF header, big-endian
		"\x00\x01" + // one tag:
		"\x01\x12\x00\x03\x00\x00\x00\x01\x00" + string(orientation) + "\x00\x00" + // Orientation
		"\x00\x00\x00\x00") // no further tags
	const startOfImage = 2 // bytes
	out := append([]byte{}, file[:startOfImage]...)
	out = append(out, exif...)
	return append(out, file[startOfImage:]...)
}
