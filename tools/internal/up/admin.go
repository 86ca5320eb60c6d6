package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// admin serves /livez and /readyz of the whole mesh. The mesh is ready when its disk and broker are ready, and
// /readyz of every service responds with 200.
type admin struct {
	addr   string
	server *http.Server
	done   chan struct{}

	mu             sync.Mutex
	notReadyReason func() string // nil before the broker runs
	children       []*child
}

// startAdmin listens on addr. The caller must call close.
func startAdmin(addr string) (*admin, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve probes: %w (--admin sets another address)", err)
	}
	a := &admin{addr: l.Addr().String(), done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "live") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if reasons := a.reasons(r.Context()); len(reasons) > 0 {
			http.Error(w, "not ready: "+strings.Join(reasons, "\nnot ready: "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	a.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		defer close(a.done)
		a.server.Serve(l) //nolint:errcheck // it returns an error after close
	}()
	return a, nil
}

// setSources sets what readiness depends on: a function that returns why the disk or the broker is not ready, or "",
// and the services.
func (a *admin) setSources(notReadyReason func() string, children []*child) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notReadyReason, a.children = notReadyReason, children
}

// reasons returns why the mesh is not ready. It is empty when the mesh is ready.
func (a *admin) reasons(ctx context.Context) []string {
	a.mu.Lock()
	notReadyReason, children := a.notReadyReason, a.children
	a.mu.Unlock()
	if notReadyReason == nil {
		return []string{"starting"}
	}
	var reasons []string
	if reason := notReadyReason(); reason != "" {
		reasons = append(reasons, reason)
	}
	errs := make([]error, len(children))
	var wg sync.WaitGroup
	for i, c := range children {
		wg.Go(func() { errs[i] = c.probe(ctx) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			reasons = append(reasons, err.Error())
		}
	}
	return reasons
}

// close closes the server and waits for its goroutine.
func (a *admin) close() {
	a.server.Close() //nolint:errcheck // only listeners are left to close
	<-a.done
}

var probeClient = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// probe requests /readyz of the child once. The error says why the child is not ready.
func (c *child) probe(ctx context.Context) error {
	c.mu.Lock()
	addr := c.addr["admin"]
	c.mu.Unlock()
	if addr == "" {
		return fmt.Errorf("%s is starting", c.name)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("check whether %s is ready: %w", c.name, err)
	}
	res, err := probeClient.Do(req)
	if err != nil {
		return fmt.Errorf("check whether %s is ready: %w", c.name, err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	const maxBody = 1 << 10
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	return errors.Join(fmt.Errorf("%s: %s", c.name, strings.TrimSpace(string(body))), err)
}
