package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Admin serves /livez, /readyz and /metrics on its own port. /livez always responds
// with 200. /readyz responds with 200 after SetReady, and with 503 before it and after
// SetNotReady.
type Admin struct {
	*listener
	notReady atomic.Pointer[string] // why; nil while it is ready
}

// StartAdmin starts an admin server on addr. The caller stops it with Close.
func StartAdmin(addr string, metrics prometheus.Gatherer) (*Admin, error) {
	a := &Admin{}
	a.SetNotReady("starting")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "live") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := a.notReady.Load(); reason != nil {
			http.Error(w, "not ready: "+*reason, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	// OpenMetrics includes the exemplars, which link a bucket to a trace.
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	var err error
	if a.listener, err = listen("admin", addr, mux); err != nil {
		return nil, err
	}
	return a, nil
}

// Profiles serves /debug/pprof/ on its own port.
type Profiles struct{ *listener }

// StartProfiles starts a server of profiles on addr, which must be a loopback address,
// because there is no authentication and a heap profile reveals data of the process. It
// does not serve the command line. The caller stops it with Close.
func StartProfiles(addr string) (*Profiles, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("profiles: %w", err)
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("profiles: %s, want a loopback address such as 127.0.0.1:6060", addr)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	l, err := listen("profiles", addr, mux)
	if err != nil {
		return nil, err
	}
	return &Profiles{l}, nil
}

// listener is an HTTP server on its own address.
type listener struct {
	name   string
	server *http.Server
	addr   net.Addr
	done   chan error
}

func listen(name, addr string, h http.Handler) (*listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w", name, addr, err)
	}
	s := &listener{
		name: name, server: &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second},
		addr: l.Addr(), done: make(chan error, 1),
	}
	go func() { s.done <- s.server.Serve(l) }()
	return s, nil
}

// Addr returns the address on which the server listens.
func (l *listener) Addr() string { return l.addr.String() }

// Close stops the server and waits for requests in progress until ctx ends.
func (l *listener) Close(ctx context.Context) error {
	err := l.server.Shutdown(ctx)
	if serveErr := <-l.done; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return fmt.Errorf("close %s server: %w", l.name, err)
	}
	return nil
}

// SetReady makes /readyz respond with 200.
func (a *Admin) SetReady() { a.notReady.Store(nil) }

// SetNotReady makes /readyz respond with 503 and a reason.
func (a *Admin) SetNotReady(reason string) { a.notReady.Store(&reason) }
