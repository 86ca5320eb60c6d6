package ingress

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// awaitStatus posts images until a response has this status, and returns its problem.
func (d *instance) awaitStatus(t *testing.T, status int) (p v1.Problem) {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		a := d.mustPost(t, "", "Prefer", "respond-async")
		if p = a.problem; a.status != status {
			return fmt.Errorf("got %d %+v, want %d", a.status, p, status)
		}
		return nil
	})
	return p
}

func TestResults_AbsentServiceRejectsImagesAndReports(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 1)
	if a := d.mustPost(t, "", "Prefer", "respond-async"); a.status != http.StatusAccepted {
		t.Fatalf("got %+v", a)
	}
	d.stopResults()
	p := d.awaitStatus(t, http.StatusServiceUnavailable)
	if p.Code != v1.Unavailable {
		t.Errorf("the code is %s, want %s", p.Code, v1.Unavailable)
	}
	if want := "no results service replies"; !strings.Contains(p.Detail, want) {
		t.Errorf("the detail is %q, want %q", p.Detail, want)
	}
	res, err := http.Post(d.url+"/v1/reports", "application/json",
		strings.NewReader(`{"images":[{"url":"https://client.example/1"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a report got %d, want 503", res.StatusCode)
	}
	checkHasHeader(t, res.Header, "Retry-After")
	d.startResults(t)
	d.awaitStatus(t, http.StatusAccepted)
}

func TestResults_FullStreamRejectsImages(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 1)
	s, err := d.js.Stream(t.Context(), streams.Results)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxBytes = 100_000
	if _, err := d.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	_, err = d.js.Publish(t.Context(), subject.Results("text", "j1"), make([]byte, 95_000), jetstream.WithMsgID("j1"))
	if err != nil {
		t.Fatal(err)
	}
	p := d.awaitStatus(t, http.StatusTooManyRequests)
	if p.Code != v1.Overloaded {
		t.Errorf("got the code %s, want %s", p.Code, v1.Overloaded)
	}
	if !strings.Contains(p.Detail, "stream RESULTS") {
		t.Errorf("the detail is %q, want the name of the stream RESULTS", p.Detail)
	}
	if p.Limit != 100_000 {
		t.Errorf("the limit is %d, want 100000, that of the stream", p.Limit)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.awaitStatus(t, http.StatusAccepted)
}
