package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// processImages stores a result for every image until the test ends.
func (d *instance) processImages(t *testing.T) {
	t.Helper()
	c, err := d.js.Consumer(context.Background(), streams.Images,
		streams.WorkConsumer(subject.Detect, "text", subject.Interactive))
	if err != nil {
		t.Fatal(err)
	}
	cc, err := c.Consume(func(m jetstream.Msg) {
		if _, err := d.publishResult(m, true); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cc.Stop()
		<-cc.Closed()
	})
}

// TestStop_FinishesAcceptedRequests stops the service under load: every request gets a result, or an
// unavailable problem.
func TestStop_FinishesAcceptedRequests(t *testing.T) {
	d := startServed(t, 8, 1)
	d.processImages(t)
	const underLoad = 200 // replies before the stop
	var replies atomic.Int64
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for {
				m, err := d.nc.Request(subject.Analyze("text"), smallImage(), testTimeout)
				if errors.Is(err, nats.ErrNoResponders) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				var r struct {
					Status any
					Code   v1.Code
				}
				if err := json.Unmarshal(m.Data, &r); err != nil {
					t.Error(err)
				}
				if r.Status != string(v1.Done) && r.Code != v1.Unavailable {
					t.Errorf("got %s, want a result or %s", m.Data, v1.Unavailable)
				}
				if replies.Add(1) == underLoad {
					d.stop()
				}
			}
		})
	}
	clients.Wait()
	if n := replies.Load(); n < underLoad {
		t.Errorf("%d replies, want at least the %d before the stop", n, underLoad)
	}
}

// TestDrain_ClosesConnections stops the service while a client keeps its connection: every request gets a
// response, and the last response has Connection: close.
func TestDrain_ClosesConnections(t *testing.T) {
	d := start(t, "--drain", "3s")
	transport := &http.Transport{MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: testTimeout}
	get := func() (closes bool) {
		t.Helper()
		res, err := client.Get(d.url + "/v1/pipelines")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		return res.Close
	}
	if get() {
		t.Fatal("the connection is closed before the service stops")
	}
	d.stop()
	for closed := false; !closed; {
		closed = get()
	}
	if status, body := d.ready(t); status != http.StatusServiceUnavailable {
		t.Errorf("while it drains: /readyz %d %q, want 503", status, body)
	}
}
