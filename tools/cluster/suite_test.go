//go:build cluster

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/chaos"
	"github.com/sightmesh/sightmesh/tools/internal/kube"
	"github.com/sightmesh/sightmesh/tools/internal/machine"
	"github.com/sightmesh/sightmesh/tools/internal/sample"
)

// suite is a cluster with the measurements of its steps.
type suite struct {
	kube       *kube.Cluster
	root       string // folder of the repository
	version    string // tag of the images
	codes      page
	text, long page
	volumes    int
	hasKEDA    bool
	rows       []*row
}

// row is a line of the table.
type row struct {
	name, text string
	elapsed    time.Duration
	load       bool // whether the step has a load and the counts below
	requests   int64
	failed     int // failed requests
	accepted   int // accepted jobs
	broken     int // jobs without exactly one outcome
	verdict    string
}

const passed = "passed"

// components are the parts of the mesh with an image.
var components = []string{"ingress", "detect", "classify", "results", "setup"}

// nodeCPUs is the number of CPUs of the node. It is small, to test that the CPU requests
// of the default values fit.
const nodeCPUs = 2

func newSuite(t *testing.T) *suite {
	t.Helper()
	programs := os.Getenv(programsVariable)
	if programs == "" {
		t.Skip("needs a cluster; run make cluster-test")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{root: root}
	state := os.Getenv(stateVariable)
	begin := time.Now()
	s.kube, err = kube.Start(t.Context(), kube.Config{
		Programs: programs, State: state, CGroup: os.Getenv(cgroupVariable), CPUs: nodeCPUs,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.kube.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("the node is ready after %v", time.Since(begin).Round(time.Second))
	s.readChart(t)
	for name, program := range s.readImages(t) {
		archive := filepath.Join(state, program+".tar")
		if err := kube.WriteImage(archive, name, filepath.Join(programs, program)); err != nil {
			t.Fatal(err)
		}
		s.importImage(t, archive)
	}
	for _, component := range components {
		s.importImage(t, filepath.Join(root, "dist/images/sightmesh-"+component+".tar"))
	}
	t.Logf("the images are imported after %v", time.Since(begin).Round(time.Second))
	if err := s.kube.Apply(t.Context(), s.read(t, "tools/cluster/testdata/stranger.yaml")); err != nil {
		t.Fatal(err)
	}
	for range 3 { // one for each release
		s.makeVolume(t, state)
	}
	return s
}

// step runs a subtest and adds its row. When the subtest does not set the time of the
// row, it is the time of the subtest.
func (s *suite) step(t *testing.T, name, text string, run func(*testing.T, *row)) {
	t.Helper()
	r := &row{name: name, text: text, verdict: "not run"} // stays when -run excludes it
	s.rows = append(s.rows, r)
	t.Run(name, func(t *testing.T) {
		t.Cleanup(func() {
			r.verdict = passed
			if t.Failed() {
				r.verdict = "**failed**"
				s.describe(t)
			}
		})
		begin := time.Now()
		run(t, r)
		r.elapsed = cmp.Or(r.elapsed, time.Since(begin))
	})
}

// count sets the counts of a load.
func (r *row) count(l *load, c chaos.Counts) {
	r.load, r.requests, r.failed, r.accepted = true, l.requests.Load(), len(l.failures()), c.Accepted
	for _, violations := range c.Broken {
		r.broken += len(violations)
	}
}

// readChart reads the version, and creates the images that are sent. The text of the
// pages is set from the results of first requests, in testInstall.
func (s *suite) readChart(t *testing.T) {
	t.Helper()
	var chart struct {
		AppVersion string `yaml:"appVersion"`
	}
	if err := yaml.Unmarshal([]byte(s.read(t, "deploy/helm/sightmesh/Chart.yaml")), &chart); err != nil {
		t.Fatal(err)
	}
	s.version = chart.AppVersion
	var want v1.Result
	if err := json.Unmarshal([]byte(s.read(t, "deploy/helm/sightmesh/files/test.json")), &want); err != nil {
		t.Fatal(err)
	}
	file := s.read(t, "deploy/helm/sightmesh/files/test.png")
	s.codes = page{pipeline: "codes", file: []byte(file), codes: textsOf(want)}
	drawn, err := sample.Page()
	if err != nil {
		t.Fatal(err)
	}
	s.long = page{pipeline: "text", file: encode(t, drawn)}
	firstLine := image.Rect(0, 0, drawn.Bounds().Dx(), 120)
	s.text = page{pipeline: "text", file: encode(t, drawn.(interface {
		SubImage(image.Rectangle) image.Image
	}).SubImage(firstLine))}
}

func encode(t *testing.T, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func textsOf(r v1.Result) (texts []string) {
	for _, region := range r.Regions {
		texts = append(texts, region.Text)
	}
	return texts
}

func (s *suite) read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// readImages returns the third-party images of the chart, each with its program.
func (s *suite) readImages(t *testing.T) map[string]string {
	t.Helper()
	type image struct {
		Image struct{ Repository, Tag string }
	}
	var values struct {
		NATS   struct{ Own image }
		Jaeger image
	}
	if err := yaml.Unmarshal([]byte(s.read(t, "deploy/helm/sightmesh/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	name := func(i image) string { return i.Image.Repository + ":" + i.Image.Tag }
	return map[string]string{name(values.NATS.Own): "nats-server", name(values.Jaeger): "jaeger"}
}

func (s *suite) importImage(t *testing.T, archive string) {
	t.Helper()
	if err := s.kube.Import(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
}

// makeVolume creates a volume for the next claim.
func (s *suite) makeVolume(t *testing.T, state string) {
	t.Helper()
	s.volumes++
	name := fmt.Sprint("volume-", s.volumes)
	folder := filepath.Join(state, name)
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("NAME", name, "FOLDER", folder).Replace(s.read(t, "tools/cluster/testdata/volume.yaml"))
	if err := s.kube.Apply(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

func (s *suite) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.kube.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// describe logs what an operator reads after a failure.
func (s *suite) describe(t *testing.T) {
	for _, args := range []string{
		"get pods --all-namespaces --output=wide",
		"get events --all-namespaces --field-selector=type!=Normal --sort-by=.lastTimestamp",
		"describe scaledobjects,hpa --namespace=mesh",
		"logs --all-containers --prefix --tail=12 --max-log-requests=30 --namespace=mesh " +
			"--selector=app.kubernetes.io/part-of=sightmesh",
	} {
		out, err := s.kube.Kubectl(context.Background(), strings.Fields(args)...)
		t.Logf("kubectl %s: %v\n%s", args, err, out)
	}
}

// startKEDA starts KEDA, unless another step has started it.
func (s *suite) startKEDA(t *testing.T) {
	t.Helper()
	if s.hasKEDA {
		return
	}
	if err := s.kube.StartKEDA(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.hasKEDA = true
}

// writeTable logs the table, and writes it to the file of tableVariable when every step
// has passed.
func (s *suite) writeTable(t *testing.T) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, %d cores.\n\n", time.Now().Format(time.DateOnly), machine.Processor(), runtime.NumCPU())
	b.WriteString("| step | time | requests | failed requests | accepted jobs | jobs without exactly one outcome |")
	b.WriteString(" verdict | subtest |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, r := range s.rows {
		counts := "– | – | – | –"
		if r.load {
			counts = fmt.Sprintf("%d | %d | %d | %d", r.requests, r.failed, r.accepted, r.broken)
		}
		fmt.Fprintf(&b, "| %s | %.1f s | %s | %s | `%s` |\n", r.text, r.elapsed.Seconds(), counts, r.verdict, r.name)
	}
	t.Logf("\n%s", &b)
	file := os.Getenv(tableVariable)
	if file == "" || t.Failed() || slices.ContainsFunc(s.rows, func(r *row) bool { return r.verdict != passed }) {
		return
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	after, err := chaos.Replace(before, "cluster", b.String())
	if err != nil {
		t.Fatal(errors.Join(fmt.Errorf("write %s", file), err))
	}
	if err := os.WriteFile(file, after, 0o644); err != nil {
		t.Fatal(err)
	}
}
