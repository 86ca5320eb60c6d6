package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// A Direction is one of the two directions of a [Proxy].
type Direction int

// The directions.
const (
	ToServer Direction = iota
	FromServer
)

func (d Direction) String() string {
	if d == ToServer {
		return "to the server"
	}
	return "from the server"
}

// A Proxy forwards TCP connections to a server, and disturbs them on request. It is
// safe for concurrent use by multiple goroutines.
type Proxy struct {
	server   string
	listener net.Listener
	ctx      context.Context
	stop     context.CancelFunc
	running  sync.WaitGroup

	mu    sync.Mutex
	open  map[net.Conn]bool
	delay time.Duration
	held  [2]chan struct{} // one for each Direction; closed when the pause ends, nil without a pause
}

// NewProxy starts a proxy on a free port of host.
func NewProxy(host, server string) (*Proxy, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	p := &Proxy{server: server, listener: l, open: map[net.Conn]bool{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.running.Go(p.acceptLoop)
	return p, nil
}

// Addr returns the address on which the proxy accepts connections.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close closes the proxy and its connections.
func (p *Proxy) Close() {
	p.stop()
	p.listener.Close() //nolint:errcheck // the error has no consequence
	p.Cut()
	p.running.Wait()
}

// Cut closes every connection. New ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close()
	}
}

// SetDelay delays every byte in both directions by d. 0 ends the delay.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Pause holds every byte of one direction until Resume. No byte is lost, and the
// connections stay open.
func (p *Proxy) Pause(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[d] == nil {
		p.held[d] = make(chan struct{})
	}
}

// Resume ends Pause.
func (p *Proxy) Resume(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[d] != nil {
		close(p.held[d])
		p.held[d] = nil
	}
}

func (p *Proxy) acceptLoop() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.running.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := new(net.Dialer).DialContext(p.ctx, "tcp", p.server)
	if err != nil {
		return // to the client, the server does not listen
	}
	defer server.Close()
	p.mu.Lock()
	p.open[client], p.open[server] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, client)
		delete(p.open, server)
	}()
	if p.ctx.Err() != nil {
		return // closed while it was being opened
	}
	ctx, end := context.WithCancel(p.ctx)
	defer end()
	var both sync.WaitGroup
	for d, from := range []net.Conn{ToServer: client, FromServer: server} {
		to := []net.Conn{ToServer: server, FromServer: client}[d]
		both.Go(func() {
			defer end()
			defer client.Close()
			defer server.Close()
			p.copy(ctx, Direction(d), from, to)
		})
	}
	both.Wait()
}

// chunk is the result of one read.
type chunk struct {
	data []byte
	due  time.Time
}

// copy copies until one of the connections is closed. Bytes that were read before the
// end of from are still written, so that a held or delayed message arrives.
func (p *Proxy) copy(ctx context.Context, d Direction, from, to net.Conn) {
	chunks := make(chan chunk, 1024)
	p.running.Go(func() {
		defer close(chunks)
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			if n > 0 {
				p.mu.Lock()
				c := chunk{buf[:n], time.Now().Add(p.delay)}
				p.mu.Unlock()
				select {
				case chunks <- c:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range chunks {
		if !p.wait(ctx, d, c.due) {
			return
		}
		if _, err := to.Write(c.data); err != nil {
			return
		}
	}
}

// wait waits until a chunk may be written. It returns false when the connection is
// closed.
func (p *Proxy) wait(ctx context.Context, d Direction, due time.Time) bool {
	if rest := time.Until(due); rest > 0 {
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return false
		}
	}
	for {
		p.mu.Lock()
		held := p.held[d]
		p.mu.Unlock()
		if held == nil {
			return ctx.Err() == nil
		}
		select {
		case <-held:
		case <-ctx.Done():
			return false
		}
	}
}
