package httpapi

import (
	"sync"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

// RequestLimit is the maximum of open requests, of all clients and of each.
type RequestLimit struct {
	Total     int
	PerClient int
}

// requestLimiter counts open requests, such as event streams.
type requestLimiter struct {
	name  string // plural, for problems
	limit RequestLimit

	mu      sync.Mutex
	open    int
	clients map[string]int
}

func newRequestLimiter(name string, limit RequestLimit) *requestLimiter {
	return &requestLimiter{name: name, limit: limit, clients: map[string]int{}}
}

// acquire counts a request of a client until release is called, once or more often. When the limit is
// reached, it returns an overloaded problem with a retry delay.
func (l *requestLimiter) acquire(client string) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.open >= l.limit.Total:
		full := v1.NewProblem(v1.Overloaded, "%d %s are open", l.limit.Total, l.name)
		return nil, retry.After(full.WithLimit(int64(l.limit.Total)), intake.RetryDelay)
	case l.clients[client] >= l.limit.PerClient:
		full := v1.NewProblem(v1.Overloaded, "%d %s of this client are open", l.limit.PerClient, l.name)
		return nil, retry.After(full.WithLimit(int64(l.limit.PerClient)), intake.RetryDelay)
	}
	l.open++
	l.clients[client]++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.open--
		if l.clients[client]--; l.clients[client] == 0 {
			delete(l.clients, client)
		}
	}), nil
}
