package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/sample"
)

const coldPipelines = `pipelines:
  - name: cold
    deadline: 60s
    scale_from_zero: true
    text: true
    detect: &lines {kind: text-lines}
    classify: &tesseract {kind: tesseract, settings: {languages: [eng, chi_sim]}}
  - name: warm
    text: true
    detect: *lines
    classify: *tesseract
  - name: hurried
    deadline: 1s
    scale_from_zero: true
    detect: *lines
`

// TestScaleFromZero_RequestWaitsForWorkers checks that a pipeline that scales from zero
// accepts images without workers. A waiting request gets its result once workers have
// started. A job whose deadline passes before that fails. Other pipelines reject images
// immediately. The test does all of this twice.
func TestScaleFromZero_RequestWaitsForWorkers(t *testing.T) {
	t.Parallel()
	c := newChaosMesh(t, newCluster(t, 1), time.Minute)
	if err := os.WriteFile(c.pipelines, []byte(coldPipelines), 0o600); err != nil {
		t.Fatal(err)
	}
	c.setUp(t, binary(t, "sightmesh"))
	for _, service := range []string{"ingress", "results"} {
		c.add(t, service, binary(t, service)).start()
	}
	c.awaitReady(t)
	workers := []*chaosInstance{c.add(t, "detect", binary(t, "detect")), c.add(t, "classify", binary(t, "classify"))}
	m := &mesh{http: c.addresses()}
	page, err := sample.PageFile()
	if err != nil {
		t.Fatal(err)
	}
	for _, round := range []string{"at first", "again"} {
		awaitStates(t, m, map[string]v1.PipelineState{
			"cold": v1.PipelineCold, "warm": v1.PipelineUnserved, "hurried": v1.PipelineCold,
		})
		if a := m.post(t, "?pipeline=warm", page); a.problem.Code != v1.NoWorker {
			t.Errorf("%s: warm: %v, want %s", round, a, v1.NoWorker)
		}
		if a := m.post(t, "?pipeline=hurried", page); a.problem.Code != v1.DeadlineExceeded {
			t.Errorf("%s: hurried: %v, want %s", round, a, v1.DeadlineExceeded)
		}
		waiting := make(chan response)
		go func() {
			defer close(waiting)
			a, err := m.tryPost("?pipeline=cold", page, "Prefer", "wait=60") // the workers of a busy machine start slowly
			if err != nil {
				t.Errorf("%s: cold: %v", round, err)
				return
			}
			waiting <- a
		}()
		eventually.Succeeds(t, responseTimeout, func() error { return c.checkHasMessages(streams.Images) })
		for _, w := range workers {
			w.start()
		}
		a := <-waiting
		if a.status != http.StatusOK {
			t.Fatalf("%s: cold: %v, want 200", round, a)
		}
		if len(a.result.Regions) != len(sample.Text()) {
			t.Errorf("%s: cold: %d regions, want %d lines", round, len(a.result.Regions), len(sample.Text()))
		}
		awaitStates(t, m, map[string]v1.PipelineState{
			"cold": v1.PipelineReady, "warm": v1.PipelineReady, "hurried": v1.PipelineReady,
		})
		for _, w := range workers {
			w.service.kill(t)
			w.service = nil
		}
	}
}

// TestServe_OwnWorkersForEachPipeline checks that each worker processes only images of
// the pipelines that it serves.
func TestServe_OwnWorkersForEachPipeline(t *testing.T) {
	t.Parallel()
	c := newChaosMesh(t, newCluster(t, 1), time.Minute)
	if err := os.WriteFile(c.pipelines, []byte(coldPipelines), 0o600); err != nil {
		t.Fatal(err)
	}
	c.setUp(t, binary(t, "sightmesh"))
	for _, service := range []string{"ingress", "results", "classify"} {
		c.add(t, service, binary(t, service)).start()
	}
	start := func(pipelines string) {
		i := c.add(t, "detect", binary(t, "detect"))
		i.args = append(i.args, "--serve", pipelines)
		i.start()
		eventually.Succeeds(t, 2*time.Minute, i.service.ready)
	}
	start("hurried")
	m := &mesh{http: c.addresses()}
	page, err := sample.PageFile()
	if err != nil {
		t.Fatal(err)
	}
	awaitStates(t, m, map[string]v1.PipelineState{
		"cold": v1.PipelineCold, "warm": v1.PipelineUnserved, "hurried": v1.PipelineReady,
	})
	waiting := m.post(t, "?pipeline=cold", page, "Prefer", "respond-async")
	if waiting.status != http.StatusAccepted {
		t.Fatalf("cold: %v, want 202", waiting)
	}
	if a := m.post(t, "?pipeline=hurried", page); a.status != http.StatusOK {
		t.Errorf("hurried: %v, want 200", a)
	}
	if err := c.checkHasMessages(streams.Images); err != nil {
		t.Error(err)
	}
	start("cold,warm")
	done := m.get(t, waiting.header.Get("Location")+"?wait=60")
	if done.result.Status != v1.Done {
		t.Errorf("cold: %v, want done by the worker that serves the pipeline", done)
	}
}

// checkHasMessages returns an error when a stream has no messages.
func (m *chaosMesh) checkHasMessages(stream string) error {
	info, err := m.info(stream)
	if err != nil {
		return err
	}
	if info.State.Msgs == 0 {
		return fmt.Errorf("%s has no messages", stream)
	}
	return nil
}

// awaitStates waits until GET /v1/pipelines has these states, and ready is true for
// every pipeline that accepts images.
func awaitStates(t *testing.T, m *mesh, want map[string]v1.PipelineState) {
	t.Helper()
	eventually.Succeeds(t, responseTimeout, func() error {
		var list v1.Pipelines
		if err := json.Unmarshal(m.get(t, "/v1/pipelines").body, &list); err != nil {
			return err
		}
		for _, p := range list.Pipelines {
			if p.State != want[p.Name] {
				return fmt.Errorf("%s is %s (%s), want %s", p.Name, p.State, p.Reason, want[p.Name])
			}
			if accepted := p.State != v1.PipelineUnserved; p.Ready != accepted {
				return fmt.Errorf("%s is %s, and ready is %v", p.Name, p.State, p.Ready)
			}
		}
		return nil
	})
}
