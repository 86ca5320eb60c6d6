package imagefile

import (
	"encoding/binary"
	"hash/crc32"
)

// pngStart is the length of the signature and of the first chunk, IHDR, together.
const pngStart = 8 + 8 + 13 + 4

// parsePNG reads the chunk IHDR, and the orientation in the chunk eXIf if there is one (PNG
// 1.2, extensions 1.5.0).
func parsePNG(h Header, data []byte) (Header, error) {
	if len(data) < pngStart || string(data[8:16]) != "\x00\x00\x00\x0dIHDR" {
		return h, damagedProblem(h.Type, "it does not begin with the chunk IHDR")
	}
	if crc32.ChecksumIEEE(data[12:29]) != binary.BigEndian.Uint32(data[29:]) {
		return h, damagedProblem(h.Type, "the checksum of the chunk IHDR is wrong")
	}
	width, height := binary.BigEndian.Uint32(data[16:]), binary.BigEndian.Uint32(data[20:])
	const most = 1<<31 - 1
	if width == 0 || height == 0 || width > most || height > most {
		return h, damagedProblem(h.Type, "it is %d x %d pixels", width, height)
	}
	h.Width, h.Height = int(width), int(height)
	h.Depth = int(data[24])
	const grey = 0
	kind := data[25]
	for p := data[pngStart:]; len(p) >= 12; {
		size := int64(binary.BigEndian.Uint32(p))
		if size > int64(len(p))-12 {
			break
		}
		body := p[8 : 8+size]
		switch name := string(p[4:8]); name {
		case "eXIf":
			h.Orientation = exifOrientation(body)
		case "PLTE", "tRNS": // if they are damaged, the colours are wrong
			if crc32.ChecksumIEEE(p[4:8+size]) != binary.BigEndian.Uint32(p[8+size:]) {
				return h, damagedProblem(h.Type, "the checksum of the chunk %s is wrong", name)
			}
			if name == "tRNS" && kind == grey && size == 2 {
				h.TransparentGrey = int(binary.BigEndian.Uint16(body)) & (1<<h.Depth - 1)
			}
		case "IEND":
			return h, nil
		}
		p = p[12+size:]
	}
	return h, nil
}
