package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Admin serves /livez, /readyz, /metrics and /debug/pprof/ on a port of its
// own. It is live as long as it answers, whatever the mesh does, and ready
// between SetReady and SetNotReady.
type Admin struct {
	notReady atomic.Pointer[string] // why; nil while it is ready
	server   *http.Server
	addr     net.Addr
	done     chan error
}

// StartAdmin listens on addr. The caller ends it with Close.
func StartAdmin(addr string, metrics prometheus.Gatherer) (*Admin, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for admin on %s: %w", addr, err)
	}
	a := &Admin{addr: l.Addr(), done: make(chan error, 1)}
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
	// OpenMetrics carries the exemplars that lead from a bucket to a trace.
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	a.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { a.done <- a.server.Serve(l) }()
	return a, nil
}

// Addr is where the server listens.
func (a *Admin) Addr() string { return a.addr.String() }

// SetReady makes /readyz answer 200.
func (a *Admin) SetReady() { a.notReady.Store(nil) }

// SetNotReady makes /readyz answer 503 with a reason.
func (a *Admin) SetNotReady(reason string) { a.notReady.Store(&reason) }

// Close ends the server and waits for it; requests under way end with ctx.
func (a *Admin) Close(ctx context.Context) error {
	err := a.server.Shutdown(ctx)
	if serveErr := <-a.done; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return fmt.Errorf("close admin server: %w", err)
	}
	return nil
}
