package ingress

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

// startImageHost starts a host that has an image at every path. It calls before first, and responds 404
// when before returns false.
func startImageHost(t *testing.T, before func(*http.Request) bool) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before(r) {
			w.Write(smallImage())
		} else {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// postURL posts the URL of an image with respond-async.
func (d *instance) postURL(ctx context.Context, url string, header ...string) (int, v1.Result, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+"/v1/images",
		strings.NewReader(fmt.Sprintf(`{"url":%q}`, url)))
	if err != nil {
		return 0, v1.Result{}, err
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "Prefer": {"respond-async"}}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, v1.Result{}, err
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		return 0, v1.Result{}, err
	}
	var r v1.Result
	if res.StatusCode < 300 {
		err = json.Unmarshal(body.Bytes(), &r)
	}
	return res.StatusCode, r, err
}

// TestURL_RepeatedKeyIsNotFetchedAgain uses a URL that has no image at the second request.
func TestURL_RepeatedKeyIsNotFetchedAgain(t *testing.T) {
	d := startServed(t, 2, 10, "--allow-networks", "127.0.0.0/8")
	var fetches atomic.Int64
	url := startImageHost(t, func(*http.Request) bool { return fetches.Add(1) == 1 })
	sub, err := d.nc.Subscribe(subject.AllLookup(), func(m *nats.Msg) {
		id, _ := subject.ParseLookup(m.Subject)
		m.Respond([]byte(`{"id":"` + id + `","pipeline":"text","status":"done","regions":[]}`))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	if err := d.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	code, first, err := d.postURL(t.Context(), url, "Idempotency-Key", "k1")
	if err != nil {
		t.Fatal(err)
	}
	if code != http.StatusAccepted {
		t.Fatalf("got %d, want 202", code)
	}
	if first.Status != v1.Queued {
		t.Errorf("the job is %s, want %s", first.Status, v1.Queued)
	}
	code, again, err := d.postURL(t.Context(), url, "Idempotency-Key", "k1")
	if err != nil {
		t.Fatal(err)
	}
	if code != http.StatusAccepted {
		t.Errorf("the second request: got %d, want 202", code)
	}
	if again.ID != first.ID {
		t.Errorf("the second request: the job is %s, want %s", again.ID, first.ID)
	}
	if again.Status != v1.Done {
		t.Errorf("the second request: the job is %s, want %s", again.Status, v1.Done)
	}
}

// TestURL_LimitIsTheSameInEveryForm of a request: the longest URL is accepted, and one more byte is a problem that
// names the field and the limit.
func TestURL_LimitIsTheSameInEveryForm(t *testing.T) {
	d := startServed(t, 2, 10, "--allow-networks", "127.0.0.0/8", "--old-routes")
	host := startImageHost(t, func(*http.Request) bool { return true })
	longest := host + "/" + strings.Repeat("x", intake.MaxURL-len(host)-1)
	fullReport := `{"requestId":"r","systemId":"s","inspectionStartTime":"a","inspectionEndTime":"b","trainId":"t",` +
		`"lineCode":"l","yardName":"y","direction":"d","imageUrls":[{"location":"1","imageUrl":%q}]}`
	for name, tt := range map[string]struct {
		path, body string // of the request, with a place for the URL
		status     int
		field      string
	}{
		"one image": {"/v1/images", `{"url":%q}`, http.StatusAccepted, "url"},
		"a report": {"/v1/reports", `{"images":[{"url":"https://a.example/"},{"url":%q}]}`,
			http.StatusAccepted, "images.1.url"},
		"a report of an old design": {"/internal/v1/subway-images/full-report", fullReport,
			http.StatusOK, "imageUrls.0.imageUrl"},
	} {
		t.Run(name, func(t *testing.T) {
			post := func(url string) (int, []byte) {
				body := strings.NewReader(fmt.Sprintf(tt.body, url))
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+tt.path, body)
				if err != nil {
					t.Fatal(err)
				}
				req.Header = http.Header{"Content-Type": {"application/json"}, "Prefer": {"respond-async"}}
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				text, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				return res.StatusCode, text
			}
			if status, body := post(longest); status != tt.status {
				t.Errorf("the longest URL: %d %s, want %d", status, body, tt.status)
			}
			status, body := post(longest + "x")
			if status != http.StatusBadRequest {
				t.Errorf("one byte more: %d, want 400", status)
			}
			want := tt.field + " has 8193 bytes, and the URL of an image may have 8192"
			if !strings.Contains(string(body), want) {
				t.Errorf("one byte more: got %s, want %q", body, want)
			}
		})
	}
}
