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
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// processImages answers every picture until the test ends.
func (d *instance) processImages(t *testing.T) {
	t.Helper()
	c, err := d.js.Consumer(context.Background(), streams.Images, streams.WorkConsumer(subject.Detect, "text", subject.Interactive))
	if err != nil {
		t.Fatal(err)
	}
	cc, err := c.Consume(func(m jetstream.Msg) { d.storeResult(t, m, true) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cc.Stop()
		<-cc.Closed()
	})
}

// TestStop_FinishesAcceptedRequests stops the service under load: every request that
// reaches it is answered, the very last ones with where to go.
func TestStop_FinishesAcceptedRequests(t *testing.T) {
	d := start(t)
	d.startWorkers(t, 8, 1)
	d.processImages(t)
	var answered atomic.Int64
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for {
				m, err := d.nc.Request(subject.Analyze("text"), smallImage(), 10*time.Second)
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
				if err := json.Unmarshal(m.Data, &r); err != nil || r.Status != string(v1.Done) && r.Code != v1.Unavailable {
					t.Errorf("got %v %s", m.Header, m.Data)
				}
				if answered.Add(1) == 200 {
					d.stop()
				}
			}
		})
	}
	clients.Wait()
}

// TestDrain_ClosesConnections stops the service while a client keeps
// its connection: every request on it has a response, and the last response says
// that it is.
func TestDrain_ClosesConnections(t *testing.T) {
	d := start(t, "--drain", "3s")
	transport := &http.Transport{MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
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
