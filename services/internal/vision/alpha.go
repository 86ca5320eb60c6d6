package vision

import (
	"encoding/binary"
	"math"
	"math/bits"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/services/internal/imagefile"
)

// blendOnWhite replaces an image of blue, green, red and alpha by the same image on white.
func blendOnWhite(m *gocv.Mat) {
	out := gocv.NewMatWithSize(m.Rows(), m.Cols(), gocv.MatTypeCV8UC3)
	from, to := pixels(*m), pixels(out)
	for i, j := 0, 0; i+3 < len(from); i, j = i+4, j+3 {
		alpha := from[i+3]
		for c := range 3 {
			to[j+c] = blendValueOnWhite(multiplyAlpha(from[i+c], alpha), alpha)
		}
	}
	m.Close()
	*m = out
}

// whitenTransparentGrey makes the transparent pixels of a grey PNG white. OpenCV ignores the chunk tRNS of
// grey images.
func whitenTransparentGrey(m gocv.Mat, h imagefile.Header) error {
	if h.Depth == 16 {
		p, err := m.DataPtrUint16()
		replace(p, uint16(h.TransparentGrey), math.MaxUint16)
		return err
	}
	p, err := m.DataPtrUint8()
	replace(p, uint8(h.TransparentGrey*255/(1<<h.Depth-1)), math.MaxUint8)
	return err
}

func replace[T comparable](all []T, what, by T) {
	for i, v := range all {
		if v == what {
			all[i] = by
		}
	}
}

// blendBMPOnWhite puts the pixels of a BMP on white. OpenCV decodes them without their alpha. If
// alpha is 0 in all pixels, the bits are unused and the image is opaque.
func blendBMPOnWhite(m gocv.Mat, data []byte, p imagefile.BMPPixels) {
	width, height := m.Cols(), m.Rows()
	size := 4 * width
	if p.AlphaMask == 0 || p.Offset < 0 || int64(p.Offset)+int64(size)*int64(height) > int64(len(data)) {
		return
	}
	shift := bits.TrailingZeros32(p.AlphaMask)
	highest := p.AlphaMask >> shift
	alphaAt := func(x, y int) uint8 {
		if !p.TopDown {
			y = height - 1 - y
		}
		pixel := binary.LittleEndian.Uint32(data[p.Offset+y*size+4*x:])
		return uint8(uint64(pixel&p.AlphaMask>>shift) * 255 / uint64(highest))
	}
	to := pixels(m)
	var seen uint8
	for y := range height {
		for x := range width {
			seen |= alphaAt(x, y)
		}
	}
	if seen == 0 {
		return
	}
	for y := range height {
		for x := range width {
			alpha := alphaAt(x, y)
			for c := range 3 {
				v := &to[3*(y*width+x)+c]
				*v = blendValueOnWhite(multiplyAlpha(*v, alpha), alpha)
			}
		}
	}
}

// pixels returns the bytes of a continuous matrix. Matrices that were just decoded or
// created are continuous.
func pixels(m gocv.Mat) []uint8 {
	p, err := m.DataPtrUint8()
	if err != nil {
		panic(err) // not of bytes, or not continuous: a bug in this package
	}
	return p
}

// blendValueOnWhite returns a colour on white. The colour is already multiplied by alpha.
func blendValueOnWhite(v, alpha uint8) uint8 { return v + min(255-alpha, 255-v) }

// multiplyAlpha returns v * alpha / 255, rounded.
func multiplyAlpha(v, alpha uint8) uint8 { return uint8((uint16(v)*uint16(alpha) + 127) / 255) }
