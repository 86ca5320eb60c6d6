package natsapi

import (
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

// newGoClient returns the public Go client.
func (b bench) newGoClient(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(b.nc)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// storedJob returns the message with the image of a job.
func (b bench) storedJob(t *testing.T, job subject.Job) *jetstream.RawStreamMsg {
	t.Helper()
	images, err := b.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	m, err := images.GetLastMsgForSubject(t.Context(), subject.Images(job))
	if err != nil {
		t.Fatalf("the image of %+v: %v", job, err)
	}
	return m
}

// TestGoClient_AnalyzeAndSubmitStoreTheSameHeaders checks that a job of Analyze has the metadata and the
// webhook of a job of Submit.
func TestGoClient_AnalyzeAndSubmitStoreTheSameHeaders(t *testing.T) {
	t.Parallel()
	b := newBench(t, testTimeout, 8)
	c := b.newGoClient(t)
	metadata := client.WithMetadata(map[string]string{"Camera-Id": "3 ü", "a.b_c": `"{}`, "note": ""})
	webhook := client.WithWebhook("https://client.example/done")
	r, err := c.Analyze(t.Context(), "text", newImage(t), metadata, webhook,
		client.WithPriority(subject.Bulk), client.WithRespondAsync())
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != v1.Queued {
		t.Errorf("the status is %s, want %s", r.Status, v1.Queued)
	}
	submitted, err := c.Submit(t.Context(), "text", subject.Bulk, newImage(t), metadata, webhook)
	if err != nil {
		t.Fatal(err)
	}
	ofAnalyze := b.storedJob(t, subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: r.ID})
	ofSubmit := b.storedJob(t, subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: submitted})
	for _, header := range []string{v1.HeaderMetadata, v1.HeaderCallback} {
		if got, want := ofSubmit.Header.Get(header), ofAnalyze.Header.Get(header); got != want {
			t.Errorf("%s of Submit is %q, that of Analyze is %q", header, got, want)
		}
	}
	if got, want := ofAnalyze.Header.Get(v1.HeaderMetadata), `{"a.b_c":"\"{}","camera-id":"3 ü","note":""}`; got != want {
		t.Errorf("the metadata are %s, want %s", got, want)
	}
	if got := ofAnalyze.Header.Get(v1.HeaderCallback); got != "https://client.example/done" {
		t.Errorf("the webhook is %q", got)
	}
}

// TestGoClient_InvalidOption checks that the problem of ingress reaches the caller.
func TestGoClient_InvalidOption(t *testing.T) {
	t.Parallel()
	c := newBench(t, testTimeout, 8).newGoClient(t)
	for field, option := range map[string]client.AnalyzeOption{
		"priority":           client.WithPriority("now"),
		"Idempotency-Key":    client.WithKey(strings.Repeat("k", intake.MaxKey+1)),
		"callback":           client.WithWebhook("file:///etc/passwd"),
		"min_score":          client.WithMinScore(2),
		"labels":             client.WithLabels(""),
		"top":                client.WithTop(0),
		"X-Sight-Meta-a-b-c": client.WithMetadata(map[string]string{"a-b-c": strings.Repeat("x", 4096)}),
	} {
		_, err := c.Analyze(t.Context(), "text", newImage(t), option)
		var p *v1.Problem
		if !errors.As(err, &p) {
			t.Errorf("%s: the error is %v, want a problem", field, err)
		} else if p.Field != field {
			t.Errorf("%s: the field is %q", field, p.Field)
		}
	}
}
