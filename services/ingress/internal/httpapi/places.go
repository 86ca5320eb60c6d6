package httpapi

import (
	"sync"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

// Bound limits requests that stay open, of all clients and of each.
type Bound struct {
	Max    int
	Client int
}

// places counts the open requests of one kind.
type places struct {
	kind  string // in the plural, for problems
	bound Bound

	mu      sync.Mutex
	open    int
	clients map[string]int
}

func newPlaces(kind string, b Bound) *places {
	return &places{kind: kind, bound: b, clients: map[string]int{}}
}

// enter takes a place of a client. The caller gives it back with leave; more
// than once does no harm. Without a place the error is an overloaded problem
// that says when to try again.
func (p *places) enter(client string) (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.open >= p.bound.Max:
		full := v1.NewProblem(v1.Overloaded, "%d %s are open", p.bound.Max, p.kind)
		return nil, retry.After(full.WithLimit(int64(p.bound.Max)), intake.RetryDelay)
	case p.clients[client] >= p.bound.Client:
		full := v1.NewProblem(v1.Overloaded, "%d %s of this client are open", p.bound.Client, p.kind)
		return nil, retry.After(full.WithLimit(int64(p.bound.Client)), intake.RetryDelay)
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
