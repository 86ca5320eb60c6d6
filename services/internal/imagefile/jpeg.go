package imagefile

import (
	"bytes"
	"encoding/binary"
)

// JPEG markers, ITU-T T.81, table B.1.
const (
	markerSOI  = 0xd8
	markerEOI  = 0xd9
	markerSOS  = 0xda
	markerDHT  = 0xc4
	markerJPG  = 0xc8
	markerDAC  = 0xcc
	markerAPP1 = 0xe1
	markerTEM  = 0x01
)

// jpegFrames names the frame types that are not supported. Baseline, extended and
// progressive frames are, with Huffman or arithmetic coding.
var jpegFrames = map[byte]string{
	0xc3: "lossless", 0xc5: "hierarchical", 0xc6: "hierarchical", 0xc7: "hierarchical",
	0xcb: "lossless arithmetic", 0xcd: "hierarchical", 0xce: "hierarchical", 0xcf: "hierarchical",
}

// isRestart reports whether a marker is a restart marker, which occurs inside coded data.
func isRestart(marker byte) bool { return marker >= 0xd0 && marker <= 0xd7 }

// A jpegSegment is a marker and its data. The data is empty for a marker without data.
type jpegSegment struct {
	marker byte
	data   []byte
}

// jpegSegments yields the segments of a JPEG file up to the end-of-image marker, the end of
// the file or the first invalid segment. It skips coded data, in which 0xff is always
// followed by 0, another 0xff or a restart marker.
func jpegSegments(data []byte) func(yield func(jpegSegment) bool) {
	return func(yield func(jpegSegment) bool) {
		for p := data[2:]; ; {
			i := bytes.IndexByte(p, 0xff)
			if i < 0 || len(p) < i+2 {
				return
			}
			p = p[i+1:]
			marker := p[0]
			switch {
			case marker == 0xff: // a fill byte before a marker
				continue
			case marker == 0, isRestart(marker), marker == markerTEM, marker == markerSOI:
				p = p[1:]
				continue
			case marker == markerEOI:
				yield(jpegSegment{marker: marker})
				return
			}
			p = p[1:]
			if len(p) < 2 {
				return
			}
			size := max(int(binary.BigEndian.Uint16(p)), 2) // libjpeg continues after a size that is too small
			if len(p) < size {
				return
			}
			if !yield(jpegSegment{marker, p[2:size]}) {
				return
			}
			p = p[size:]
		}
	}
}

// parseJPEG reads the frame header, the orientation and the number of scans.
func parseJPEG(h Header, data []byte) (Header, error) {
	for s := range jpegSegments(data) {
		switch m := s.marker; {
		case m == markerSOS:
			h.Scans++
		case m == markerAPP1:
			if exif, ok := bytes.CutPrefix(s.data, exifPrefix); ok && h.Orientation == 1 {
				h.Orientation = exifOrientation(exif)
			}
		case m >= 0xc0 && m <= 0xcf && m != markerDHT && m != markerJPG && m != markerDAC:
			if h.Width > 0 {
				continue // the decoder uses the first frame, too
			}
			if len(s.data) < 6 {
				return h, damagedProblem(h.Type, "its frame header is cut off")
			}
			if kind, ok := jpegFrames[m]; ok {
				return h, unsupportedProblem("a %s JPEG", kind)
			}
			if bits := s.data[0]; bits != 8 {
				return h, unsupportedProblem("a JPEG of %d bits a sample", bits)
			}
			h.Height, h.Width = int(binary.BigEndian.Uint16(s.data[1:])), int(binary.BigEndian.Uint16(s.data[3:]))
			switch n := s.data[5]; n {
			case 1, 3, 4:
			default:
				return h, unsupportedProblem("a JPEG of %d components", n)
			}
			if h.Width == 0 || h.Height == 0 {
				return h, damagedProblem(h.Type, "it has no size")
			}
		}
	}
	if h.Width == 0 {
		return h, damagedProblem(h.Type, "it has no frame header")
	}
	if h.Scans == 0 {
		return h, damagedProblem(h.Type, "it has no scan")
	}
	return h, nil
}
