package ingress

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// publishFetch publishes the message to fetch image n of a report.
func (d *instance) publishFetch(t *testing.T, pipeline, report string, n, total int, url string) {
	t.Helper()
	body, err := json.Marshal(v1.Fetch{URL: url, Deadline: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	item := v1.ReportItem{Report: report, N: n, Total: total}
	m := &nats.Msg{
		Subject: subject.Fetches(pipeline, item.Job()), Header: nats.Header{v1.HeaderReport: {item.String()}}, Data: body,
	}
	if _, err := d.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// awaitFetches waits until at least n images are being fetched.
func (d *instance) awaitFetches(t *testing.T, n int) {
	t.Helper()
	c, err := d.js.Consumer(t.Context(), streams.Fetches, streams.FetchesConsumer)
	if err != nil {
		t.Fatal(err)
	}
	eventually.Succeeds(t, testTimeout, func() error {
		info, err := c.Info(t.Context())
		if err != nil {
			return err
		}
		if info.NumAckPending < n {
			return fmt.Errorf("%d images are being fetched, want at least %d", info.NumAckPending, n)
		}
		return nil
	})
}

// checkNotBlocked publishes as many images of a blocked pipeline or host as are fetched concurrently, and
// then another image, which must be stored.
func (d *instance) checkNotBlocked(t *testing.T, pipeline, held, free string) {
	t.Helper()
	for i := range 4 {
		d.publishFetch(t, pipeline, "R1", i, 4, held)
	}
	d.awaitFetches(t, 4)
	d.publishFetch(t, "text", "R2", 0, 1, free)
	c, err := d.js.Consumer(t.Context(), streams.Images, streams.WorkConsumer(subject.Detect, "text", subject.Bulk))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Next(jetstream.FetchMaxWait(testTimeout)); err != nil {
		t.Errorf("the other image is not stored as a job: %v", err)
	}
}

func TestFetches_PipelineWithoutWorkersBlocksNoOther(t *testing.T) {
	d := startServed(t, 2, 10, "--allow-networks", "127.0.0.0/8", "--fetches", "4") // faces has no worker
	url := startImageHost(t, func(*http.Request) bool { return true })
	d.checkNotBlocked(t, "faces", url, url)
}

func TestFetches_SlowHostBlocksNoOther(t *testing.T) {
	d := startServed(t, 2, 10, "--allow-networks", "127.0.0.0/8", "--fetches", "4", "--fetches-per-host", "1")
	hold := make(chan struct{})
	slow := startImageHost(t, func(r *http.Request) bool {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
		return true
	})
	t.Cleanup(func() { close(hold) })
	d.checkNotBlocked(t, "text", slow, startImageHost(t, func(*http.Request) bool { return true }))
}
