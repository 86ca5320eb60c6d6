package imagefile

import (
	"bytes"
	"encoding/binary"
)

// parseWebP reads the size from the first chunk and the orientation from the chunk EXIF
// (RFC 9649, sections 2.5 to 2.7).
func parseWebP(h Header, data []byte) (Header, error) {
	for p := data[12:]; len(p) >= 8; {
		size := int64(binary.LittleEndian.Uint32(p[4:]))
		body := p[8:]
		if size < int64(len(body)) {
			body = body[:size]
		}
		switch name := string(p[:4]); name {
		case "VP8X":
			if len(body) < 10 {
				return h, damagedProblem(h.Type, "the chunk VP8X is cut off")
			}
			if body[0]&0x02 != 0 {
				return h, unsupportedProblem("an animated WebP")
			}
			h.Width, h.Height = 1+uint24(body[4:]), 1+uint24(body[7:])
		case "VP8 ":
			// RFC 6386, section 9.1: a frame tag of three bytes, a start code, and width
			// and height with two bits each for scaling.
			if len(body) < 10 || string(body[3:6]) != "\x9d\x01\x2a" {
				return h, damagedProblem(h.Type, "the chunk VP8 has no key frame")
			}
			if h.Width == 0 {
				h.Width = int(binary.LittleEndian.Uint16(body[6:]) & 0x3fff)
				h.Height = int(binary.LittleEndian.Uint16(body[8:]) & 0x3fff)
			}
		case "VP8L":
			if len(body) < 5 || body[0] != 0x2f {
				return h, damagedProblem(h.Type, "the chunk VP8L has no signature")
			}
			if bits := binary.LittleEndian.Uint32(body[1:]); h.Width == 0 {
				h.Width, h.Height = 1+int(bits&0x3fff), 1+int(bits>>14&0x3fff)
			}
		case "EXIF":
			exif, _ := bytes.CutPrefix(body, exifPrefix) // some encoders add the prefix
			h.Orientation = exifOrientation(exif)
		}
		next := 8 + size + size&1
		if next > int64(len(p)) {
			break
		}
		p = p[next:]
	}
	if h.Width == 0 || h.Height == 0 {
		return h, damagedProblem(h.Type, "it has no image")
	}
	return h, nil
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }
