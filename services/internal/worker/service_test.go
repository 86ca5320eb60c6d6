package worker

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/internal/run/runtest"
)

// startService runs detect, with the lanes of this package.
func startService(t *testing.T, s *bustest.Server, args ...string) *runtest.Service {
	t.Helper()
	var o Options
	return runtest.Start(t, run.Spec{
		Name: "detect", Flags: o.Register,
		Validate: func(all []pipeline.Pipeline) error { return o.Validate(all, subject.Detect) },
		New: func(p *run.Process) (run.Service, error) {
			return NewService(p, subject.Detect, o, &testHandler{})
		},
	}, append([]string{"--nats", s.URL, "--lanes", "1"}, args...)...)
}

// writePipelines writes a pipelines file and returns its path. LANE in it is the
// lane program of this package.
func writePipelines(t *testing.T, yaml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipelines.yaml")
	yaml = strings.ReplaceAll(yaml, "LANE", fmt.Sprintf("[%q, %s]", os.Args[0], LaneCommand))
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestService_RejectsALaneOverItsMemory has a pipeline whose memory limit is too low for its lane. The other pipeline
// is served.
func TestService_RejectsALaneOverItsMemory(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "a", "b")
	detect := startService(t, s, "--pipelines", writePipelines(t, `
pipelines:
  - {name: a, detect: {kind: test}}
  - {name: b, detect: {lane: LANE, memory: 192MiB, settings: {hold: 268435456}}}`))
	detect.AwaitReady(t)
	nc := s.Connect(t)
	status, err := nc.Request(subject.Status("detect"), nil, testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	var w v1.WorkerStatus
	if err := json.Unmarshal(status.Data, &w); err != nil {
		t.Fatal(err)
	}
	if !w.Pipelines["a"].Ready {
		t.Errorf("the pipeline that fits is not ready: %q", w.Pipelines["a"].Reason)
	}
	if w.Pipelines["b"].Ready {
		t.Error("the pipeline of the lane that is too large is ready")
	}
	reason, want := w.Pipelines["b"].Reason, "more than the 201326592 that detect.memory of pipeline b allows"
	if !strings.Contains(reason, want) {
		t.Errorf("the reason is %q, want %q in it", reason, want)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	m := mesh{s, js}
	m.send(t, subject.Job{Pipeline: "b", Priority: subject.Interactive, ID: "large"}, order{})
	m.send(t, interactive("small"), order{})
	if r := m.result(t, "a", "small"); r.Status != v1.Done {
		t.Errorf("the pipeline that fits: %+v", r)
	}
	c, err := js.Consumer(t.Context(), streams.Images, streams.WorkConsumer(subject.Detect, "b", subject.Interactive))
	if err != nil {
		t.Fatal(err)
	}
	if n := c.CachedInfo().Delivered.Consumer; n != 0 {
		t.Errorf("the image of the other was delivered %d times, want 0", n)
	}
	if n := detect.Count("lane is rejected"); n != 1 {
		t.Errorf("%d lines say that it is rejected, want one", n)
	}
}

// TestService_LimitsMemoryByFlag: the flag takes units, and counts where the
// pipelines say nothing.
func TestService_LimitsMemoryByFlag(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "a", "b")
	detect := startService(t, s, "--lane-memory", "192MiB", "--pipelines", writePipelines(t, `
pipelines:
  - {name: a, detect: {lane: LANE, memory: 512MiB, settings: {hold: 268435456}}}
  - {name: b, detect: {lane: LANE, settings: {hold: 268435456}}}`))
	line := detect.AwaitLine(t, "lane is rejected")
	if got := line["program"]; got != "b" {
		t.Errorf("the lane of %v is rejected, want that of b", got)
	}
	got, want := fmt.Sprint(line["error"]), "more than the 201326592 that --lane-memory allows"
	if !strings.Contains(got, want) {
		t.Errorf("the line says %q, want %q in it", got, want)
	}
	detect.AwaitReady(t)
	if n := detect.Count("lane is rejected"); n != 1 {
		t.Errorf("%d lines say that a lane is rejected, want one", n)
	}
}

func TestProgramsFor_Memory(t *testing.T) {
	t.Parallel()
	pipelines, err := pipeline.Load(writePipelines(t, `
pipelines:
  - {name: a, detect: {kind: k}, classify: {kind: k, memory: 512MiB}}
  - {name: b, detect: {kind: k}, classify: {kind: k, memory: 2GiB}}
  - {name: c, detect: {lane: LANE, memory: 64MiB}, classify: {kind: k}}
  - {name: d, detect: {lane: LANE}}`))
	if err != nil {
		t.Fatal(err)
	}
	flag := pool.MemoryLimit{Bytes: 1 << 30, Setting: "--lane-memory"}
	for stage, want := range map[subject.Stage]map[string]pool.MemoryLimit{
		subject.Detect: {
			"built-in": flag, "c": {Bytes: 64 << 20, Setting: "detect.memory of pipeline c"}, "d": flag,
		},
		subject.Classify: {"built-in": {Bytes: 2 << 30, Setting: "classify.memory of pipeline b"}},
	} {
		programs, _, err := programsFor(stage, pipelines, t.TempDir(), flag)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]pool.MemoryLimit{}
		for _, p := range programs {
			got[p.Name] = p.Memory
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: the limits are %v, want %v", stage, got, want)
		}
	}
}

