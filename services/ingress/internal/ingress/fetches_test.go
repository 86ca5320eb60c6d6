package ingress

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func (d *door) fetch(t *testing.T, pipeline, report string, n, total int, url string) {
	t.Helper()
	body, _ := json.Marshal(v1.Fetch{URL: url, Deadline: time.Now().Add(time.Hour)})
	item := v1.ReportItem{Report: report, N: n, Total: total}
	m := &nats.Msg{Subject: subject.Fetches(pipeline, item.Job()), Header: nats.Header{v1.HeaderReport: {item.String()}}, Data: body}
	if _, err := d.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

func (d *door) bulkStored(t *testing.T, wait time.Duration) bool {
	t.Helper()
	c, err := d.js.Consumer(context.Background(), streams.Images, streams.WorkConsumer(subject.Detect, "text", subject.Bulk))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Next(jetstream.FetchMaxWait(wait))
	return err == nil
}

func pictures(t *testing.T, before func(r *http.Request)) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before(r)
		w.Write(smallPicture())
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestPipelineWithoutWorkersHoldsUpNoFetches(t *testing.T) {
	d := open(t, "--allow-networks", "127.0.0.0/8", "--fetches", "4")
	d.workers(t, 2, 10) // faces has none
	url := pictures(t, func(*http.Request) {})
	for i := range 4 {
		d.fetch(t, "faces", "R1", i, 4, url)
	}
	time.Sleep(500 * time.Millisecond) // they are taken
	d.fetch(t, "text", "R2", 0, 1, url)
	if !d.bulkStored(t, 25*time.Second) {
		t.Error("the report of a served pipeline is not fetched while another pipeline has no worker")
	}
}

// B1
func TestSlowHostHoldsUpNoOther(t *testing.T) {
	d := open(t, "--allow-networks", "127.0.0.0/8", "--fetches", "4", "--fetches-per-host", "1")
	d.workers(t, 2, 10)
	hold := make(chan struct{})
	slow := pictures(t, func(r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(hold) })
	quick := pictures(t, func(*http.Request) {})
	for i := range 4 {
		d.fetch(t, "text", "R1", i, 4, slow)
	}
	time.Sleep(500 * time.Millisecond) // they are taken
	d.fetch(t, "text", "R2", 0, 1, quick)
	if !d.bulkStored(t, 9*time.Second) {
		t.Error("one slow host with one slot holds all four fetches")
	}
}
