//go:build interop

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestInteropGo_Options uses the options of the Go client.
func TestInteropGo_Options(t *testing.T) {
	c, err := client.New(start(t, nil).connect(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), responseTimeout)
	defer cancel()
	t.Run("analyze", func(t *testing.T) { testAnalyzeOptions(ctx, t, c) })
	t.Run("submit", func(t *testing.T) { testSubmitOptions(ctx, t, c) })
}

// testAnalyzeOptions calls Analyze three times with the same key.
func testAnalyzeOptions(ctx context.Context, t *testing.T, c *client.Client) {
	page := samplePage(t)
	opts := []client.AnalyzeOption{
		client.WithKey("scan 17"), client.WithPriority(subject.Bulk),
		client.WithMetadata(map[string]string{"Camera": "3"}), client.WithTop(2),
	}
	first, err := c.Analyze(ctx, "text", page, append(opts, client.WithRespondAsync())...)
	if err != nil {
		t.Fatal(err)
	}
	if first.Status != v1.Queued {
		t.Errorf("the status of the first call is %s, want %s", first.Status, v1.Queued)
	}
	second, err := c.Analyze(ctx, "text", page, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if second.ID != first.ID {
		t.Errorf("the second call has the job %s, want %s", second.ID, first.ID)
	}
	if len(second.Regions) != 2 {
		t.Errorf("the second call returns %d regions, want the 2 with the highest scores", len(second.Regions))
	}
	if got := second.Metadata["camera"]; got != "3" {
		t.Errorf("the metadata are %v, want the camera 3", second.Metadata)
	}
	third, err := c.Analyze(ctx, "text", page, append(opts, client.WithRespondAsync())...)
	if err != nil {
		t.Fatal(err)
	}
	if third.ID != first.ID {
		t.Errorf("the third call has the job %s, want %s", third.ID, first.ID)
	}
	if len(third.Regions) != 2 {
		t.Errorf("the third call returns %d regions, want those of the second", len(third.Regions))
	}
}

// testSubmitOptions submits a job with metadata, and one whose deadline is over.
func testSubmitOptions(ctx context.Context, t *testing.T, c *client.Client) {
	page := samplePage(t)
	job, err := c.Submit(ctx, "text", subject.Bulk, page, client.WithMetadata(map[string]string{"Camera": "3"}))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Await(ctx, job, client.WithTop(1))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Regions) != 1 {
		t.Errorf("the result has %d regions, want 1", len(r.Regions))
	}
	if got := r.Metadata["camera"]; got != "3" {
		t.Errorf("the metadata are %v, want the camera 3", r.Metadata)
	}
	late, err := c.Submit(ctx, "text", subject.Bulk, page, client.WithDeadline(time.Now().Add(-time.Second)))
	if err != nil {
		t.Fatal(err)
	}
	r, err = c.Await(ctx, late)
	if err != nil {
		t.Fatal(err)
	}
	if r.Problem == nil || r.Problem.Code != v1.DeadlineExceeded {
		t.Errorf("the job after its deadline is %s with the problem %v, want %s", r.Status, r.Problem, v1.DeadlineExceeded)
	}
}
