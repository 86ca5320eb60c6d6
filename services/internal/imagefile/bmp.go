package imagefile

import "encoding/binary"

// Compressions of BMP, [MS-WMF] section 2.1.1.7.
const (
	bmpRGB       = 0
	bmpRLE8      = 1
	bmpRLE4      = 2
	bmpBitfields = 3
	bmpJPEG      = 4
	bmpPNG       = 5
)

// BMPPixels locates the pixels of a 32-bit BMP, whose alpha the decoder does not read.
type BMPPixels struct {
	// Offset is the offset of the first row in the file, in bytes.
	Offset int
	// TopDown says that the first row in the file is the top row of the image.
	TopDown bool
	// AlphaMask masks the alpha bits of a little-endian pixel; 0 means no alpha.
	AlphaMask uint32
}

// parseBMP reads the file header and the information header.
func parseBMP(h Header, data []byte) (Header, error) {
	if len(data) < 18 {
		return h, damagedProblem(h.Type, "its header is cut off")
	}
	size := int64(binary.LittleEndian.Uint32(data[14:]))
	if size != 12 && (size < 36 || size > 1<<10) {
		return h, unsupportedProblem("a BMP with a header of %d bytes", size)
	}
	if int64(len(data)) < 14+size {
		return h, damagedProblem(h.Type, "its header is cut off")
	}
	if size == 12 { // the header of OS/2 1.x
		h.Width, h.Height = int(binary.LittleEndian.Uint16(data[18:])), int(binary.LittleEndian.Uint16(data[20:]))
		return h, checkBMP(h, int(binary.LittleEndian.Uint16(data[24:])), bmpRGB)
	}
	width := int64(int32(binary.LittleEndian.Uint32(data[18:])))
	height := int64(int32(binary.LittleEndian.Uint32(data[22:])))
	pixels := BMPPixels{Offset: int(binary.LittleEndian.Uint32(data[10:])), TopDown: height < 0}
	if height < 0 {
		height = -height
	}
	h.Width, h.Height = int(width), int(height)
	bits, compression := int(binary.LittleEndian.Uint16(data[28:])), binary.LittleEndian.Uint32(data[30:])
	if bits == 16 && size >= 56 && binary.LittleEndian.Uint32(data[66:]) != 0 {
		return h, unsupportedProblem("a BMP of 16 bits with alpha")
	}
	if bits == 32 {
		switch {
		case compression == bmpRGB:
			pixels.AlphaMask = 0xff000000 // ignored later if it is 0 in all pixels
		case size >= 56: // the header contains an alpha mask
			pixels.AlphaMask = binary.LittleEndian.Uint32(data[66:])
		}
		h.BMP = &pixels
	}
	if compression == bmpBitfields && len(data) >= 66 && !hasSupportedMasks(bits, data[54:]) {
		return h, unsupportedProblem("a BMP of %d bits with these masks", bits)
	}
	return h, checkBMP(h, bits, compression)
}

// hasSupportedMasks reports whether the decoder supports the masks of red, green and blue at p.
// It supports 5 bits each, or 5, 6 and 5 bits, in 16-bit pixels, and 8 bits each in 32-bit
// pixels.
func hasSupportedMasks(bits int, p []byte) bool {
	masks := [3]uint32{binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:]), binary.LittleEndian.Uint32(p[8:])}
	if bits == 16 {
		return masks == [3]uint32{0x7c00, 0x3e0, 0x1f} || masks == [3]uint32{0xf800, 0x7e0, 0x1f}
	}
	for _, m := range masks {
		if m != 0xff && m != 0xff00 && m != 0xff0000 && m != 0xff000000 {
			return false
		}
	}
	return true
}

// checkBMP rejects sizes, depths and compressions that the decoder does not support.
func checkBMP(h Header, bits int, compression uint32) error {
	if h.Width <= 0 || h.Height <= 0 {
		return unsupportedProblem("a BMP of %d x %d pixels", h.Width, h.Height)
	}
	switch compression {
	case bmpRGB:
		switch bits {
		case 1, 4, 8, 16, 24, 32:
			return nil
		}
	case bmpRLE8:
		if bits == 8 {
			return nil
		}
	case bmpRLE4:
		if bits == 4 {
			return nil
		}
	case bmpBitfields:
		if bits == 16 || bits == 32 {
			return nil
		}
	case bmpJPEG:
		return unsupportedProblem("a BMP that holds a JPEG")
	case bmpPNG:
		return unsupportedProblem("a BMP that holds a PNG")
	}
	return unsupportedProblem("a BMP of %d bits with compression %d", bits, compression)
}
