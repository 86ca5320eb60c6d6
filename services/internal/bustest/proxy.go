package bustest

import (
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Proxy is a TCP proxy in front of a server. It can hold the data of each direction
// and break its connections, so that acknowledgements are late or lost. It stops at the
// end of its test.
type Proxy struct {
	URL    string
	server string

	mu      sync.Mutex
	changed *sync.Cond
	held    [2]bool // by direction
	conns   map[net.Conn]struct{}
	closed  bool
	all     sync.WaitGroup
}

// Directions through a [Proxy].
const (
	requests = iota // from clients to the server
	replies         // from the server to clients
)

// StartProxy runs a proxy in front of s.
func StartProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatalf("proxy: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("proxy: %v", err)
	}
	p := &Proxy{URL: "nats://" + l.Addr().String(), server: u.Host, conns: map[net.Conn]struct{}{}}
	p.changed = sync.NewCond(&p.mu)
	p.all.Go(func() { p.serve(l) })
	t.Cleanup(func() {
		l.Close() //nolint:errcheck // the end of a test
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Break()
		p.all.Wait()
	})
	return p
}

// PauseReplies starts or stops holding the data that the server sends.
func (p *Proxy) PauseReplies(held bool) { p.setHeld(replies, held) }

// PauseRequests starts or stops holding the data that clients send.
func (p *Proxy) PauseRequests(held bool) { p.setHeld(requests, held) }

func (p *Proxy) setHeld(direction int, held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[direction] = held
	p.changed.Broadcast()
}

// Break closes every connection. Held data is lost.
func (p *Proxy) Break() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
		delete(p.conns, c)
	}
	p.changed.Broadcast()
}

func (p *Proxy) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			client.Close() // nothing was sent
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = struct{}{}, struct{}{}
		closed := p.closed
		p.mu.Unlock()
		if closed {
			p.Break()
		}
		p.all.Go(func() { p.copy(server, client, requests) })
		p.all.Go(func() { p.copy(client, server, replies) })
	}
}

func (p *Proxy) copy(to, from net.Conn, direction int) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && p.awaitRelease(to, direction) {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				from.Close() // it is broken
			}
			to.Close() // the other side has ended
			return
		}
	}
}

// awaitRelease waits while a direction is held. It returns false when the connection
// was broken meanwhile.
func (p *Proxy) awaitRelease(to net.Conn, direction int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if _, ok := p.conns[to]; !ok {
			return false
		}
		if !p.held[direction] {
			return true
		}
		p.changed.Wait()
	}
}
