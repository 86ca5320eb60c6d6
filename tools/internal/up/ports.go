package up

import (
	"fmt"
	"net"
)

// reservePort listens on addr until release is called, so that no other process can listen there. Port 0 needs no
// reservation.
func reservePort(what, flag, addr string) (release func(), err error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %s: %w, want HOST:PORT", what, flag, err)
	}
	if port == "0" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w (%s sets another address)", what, err, flag)
	}
	return func() { l.Close() }, nil //nolint:errcheck // nothing was read or written
}
