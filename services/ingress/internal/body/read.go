package body

import (
	"errors"
	"io"
)

// firstStep is the memory that is reserved when the first byte of a body arrives.
const firstStep = 64 << 10

// probeSize is how many bytes are read before memory is reserved for more.
const probeSize = 512

// ReadAll reads r to its end. Before it allocates memory, it calls grow with the
// number of bytes: first 64 KiB, then as much as it already has, so that it never
// has more than twice the bytes that arrived. largest is the expected size, as the
// client announced it or the caller limits it. It reduces allocations and is not a
// limit. ReadAll returns the bytes that it has read with every error.
func ReadAll(r io.Reader, grow func(n int64) error, largest int64) ([]byte, error) {
	var data []byte
	var probe [probeSize]byte
	for {
		full := len(data) == cap(data)
		to := data[len(data):cap(data)]
		if full {
			to = probe[:]
		}
		n, err := r.Read(to)
		switch {
		case n > 0 && full:
			size := max(int64(len(data)+n), min(max(2*int64(cap(data)), firstStep), largest))
			if err := grow(size - int64(cap(data))); err != nil {
				return data, err
			}
			data = append(append(make([]byte, 0, size), data...), probe[:n]...)
		case n > 0:
			data = data[:len(data)+n]
		}
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return data, err //nolint:wrapcheck // of r
		}
	}
}
