package vision

import (
	"bytes"
	"encoding/binary"
)

// orientation finds the EXIF orientation, 1 to 8, of a JPEG file; 1 for every
// other file and for whatever does not make sense. Only the marker segments
// before the picture are read: Exif 2.32, sections 4.5 and 4.6.
func orientation(data []byte) int {
	if !bytes.HasPrefix(data, []byte{0xff, 0xd8}) {
		return 1
	}
	for p := data[2:]; len(p) >= 4 && p[0] == 0xff; {
		marker, size := p[1], int(binary.BigEndian.Uint16(p[2:]))
		if marker == 0xff { // fill byte
			p = p[1:]
			continue
		}
		if marker == 0xda || size < 2 || len(p) < 2+size {
			return 1
		}
		segment := p[4 : 2+size]
		if tiff, ok := bytes.CutPrefix(segment, []byte("Exif\x00\x00")); marker == 0xe1 && ok {
			return tiffOrientation(tiff)
		}
		p = p[2+size:]
	}
	return 1
}

// tiffOrientation looks for tag 0x0112 in the first directory.
func tiffOrientation(b []byte) int {
	const tag, short = 0x0112, 3
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(b, []byte("II*\x00")):
		order = binary.LittleEndian
	case bytes.HasPrefix(b, []byte("MM\x00*")):
		order = binary.BigEndian
	default:
		return 1
	}
	if len(b) < 8 {
		return 1
	}
	at := int64(order.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return 1
	}
	dir := b[at:]
	n := int(order.Uint16(dir))
	dir = dir[2:]
	for ; n > 0 && len(dir) >= 12; n, dir = n-1, dir[12:] {
		if order.Uint16(dir) != tag || order.Uint16(dir[2:]) != short {
			continue
		}
		if o := int(order.Uint16(dir[8:])); o >= 1 && o <= 8 {
			return o
		}
		return 1
	}
	return 1
}
