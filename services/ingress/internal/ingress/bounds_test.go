package ingress

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// startLookups replies to look-ups as the results service: every job is running.
func (d *instance) startLookups(t *testing.T) (requests chan struct{}) {
	t.Helper()
	requests = make(chan struct{}, 100)
	sub, err := d.nc.Subscribe(subject.AllLookup(), func(m *nats.Msg) {
		m.Respond([]byte(`{"id":"j1","pipeline":"text","status":"running"}`))
		requests <- struct{}{}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	if err := d.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return requests
}

func TestLimits_EventStreamsAndPolls(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path, flag, other string
		detail            string
	}{
		"event streams": {"/v1/images/j1/events", "--max-event-streams", "--client-event-streams",
			"1 event streams are open"},
		"event streams of a client": {"/v1/images/j1/events", "--client-event-streams", "--max-event-streams",
			"1 event streams of this client"},
		"polls": {"/v1/images/j1?wait=60", "--max-polls", "--client-polls", "1 long polls are open"},
		"polls of a client": {"/v1/images/j1?wait=60", "--client-polls", "--max-polls",
			"1 long polls of this client"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, c.flag, "1", c.other, "10")
			requests := d.startLookups(t)
			first := d.dialRaw(t, "127.0.0.1", "GET "+c.path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			<-requests
			get := func() (int, v1.Problem, string) {
				res, err := http.Get(d.url + strings.Replace(c.path, "wait=60", "wait=1", 1))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				var p v1.Problem
				if res.StatusCode >= 400 {
					if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
						t.Fatal(err)
					}
				}
				return res.StatusCode, p, res.Header.Get("Retry-After")
			}
			status, p, after := get()
			if status != http.StatusTooManyRequests {
				t.Errorf("a second request got %d, want 429", status)
			}
			if p.Code != v1.Overloaded {
				t.Errorf("the code is %q, want %s", p.Code, v1.Overloaded)
			}
			if !strings.Contains(p.Detail, c.detail) {
				t.Errorf("the detail is %q, want %q", p.Detail, c.detail)
			}
			if p.Limit != 1 {
				t.Errorf("the limit is %d, want 1", p.Limit)
			}
			if after == "" {
				t.Error("there is no Retry-After")
			}
			first.Close()
			eventually.Succeeds(t, testTimeout, func() error {
				if status, _, _ := get(); status == http.StatusTooManyRequests {
					return errors.New("the place is not free")
				}
				return nil
			})
		})
	}
}

func TestLimits_LookupWithoutWaitIsNotLimited(t *testing.T) {
	t.Parallel()
	d := start(t, "--max-polls", "0")
	d.startLookups(t)
	res, err := http.Get(d.url + "/v1/images/j1")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("got %d, want 200", res.StatusCode)
	}
}

func TestLimits_SessionsOfAClient(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10, "--client-sessions", "1")
	c := d.session(t, "")
	_, res, err := d.dial(t, "", "")
	if err == nil {
		t.Fatal("a second session was opened")
	}
	defer res.Body.Close()
	var p v1.Problem
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("got %d, want 429", res.StatusCode)
	}
	if p.Code != v1.Overloaded {
		t.Errorf("the code is %q, want %s", p.Code, v1.Overloaded)
	}
	if p.Limit != 1 {
		t.Errorf("the limit is %d, want 1", p.Limit)
	}
	c.Close(websocket.StatusNormalClosure, "")
}
