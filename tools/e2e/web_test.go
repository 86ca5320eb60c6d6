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

// webHost is the only address to which the mesh of a test may send requests. It has
// the web servers with images and the receivers of webhooks. The mesh rejects any
// other loopback address, as it does by default.
const webHost = "127.0.0.2"

var webSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("a secret of thirty-two bytes ..."))

// webClients returns the environment of a mesh that may send requests to webHost.
func webClients() []string {
	return []string{"SIGHTMESH_ALLOW_NETWORKS=" + webHost + "/32", "SIGHTMESH_CALLBACK_SECRETS=" + webSecret}
}

// serveOn runs a web server on an address of the loopback network. seen returns the
// number of requests for a path.
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

// send sends a request to one of the ingresses, to each in turn.
func (m *mesh) send(t testing.TB, method, path, contentType, body string, header ...string) response {
	t.Helper()
	req, err := http.NewRequest(method, m.base()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	a, err := doRequest(req, header...)
	if err != nil {
		t.Fatal(fmt.Errorf("%s %s: %w", method, path, err))
	}
	return a
}
