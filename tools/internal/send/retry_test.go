package send

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestRetry_NewKeyAfterFailedJob checks that the attempt after a job that failed with a
// transient problem has a new key. With the old key the mesh returns the failed job.
func TestRetry_NewKeyAfterFailedJob(t *testing.T) {
	t.Parallel()
	first := ""
	mesh := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if key := r.Header.Get("Idempotency-Key"); first == "" || key == first {
			first = key
			p := v1.NewProblem(v1.Internal, "as ordered")
			p.Job = "job1"
			w.WriteHeader(p.Status)
			json.NewEncoder(w).Encode(p)
			return
		}
		done(w, "job2")
	}))
	t.Cleanup(mesh.Close)
	out, _, code := command(t, t.Context(),
		Config{URL: mesh.URL, Paths: []string{folder(t, "a.jpg")}, Concurrency: "1", Attempts: 3})
	switch {
	case code != 0:
		t.Errorf("code %d, want 0: %+v", code, out["a.jpg"])
	case out["a.jpg"].Attempts != 2:
		t.Errorf("%d attempts, want 2", out["a.jpg"].Attempts)
	}
}
