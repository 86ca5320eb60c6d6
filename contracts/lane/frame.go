package lane

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
)

// FD is the file descriptor of the socket in the lane process.
const FD = 3

// Limits of a frame; a longer one ends the conversation.
const (
	MaxFacts  = 16 << 20
	MaxPixels = 256 << 20
)

const headerLen = 8

// ErrFrameTooLarge is returned for a frame over [MaxFacts] or [MaxPixels].
var ErrFrameTooLarge = errors.New("lane frame too large")

// WriteFrame writes one frame: facts as JSON, then the pixels in order. It
// does not copy the pixels when w is a [net.Conn].
func WriteFrame(w io.Writer, facts any, pixels ...[]byte) error {
	j, err := json.Marshal(facts)
	if err != nil {
		return fmt.Errorf("write lane frame: %w", err)
	}
	n := 0
	for _, p := range pixels {
		n += len(p)
	}
	if len(j) > MaxFacts || n > MaxPixels {
		return fmt.Errorf("write lane frame: %d bytes of facts, %d of pixels: %w", len(j), n, ErrFrameTooLarge)
	}
	head := make([]byte, headerLen, headerLen+len(j))
	binary.BigEndian.PutUint32(head, uint32(len(j)))
	binary.BigEndian.PutUint32(head[4:], uint32(n))
	bufs := make(net.Buffers, 0, 1+len(pixels))
	bufs = append(bufs, append(head, j...))
	for _, p := range pixels {
		if len(p) > 0 {
			bufs = append(bufs, p)
		}
	}
	if _, err := bufs.WriteTo(w); err != nil {
		return fmt.Errorf("write lane frame: %w", err)
	}
	return nil
}

// ReadFrame reads one frame. facts and pixels are freshly allocated and share
// one array. An end of file between frames is [io.EOF]; inside one it is
// [io.ErrUnexpectedEOF].
func ReadFrame(r io.Reader) (facts, pixels []byte, err error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil, io.EOF
		}
		return nil, nil, fmt.Errorf("read lane frame: %w", err)
	}
	nf, np := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
	if nf > MaxFacts || np > MaxPixels {
		return nil, nil, fmt.Errorf("read lane frame: %d bytes of facts, %d of pixels: %w", nf, np, ErrFrameTooLarge)
	}
	buf := make([]byte, int(nf)+int(np))
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, nil, fmt.Errorf("read lane frame: %w", err)
	}
	return buf[:nf:nf], buf[nf:], nil
}
