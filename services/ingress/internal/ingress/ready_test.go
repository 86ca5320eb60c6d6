package ingress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// ready returns the response of /readyz.
func (d *instance) ready(t *testing.T) (status int, body string) {
	t.Helper()
	res, err := http.Get("http://" + d.log.admin() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// awaitReady waits until /readyz has this status, and returns its body.
func (d *instance) awaitReady(t *testing.T, want int) (body string) {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		var status int
		if status, body = d.ready(t); status != want {
			return fmt.Errorf("/readyz is %d %q, want %d", status, body, want)
		}
		return nil
	})
	return body
}

func (d *instance) pipelines(t *testing.T) v1.Pipelines {
	t.Helper()
	res, err := http.Get(d.url + "/v1/pipelines")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var p v1.Pipelines
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestReady_NotReadyWithoutNATS(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	p := bustest.StartProxy(t, s)
	d := startAt(t, s, p.URL)
	d.startWorkers(t, 2, 1)
	d.awaitServed(t)
	d.awaitReady(t, http.StatusOK)
	// A connection that hangs, and then one that is broken.
	p.PauseReplies(true)
	if body := d.awaitReady(t, http.StatusServiceUnavailable); !strings.Contains(body, "IMAGES") {
		t.Errorf("the reason is %q, want that IMAGES is not read", body)
	}
	p.PauseRequests(true)
	p.Break()
	eventually.Succeeds(t, testTimeout, func() error {
		if _, body := d.ready(t); !strings.Contains(body, "NATS cannot be reached") {
			return fmt.Errorf("the reason is %q, want that NATS cannot be reached", body)
		}
		return nil
	})
	eventually.Succeeds(t, testTimeout, func() error {
		if d.pipelines(t).Pipelines[0].Ready {
			return errors.New("a pipeline is ready because of an old status")
		}
		return nil
	})
	p.PauseReplies(false)
	p.PauseRequests(false)
	d.awaitReady(t, http.StatusOK)
	d.awaitServed(t)
	// A busy machine can be too slow for a further status request.
	notReady, ready := strings.Count(d.log.text(), `"msg":"not ready"`), strings.Count(d.log.text(), `"msg":"ready"`)
	if notReady == 0 {
		t.Error("no line says that ingress is not ready")
	}
	if ready != notReady+1 {
		t.Errorf("ingress was ready %d times and not ready %d times, want one more of the former", ready, notReady)
	}
}

func TestReady_NotReadyWithoutTheImagesStream(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.awaitReady(t, http.StatusOK)
	s, err := d.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	if err := d.js.DeleteStream(t.Context(), streams.Images); err != nil {
		t.Fatal(err)
	}
	if body := d.awaitReady(t, http.StatusServiceUnavailable); !strings.Contains(body, "IMAGES") {
		t.Errorf("the reason is %q, want the name of IMAGES", body)
	}
	if _, err := d.js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	d.awaitReady(t, http.StatusOK)
}

// TestReady_NotReadyWhilePublishingFails has a stream that exists but stores no images.
func TestReady_NotReadyWhilePublishingFails(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 1)
	d.updateImagesStream(t, func(c *jetstream.StreamConfig) { c.Subjects = []string{"elsewhere.>"} })
	eventually.Succeeds(t, testTimeout, func() error {
		if a := d.mustPost(t, ""); a.status != http.StatusServiceUnavailable {
			t.Errorf("got %+v, want 503", a)
		}
		if _, body := d.ready(t); !strings.Contains(body, "images cannot be stored") {
			return fmt.Errorf("/readyz is %q, want that images cannot be stored", body)
		}
		return nil
	})
	d.updateImagesStream(t, func(c *jetstream.StreamConfig) { c.Subjects = []string{subject.AllImages()} })
	d.mustPost(t, "", "Prefer", "respond-async")
	d.awaitReady(t, http.StatusOK)
}

func TestReady_ReadyWithoutWorkersAndResults(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.awaitReady(t, http.StatusOK)
	// Ingress rejects images when results has been absent for 10 s. It has then read the status of the workers too.
	eventually.Succeeds(t, testTimeout, func() error {
		if status, body := d.ready(t); status != http.StatusOK {
			t.Fatalf("/readyz is %d %q", status, body)
		}
		if p := d.mustPost(t, "").problem; !strings.Contains(p.Detail, "no results service replies") {
			return fmt.Errorf("the problem of a request is %+v, want that results is absent", p)
		}
		return nil
	})
	if status, body := d.ready(t); status != http.StatusOK {
		t.Errorf("without workers and results, /readyz is %d %q, want 200", status, body)
	}
}

func TestReady_ReadyWithAFullImagesStream(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 1)
	d.updateImagesStream(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	d.mustPost(t, "", "Prefer", "respond-async")
	for range 4 { // more than the failures after which ingress reports that images cannot be stored
		if a := d.mustPost(t, "", "Prefer", "respond-async"); a.problem.Code != v1.Overloaded {
			t.Errorf("got %d %+v, want the problem %s", a.status, a.problem, v1.Overloaded)
		}
	}
	if status, body := d.ready(t); status != http.StatusOK {
		t.Errorf("with a full stream, /readyz is %d %q, want 200", status, body)
	}
}
