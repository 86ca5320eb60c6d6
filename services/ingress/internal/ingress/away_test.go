package ingress

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAskingWhileNATSIsAway(t *testing.T) {
	d := open(t)
	d.workers(t, 2, 10)
	d.srv.Stop()
	time.Sleep(300 * time.Millisecond)
	for _, path := range []string{"/v1/images/j1", "/v1/images/j1/events", "/v1/reports/r1", "/v1/reports/r1/events", "DELETE /v1/images/j1"} {
		method := "GET"
		if p, ok := strings.CutPrefix(path, "DELETE "); ok {
			method, path = "DELETE", p
		}
		req, _ := http.NewRequest(method, d.url+path, nil)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 503 {
			t.Errorf("%s %s: %d %s", method, path, res.StatusCode, b)
		}
	}
}
