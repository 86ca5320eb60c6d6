package e2e

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// webHost is the one address on which the mesh of a test may speak to others:
// images are there, and receivers of callbacks. Any other loopback address is
// refused, as it is everywhere.
const webHost = "127.0.0.2"

var webSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("a secret of thirty-two bytes ..."))

// webClients are the settings of a mesh that may reach webHost.
func webClients() []string {
	return []string{"SIGHTMESH_ALLOW_NETWORKS=" + webHost + "/32", "SIGHTMESH_CALLBACK_SECRETS=" + webSecret}
}

// serveOn runs a web server on an address of the loopback network, and counts
// the requests for each path.
func serveOn(t testing.TB, host string, h http.HandlerFunc) (url string, seen func(path string) int) {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	counts := map[string]int{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		counts[r.URL.Path]++
		mu.Unlock()
		h(w, r)
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, func(path string) int {
		mu.Lock()
		defer mu.Unlock()
		return counts[path]
	}
}

// send makes any request to one of the ingresses.
func (m *mesh) send(t testing.TB, method, path, contentType, body string, header ...string) response {
	t.Helper()
	req, err := http.NewRequest(method, m.base()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	a, err := do(req, header...)
	if err != nil {
		t.Fatal(fmt.Errorf("%s %s: %w", method, path, err))
	}
	return a
}
