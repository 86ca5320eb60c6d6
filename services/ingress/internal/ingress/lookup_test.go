package ingress

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestLookup_WithoutNATS checks that look-ups get 503, like images that cannot be stored.
func TestLookup_WithoutNATS(t *testing.T) {
	d := startServed(t, 2, 10)
	d.srv.Stop()
	for _, path := range []string{
		"/v1/images/j1", "/v1/images/j1/events", "/v1/reports/r1", "/v1/reports/r1/events", "DELETE /v1/images/j1",
	} {
		method := http.MethodGet
		if p, ok := strings.CutPrefix(path, "DELETE "); ok {
			method, path = http.MethodDelete, p
		}
		req, err := http.NewRequestWithContext(t.Context(), method, d.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s %s: got %d %s, want 503", method, path, res.StatusCode, body)
		}
		checkHasHeader(t, res.Header, "Retry-After")
	}
}
