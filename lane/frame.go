package lane

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// FD is the file descriptor of the socket in the process of a lane.
const FD = 3

// Limits of a frame in bytes. A longer frame ends the conversation.
const (
	MaxFacts  = 16 << 20
	MaxPixels = 256 << 20
)

const headerLen = 8

// ErrFrameTooLarge is returned for a frame over [MaxFacts] or [MaxPixels].
var ErrFrameTooLarge = errors.New("lane frame too large")

// WriteFrame writes one frame: facts as JSON, then the pixels in order. It writes to a
// socket in an [os.File] with one system call and without a copy.
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
	bufs := make([][]byte, 0, 1+len(pixels))
	bufs = append(bufs, append(head, j...))
	for _, p := range pixels {
		if len(p) > 0 {
			bufs = append(bufs, p)
		}
	}
	if err := writeAll(w, bufs); err != nil {
		return fmt.Errorf("write lane frame: %w", err)
	}
	return nil
}

func writeAll(w io.Writer, bufs [][]byte) error {
	f, ok := w.(*os.File)
	if !ok {
		for _, b := range bufs {
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		return nil
	}
	// Not f.Fd(): another file may get the number when f is closed.
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var writeErr error
	if err := conn.Write(func(fd uintptr) bool {
		writeErr = writev(int(fd), bufs)
		return true
	}); err != nil {
		return err
	}
	return writeErr
}

func writev(fd int, bufs [][]byte) error {
	const maxBufs = 1024 // of one writev, IOV_MAX
	for len(bufs) > 0 {
		n, err := unix.Writev(fd, bufs[:min(len(bufs), maxBufs)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("writev", err)
		}
		for n > 0 && n >= len(bufs[0]) {
			n -= len(bufs[0])
			bufs = bufs[1:]
		}
		if n > 0 {
			bufs[0] = bufs[0][n:]
		}
	}
	return nil
}

// ReadFrame reads one frame. facts and pixels are newly allocated and share one array. The
// error is [io.EOF] at an end of file between frames, and [io.ErrUnexpectedEOF] inside of
// a frame.
func ReadFrame(r io.Reader) (facts, pixels []byte, err error) {
	facts, pixels, _, err = readFrame(r, nil)
	return facts, pixels, err
}

// readFrame reads one frame into the array of buf, or into a new one if that is too small.
// It returns the array as used.
func readFrame(r io.Reader, buf []byte) (facts, pixels, used []byte, err error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil, buf, io.EOF
		}
		return nil, nil, buf, fmt.Errorf("read lane frame: %w", err)
	}
	nf, np := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
	if nf > MaxFacts || np > MaxPixels {
		err := fmt.Errorf("read lane frame: %d bytes of facts, %d of pixels: %w", nf, np, ErrFrameTooLarge)
		return nil, nil, buf, err
	}
	if n := int(nf) + int(np); n <= cap(buf) {
		buf = buf[:n]
	} else {
		buf = make([]byte, n)
	}
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, nil, buf, fmt.Errorf("read lane frame: %w", err)
	}
	return buf[:nf:nf], buf[nf:], buf, nil
}
