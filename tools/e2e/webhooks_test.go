package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// testWebhooks runs a receiver that verifies each webhook with the library that a
// client would use.
func testWebhooks(t *testing.T, m *mesh) {
	verify, err := webhooks.NewWebhook(webSecret)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []byte, 10)
	failures := make(chan struct{}, 1)
	failures <- struct{}{} // the first call fails
	receiver, _ := serveOn(t, webHost, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = verify.Verify(body, r.Header)
		}
		if err != nil {
			t.Errorf("verify the webhook: %v", err)
		}
		select {
		case <-failures:
			w.WriteHeader(http.StatusInternalServerError)
		default:
			got <- body
		}
	})
	a := m.post(t, "?pipeline=faces&callback="+receiver+"/job", sampleFace(t), "Prefer", "respond-async",
		"X-Sight-Meta-Camera", "3")
	location := a.header.Get("Location")
	eventually.Succeeds(t, responseTimeout, func() error {
		c := m.get(t, location).result.Callback
		switch {
		case c == nil:
			return errors.New("the job has no callback")
		case c.State != v1.WebhookPending:
			return fmt.Errorf("the state is %s, want %s", c.State, v1.WebhookPending)
		case c.Error != "the receiver answered 500":
			return fmt.Errorf("the error is %q, want that of the receiver", c.Error)
		case c.Next.IsZero():
			return errors.New("the time of the next attempt is missing")
		}
		return nil
	})
	select {
	case body := <-got:
		var call struct {
			Type string
			Data v1.Result
		}
		switch err := json.Unmarshal(body, &call); {
		case err != nil:
			t.Errorf("webhook %s: %v", body, err)
		case call.Type != "job.done":
			t.Errorf("webhook %s: type %q, want job.done", body, call.Type)
		case call.Data.ID != a.result.ID:
			t.Errorf("webhook %s: ID %s, want %s", body, call.Data.ID, a.result.ID)
		case call.Data.Metadata["camera"] != "3":
			t.Errorf("webhook %s: metadata %v, want camera 3", body, call.Data.Metadata)
		case len(call.Data.Regions) != 1:
			t.Errorf("webhook %s: %d regions, want 1", body, len(call.Data.Regions))
		}
	case <-time.After(responseTimeout):
		t.Fatal("no second attempt came")
	}
	eventually.Succeeds(t, responseTimeout, func() error {
		c := m.get(t, location).result.Callback
		switch {
		case c == nil:
			return errors.New("the job has no callback")
		case c.State != v1.WebhookDelivered:
			return fmt.Errorf("the state is %s, want %s", c.State, v1.WebhookDelivered)
		case c.Attempts != 2:
			return fmt.Errorf("%d attempts, want 2", c.Attempts)
		}
		return nil
	})

	forbidden := strings.Replace(receiver, webHost, "127.0.0.1", 1)
	rejected := m.post(t, "?pipeline=faces&callback="+forbidden, sampleFace(t), "Prefer", "respond-async")
	eventually.Succeeds(t, responseTimeout, func() error {
		switch c := m.get(t, rejected.header.Get("Location")).result.Callback; {
		case c == nil:
			return fmt.Errorf("the job has no callback; the response was %v", rejected)
		case c.State != v1.WebhookFailed:
			return fmt.Errorf("the state is %s, want %s", c.State, v1.WebhookFailed)
		}
		return nil
	})
	checkProblem(t, m.post(t, "?pipeline=faces&callback=ftp://client.example/", sampleFace(t)), v1.InvalidParameter)
}
