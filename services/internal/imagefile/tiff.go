package imagefile

import "encoding/binary"

// Tags of TIFF 6.0.
const (
	tagWidth        = 256
	tagLength       = 257
	tagBits         = 258
	tagCompression  = 259
	tagPhotometric  = 262
	tagOrientation  = 274
	tagSamples      = 277
	tagExtraSamples = 338
	tagSampleFormat = 339
)

// tiffCompressions are those that the decoder supports: none, the three of CCITT, LZW, the
// two of JPEG, Deflate under its two numbers, JBIG, PackBits, LERC, LZMA and Zstandard.
var tiffCompressions = map[uint32]bool{
	1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 8: true, 32946: true,
	34661: true, 32773: true, 34887: true, 34925: true, 50000: true,
}

// readTIFFDirectory reads the first directory of a TIFF file, of a BigTIFF file or of EXIF
// data. It returns the first value of each tag whose values are numbers of up to 32 bits.
// ok is false for data that is not a TIFF.
func readTIFFDirectory(b []byte) (tags map[uint16]uint32, ok bool) {
	if len(b) < 8 {
		return nil, false
	}
	var order binary.ByteOrder = binary.LittleEndian
	if b[0] == 'M' {
		order = binary.BigEndian
	}
	// Offsets and counts have four bytes, or eight in a BigTIFF.
	number, width := func(p []byte) uint64 { return uint64(order.Uint32(p)) }, 4
	counted := 2 // size of the number of entries, in bytes
	at := number(b[4:])
	switch string(b[:4]) {
	case "II*\x00", "MM\x00*":
	case "II+\x00", "MM\x00+":
		if len(b) < 16 {
			return nil, false
		}
		number, width, counted = order.Uint64, 8, 8
		at = number(b[8:])
	default:
		return nil, false
	}
	if at > uint64(len(b)) || uint64(len(b))-at < uint64(counted) {
		return nil, false
	}
	dir := b[at:]
	n := uint64(order.Uint16(dir))
	if counted == 8 {
		n = number(dir)
	}
	dir = dir[counted:]
	tags = map[uint16]uint32{}
	for entry := 4 + 2*width; n > 0 && len(dir) >= entry; n, dir = n-1, dir[entry:] {
		tag, typ, count := order.Uint16(dir), order.Uint16(dir[2:]), number(dir[4:])
		const short, long = 3, 4
		size := map[uint16]uint64{short: 2, long: 4}[typ]
		if _, twice := tags[tag]; twice || size == 0 || count == 0 {
			continue
		}
		value := dir[4+width:]
		if count > uint64(width)/size { // the entry contains the offset of the values
			offset := number(value)
			if offset > uint64(len(b)) || uint64(len(b))-offset < size {
				continue
			}
			value = b[offset:]
		}
		if typ == short {
			tags[tag] = uint32(order.Uint16(value))
		} else {
			tags[tag] = order.Uint32(value)
		}
	}
	return tags, true
}

// parseTIFF reads the first directory, which describes the first image of the file.
func parseTIFF(h Header, data []byte) (Header, error) {
	tags, ok := readTIFFDirectory(data)
	if !ok || tags[tagWidth] == 0 || tags[tagLength] == 0 {
		return h, damagedProblem(h.Type, "its first directory has no size, or is cut off")
	}
	const most = 1<<31 - 1
	h.Width, h.Height = int(min(tags[tagWidth], most)), int(min(tags[tagLength], most))
	if c, ok := tags[tagCompression]; ok && !tiffCompressions[c] {
		return h, unsupportedProblem("a TIFF with compression %d", c)
	}
	if format, ok := tags[tagSampleFormat]; ok && format != 1 {
		return h, unsupportedProblem("a TIFF of numbers of the kind %d", format) // such as 3, floating-point
	}
	switch bits := tags[tagBits]; bits {
	case 0, 1, 2, 4, 8, 16: // without the tag 1 bit is the default
	default:
		return h, unsupportedProblem("a TIFF of %d bits a sample", bits)
	}
	const whiteIsZero, blackIsZero, inks, iccLab = 0, 1, 5, 9
	switch p := tags[tagPhotometric]; {
	case p == iccLab:
		return h, unsupportedProblem("a TIFF of ICC L*a*b*")
	case p == inks && tags[tagBits] == 16:
		return h, unsupportedProblem("a TIFF of 16 bits of ink")
	case (p == whiteIsZero || p == blackIsZero) && tags[tagSamples] > 2:
		return h, unsupportedProblem("a grey TIFF of %d samples", tags[tagSamples])
	}
	const premultiplied, straight = 1, 2
	extra := tags[tagExtraSamples]
	h.Alpha = extra == premultiplied || extra == straight
	h.Orientation = validOrientation(tags[tagOrientation])
	return h, nil
}
