package httpapi

import (
	"sync"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

// RequestLimit limits requests that stay open, of all clients and of each.
type RequestLimit struct {
	Total     int
	PerClient int
}

// requestLimiter counts the open requests of one kind.
type requestLimiter struct {
	name  string // in the plural, for problems
	limit RequestLimit

	mu      sync.Mutex
	open    int
	clients map[string]int
}

func newRequestLimiter(kind string, b RequestLimit) *requestLimiter {
	return &requestLimiter{name: kind, limit: b, clients: map[string]int{}}
}

// acquire takes a place of a client. The caller gives it back with leave; more
// than once does no harm. Without a place the error is an overloaded problem
// that says when to try again.
func (p *requestLimiter) acquire(client string) (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.open >= p.limit.Total:
		full := v1.NewProblem(v1.Overloaded, "%d %s are open", p.limit.Total, p.name)
		return nil, retry.After(full.WithLimit(int64(p.limit.Total)), intake.RetryDelay)
	case p.clients[client] >= p.limit.PerClient:
		full := v1.NewProblem(v1.Overloaded, "%d %s of this client are open", p.limit.PerClient, p.name)
		return nil, retry.After(full.WithLimit(int64(p.limit.PerClient)), intake.RetryDelay)
	}
	p.open++
	p.clients[client]++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.open--
		if p.clients[client]--; p.clients[client] == 0 {
			delete(p.clients, client)
		}
	}), nil
}