// TestProgramsFor_ModelsOfLabels: a stage has a process of its own when the classifier of
// any label is a model.
func TestProgramsFor_ModelsOfLabels(t *testing.T) {
	t.Parallel()
	models := t.TempDir()
	if err := os.Mkdir(filepath.Join(models, "plates"), 0o755); err != nil {
		t.Fatal(err)
	}
	pipelines, err := pipeline.Load(writePipelines(t, `
pipelines:
  - name: a
    detect: {kind: k}
    classify: {by_label: {person: {kind: k}, car: {kind: model, settings: {model: plates}}}}
  - name: b
    detect: {kind: k}
    classify: {by_label: {person: {kind: k}, car: {kind: model, settings: {model: absent}}}}
  - {name: c, detect: {kind: k}, classify: {by_label: {person: {kind: k}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	programs, _, err := programsFor(subject.Classify, pipelines, models, pool.MemoryLimit{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, p := range programs {
		got[p.Name] = slices.Sorted(maps.Keys(p.Pipelines))
	}
	if want := map[string][]string{"built-in": {"b", "c"}, "a": {"a"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("the programs serve %v, want %v", got, want)
	}
}

func TestOptions_AreChecked(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--lanes=0":             "lanes: 0, want 1 or more",
		"--lane-memory=1MiB":    "lane-memory: 1MiB, want 0 or at least 16MiB",
		"--lane-jobs=-1":        "lane-jobs: -1, want 0 or more",
		"--lane-start=0s":       "lane-start: 0s, want more than 0",
		"--lane-memory=16MiB":   "",
		"--lane-memory=0":       "",
		"--lane-memory=1048577": "lane-memory: 1048577, want 0 or at least 16MiB",
	} {
		var o Options
		fs := flag.NewFlagSet("test", flag.ContinueOnError)
		o.Register(fs)
		if err := fs.Parse([]string{args}); err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		got := ""
		if err := o.Validate(nil, subject.Detect); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: the error is %q, want %q", args, got, want)
		}
	}
}

// TestService_NotReadyWithoutAConsumer deletes a consumer that the worker pulls from, and creates it again.
func TestService_NotReadyWithoutAConsumer(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	js, err := jetstream.New(s.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	name := streams.WorkConsumer(subject.Detect, "faces", subject.Bulk)
	c, err := js.Consumer(t.Context(), streams.Images, name)
	if err != nil {
		t.Fatal(err)
	}
	detect := startService(t, s)
	detect.AwaitReady(t)
	if err := js.DeleteConsumer(t.Context(), streams.Images, name); err != nil {
		t.Fatal(err)
	}
	detect.AwaitNotReady(t, name)
	if _, err := js.CreateConsumer(t.Context(), streams.Images, c.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	detect.AwaitReady(t)
	detect.Stop()
	if err := detect.Wait(t); err != nil {
		t.Errorf("detect ended with %v", err)
	}
	if n := detect.Count("not ready"); n != 1 {
		t.Errorf("%d lines say that it is not ready, want one", n)
	}
}

// TestService_ReadyWithoutTheConsumersOfOthers deletes a consumer that the
// worker does not pull from.
func TestService_ReadyWithoutTheConsumersOfOthers(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	js, err := jetstream.New(s.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	detect := startService(t, s)
	detect.AwaitReady(t)
	own := streams.WorkConsumer(subject.Detect, "text", subject.Bulk)
	for _, c := range []struct{ stream, name string }{
		{streams.Crops, streams.WorkConsumer(subject.Classify, "text", subject.Bulk)},
		{streams.Images, own}, // so that there is a look after the first was deleted
	} {
		if err := js.DeleteConsumer(t.Context(), c.stream, c.name); err != nil {
			t.Fatal(err)
		}
	}
	detect.AwaitNotReady(t, own)
	_, body := detect.Probe(t, "/readyz")
	if strings.Contains(body, string(subject.Classify)) {
		t.Errorf("the reason is %q, which is not that of detect", body)
	}
}

// TestService_NotReadyWhileLanesStart has a lane program that never sends ready.
func TestService_NotReadyWhileLanesStart(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "a")
	detect := startService(t, s, "--lane-start", "10m", "--pipelines", writePipelines(t, `
pipelines:
  - {name: a, detect: {lane: [sleep, "1000"]}}`))
	detect.AwaitNotReady(t, "starting: lane programs load their models")
	detect.Stop()
	if err := detect.Wait(t); err != nil {
		t.Errorf("detect ended with %v", err)
	}
}

// TestProgramsFor_ModelHasItsOwnProcess: what a model does to its process must not end
// other pipelines. A model that is absent needs none.
func TestProgramsFor_ModelHasItsOwnProcess(t *testing.T) {
	t.Parallel()
	models := t.TempDir()
	if err := os.Mkdir(filepath.Join(models, "net"), 0o755); err != nil {
		t.Fatal(err)
	}
	programs, served, err := programsFor(subject.Detect, []pipeline.Pipeline{
		{Name: "text", Detect: pipeline.Stage{Kind: "text-lines"}},
		{Name: "objects", Detect: pipeline.Stage{Kind: "model", Settings: map[string]any{"model": "net"}}},
		{Name: "absent", Detect: pipeline.Stage{Kind: "model", Settings: map[string]any{"model": "nosuch"}}},
		{Name: "faces", Detect: pipeline.Stage{Kind: "cascade"}},
		{Name: "colour", Detect: pipeline.Stage{Lane: []string{"python3", "colour.py"}}},
	}, models, pool.MemoryLimit{})
	if err != nil {
		t.Fatal(err)
	}
	if len(served) != 5 {
		t.Errorf("%d pipelines are served, want 5", len(served))
	}
	got := map[string][]string{}
	for _, p := range programs {
		got[p.Name] = slices.Sorted(maps.Keys(p.Pipelines))
		if last := p.Argv[len(p.Argv)-1]; (p.Name == "colour") != (last == "colour.py") {
			t.Errorf("%s is started as %q", p.Name, p.Argv)
		}
	}
	want := map[string][]string{"built-in": {"absent", "faces", "text"}, "objects": {"objects"}, "colour": {"colour"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("programs %v, want %v", got, want)
	}
}

func TestOptions_Serve(t *testing.T) {
	t.Parallel()
	all := []pipeline.Pipeline{
		{Name: "text", Classify: &pipeline.Stage{}}, {Name: "faces"}, {Name: "codes"},
	}
	for serve, want := range map[string][]string{
		"": {"text", "faces", "codes"}, "faces": {"faces"}, "codes,text": {"codes", "text"},
	} {
		served, err := (&Options{serve: serve}).servedPipelines(all, subject.Detect)
		if err != nil {
			t.Fatalf("%q: %v", serve, err)
		}
		var names []string
		for _, p := range served {
			names = append(names, p.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("%q: %v, want %v", serve, names, want)
		}
	}
	for serve, want := range map[string]string{
		"text,objects": `serve: no pipeline "objects"; the pipelines are text, faces, codes; --pipelines names another file`,
		"text,":        `serve: no pipeline ""; the pipelines are text, faces, codes; --pipelines names another file`,
		"text,text":    "serve: pipeline text is given twice",
		"text,faces":   "serve: pipeline faces has no classify",
	} {
		if _, err := (&Options{serve: serve}).servedPipelines(all, subject.Classify); err == nil || err.Error() != want {
			t.Errorf("%q: the error is %v, want %q", serve, err, want)
		}
	}
}
