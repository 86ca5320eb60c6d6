package imagefile

import "encoding/binary"

// Tags of TIFF 6.0.
const (
	tagWidth        = 256
	tagLength       = 257
	tagBits         = 258
	tagCompression  = 259
	tagOrientation  = 274
	tagSamples      = 277
	tagExtraSamples = 338
	tagSampleFormat = 339
)

// tiffCompressions are those that the decoder reads: none, the three of CCITT, LZW,
// both of JPEG, Deflate under its two numbers, JBIG, PackBits, LERC, LZMA and
// Zstandard.
var tiffCompressions = map[uint32]bool{
	1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 8: true, 32946: true,
	34661: true, 32773: true, 34887: true, 34925: true, 50000: true,
}

// tiffDirectory reads the first directory of a TIFF file or of EXIF, whose values
// are numbers of up to 32 bits: the first of each tag. ok is false for what is no
// TIFF.
func tiffDirectory(b []byte) (tags map[uint16]uint32, ok bool) {
	var order binary.ByteOrder
	switch {
	case len(b) < 8:
		return nil, false
	case string(b[:4]) == "II*\x00":
		order = binary.LittleEndian
	case string(b[:4]) == "MM\x00*":
		order = binary.BigEndian
	default:
		return nil, false
	}
	at := int64(order.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return nil, false
	}
	dir := b[at:]
	n := int(order.Uint16(dir))
	dir = dir[2:]
	tags = map[uint16]uint32{}
	for ; n > 0 && len(dir) >= 12; n, dir = n-1, dir[12:] {
		tag, typ, count := order.Uint16(dir), order.Uint16(dir[2:]), order.Uint32(dir[4:])
		const short, long = 3, 4
		value := dir[8:]
		if typ == short && count > 2 || typ == long && count > 1 { // they lie elsewhere
			offset := int64(order.Uint32(value))
			if offset+4 > int64(len(b)) {
				continue
			}
			value = b[offset:]
		}
		if _, twice := tags[tag]; twice {
			continue
		}
		switch typ {
		case short:
			tags[tag] = uint32(order.Uint16(value))
		case long:
			tags[tag] = order.Uint32(value)
		}
	}
	return tags, true
}

// parseTIFF reads the first directory: the first image of a file counts.
func parseTIFF(data []byte) (Header, error) {
	h := Header{Type: "image/tiff", Orientation: 1}
	tags, ok := tiffDirectory(data)
	if !ok || tags[tagWidth] == 0 || tags[tagLength] == 0 {
		return h, damaged(h.Type, "its first directory has no size, or is cut off")
	}
	const most = 1<<31 - 1
	h.Width, h.Height = int(min(tags[tagWidth], most)), int(min(tags[tagLength], most))
	if c, ok := tags[tagCompression]; ok && !tiffCompressions[c] {
		return h, unsupported("a TIFF with compression %d", c)
	}
	if format, ok := tags[tagSampleFormat]; ok && format != 1 {
		return h, unsupported("a TIFF of numbers of the kind %d", format) // such as 3, floating-point
	}
	if bits := tags[tagBits]; bits > 16 {
		return h, unsupported("a TIFF of %d bits a sample", bits)
	}
	const premultiplied, straight = 1, 2
	extra := tags[tagExtraSamples]
	if tags[tagSamples] == 2 && (extra == premultiplied || extra == straight) {
		return h, unsupported("a grey TIFF with alpha") // the decoder drops the alpha
	}
	h.Premultiplied = extra == premultiplied
	h.Orientation = validOrientation(tags[tagOrientation])
	return h, nil
}
