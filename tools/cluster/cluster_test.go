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
	"net/http"
	"os"
	"os/exec"
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

// Variables that tools/scripts/cluster-test sets, and the Makefile.
const (
	programsVariable = "SIGHTMESH_CLUSTER_PROGRAMS" // folder of make cluster
	stateVariable    = "SIGHTMESH_CLUSTER_STATE"    // an empty folder
	cgroupVariable   = "SIGHTMESH_CLUSTER_CGROUP"   // a group of every hierarchy
	tableVariable    = "SIGHTMESH_CLUSTER_TABLE"    // Markdown file with the markers of the table; empty for none
)

// TestChart installs the chart and does what operators do, one after the other, on
// one cluster.
func TestChart(t *testing.T) {
	s := newSuite(t)
	mesh := release{s, "mesh", "sightmesh"}
	s.step(t, "install", "`helm install --wait` until every pod is ready, on a node of 2 CPUs", mesh.testInstall)
	if t.Failed() {
		t.FailNow() // every other step needs it
	}
	s.step(t, "helm-test", "`helm test`: images through the Service", mesh.testHelmTest)
	s.step(t, "ingress", "images through the Ingress: small ones, and one of 8 MiB", mesh.testIngress)
	s.step(t, "trace", "Jaeger has the trace of a request, with all four services", mesh.testTrace)
	s.step(t, "policies", "the network policies, as rules of nftables", mesh.testPolicies)
	s.step(t, "upgrade", "`helm upgrade --wait` to other images, under load", mesh.testUpgrade)
	for _, component := range []string{"detect", "classify", "results", "ingress", "nats"} {
		s.step(t, "kill-"+component, "a pod of "+component+" killed under load, until all are ready again",
			func(t *testing.T, r *row) { mesh.testKill(t, r, component) })
	}
	s.step(t, "autoscaling", "KEDA: classify from 1 pod to 3 while images wait, and back to 1", mesh.testAutoscaling)
	s.step(t, "second-release", "a second release in a namespace beside it, installed, tested and uninstalled", mesh.testSecondRelease)
	s.step(t, "former-chart", "upgrade of a release of the chart 0.1.0", mesh.testFormerChart)
	s.step(t, "scale-from-zero", "KEDA: detect and classify from 0 pods, one request to its result, and back to 0",
		mesh.testScaleFromZero)
	s.step(t, "uninstall", "`helm uninstall` until only the volume of NATS is left", mesh.testUninstall)
	s.writeTable(t)
}

// suite is a cluster, and what was measured in it.
type suite struct {
	kube       *kube.Cluster
	root       string // of the repository
	version    string // of the images
	codes      page
	text, long page
	volumes    int
	hasKEDA    bool
	rows       []*row
}

// row is a line of the table.
type row struct {
	name, words string
	took        time.Duration
	load        bool // whether the fields below were counted
	requests    int64
	failed      int // requests
	accepted    int // jobs
	broken      int // jobs without their one outcome
	verdict     string
}

const held = "held"

// components are the parts of the mesh that have images of their own.
var components = []string{"ingress", "detect", "classify", "results", "setup"}

// nodeCPUs is how many CPUs the node has, so that the requests of the default
// values are tried on a small one.
const nodeCPUs = 2

func newSuite(t *testing.T) *suite {
	t.Helper()
	programs := os.Getenv(programsVariable)
	if programs == "" {
		t.Skip("it needs a cluster: run make cluster-test")
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
	t.Logf("its images are there after %v", time.Since(begin).Round(time.Second))
	if err := s.kube.Apply(t.Context(), s.read(t, "tools/cluster/testdata/stranger.yaml")); err != nil {
		t.Fatal(err)
	}
	for range 3 { // releases
		s.makeVolume(t, state)
	}
	return s
}

// step runs a subtest and adds its row. A row of which the test does not set the
// time has that of the subtest.
func (s *suite) step(t *testing.T, name, words string, run func(*testing.T, *row)) {
	t.Helper()
	r := &row{name: name, words: words, verdict: "not run"} // as when -run leaves it out
	s.rows = append(s.rows, r)
	t.Run(name, func(t *testing.T) {
		t.Cleanup(func() {
			r.verdict = held
			if t.Failed() {
				r.verdict = "**failed**"
				s.describe(t)
			}
		})
		begin := time.Now()
		run(t, r)
		r.took = cmp.Or(r.took, time.Since(begin))
	})
}

// count adds what a load counted.
func (r *row) count(l *load, c chaos.Counts) {
	r.load, r.requests, r.failed, r.accepted = true, l.requests.Load(), len(l.failures()), c.Accepted
	for _, violations := range c.Broken {
		r.broken += len(violations)
	}
}

// readChart reads the version, and makes the images that are sent. What is in the
// pages with text is read by a first request.
func (s *suite) readChart(t *testing.T) {
	t.Helper()
	chart := s.read(t, "deploy/helm/sightmesh/Chart.yaml")
	_, version, ok := strings.Cut(chart, "appVersion: \"")
	if s.version, _, ok = strings.Cut(version, "\""); !ok {
		t.Fatalf("the chart has no appVersion:\n%s", chart)
	}
	var want v1.Result
	if err := json.Unmarshal([]byte(s.read(t, "deploy/helm/sightmesh/files/test.json")), &want); err != nil {
		t.Fatal(err)
	}
	s.codes = page{pipeline: "codes", file: []byte(s.read(t, "deploy/helm/sightmesh/files/test.png")), codes: textsOf(want)}
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

// readImages returns the images that the chart names, and the program of each.
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

// makeVolume makes a volume that the next claim gets.
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

// describe logs what an operator would look at.
func (s *suite) describe(t *testing.T) {
	for _, args := range []string{
		"get pods --all-namespaces --output=wide",
		"get events --all-namespaces --field-selector=type!=Normal --sort-by=.lastTimestamp",
		"describe scaledobjects,hpa --namespace=mesh",
		"logs --all-containers --prefix --tail=12 --namespace=mesh --selector=app.kubernetes.io/part-of=sightmesh --max-log-requests=30",
	} {
		out, err := s.kube.Kubectl(context.Background(), strings.Fields(args)...)
		t.Logf("kubectl %s: %v\n%s", args, err, out)
	}
}

// release is an installation of the chart.
type release struct {
	*suite
	namespace, name string
}

// values are those of the first release: the default ones, an Ingress, and a Jaeger.
var values = []string{
	"httpIngress.enabled=true",
	`httpIngress.annotations.nginx\.ingress\.kubernetes\.io/proxy-body-size=65m`,
	`httpIngress.annotations.nginx\.ingress\.kubernetes\.io/proxy-read-timeout=75`,
	`httpIngress.annotations.nginx\.ingress\.kubernetes\.io/proxy-request-buffering=off`,
	"jaeger.enabled=true",
}

// small are values of a release that fits beside another one on the node.
var small = []string{
	"ingress.replicas=1", "detect.replicas=1", "classify.replicas=1", "results.replicas=1",
	"ingress.resources.requests.cpu=20m", "detect.resources.requests.cpu=50m", "classify.resources.requests.cpu=50m",
	"nats.own.resources.requests.cpu=50m",
}

// helm runs Helm on the release.
func (r release) helm(t *testing.T, command string, args ...string) {
	t.Helper()
	if _, err := r.kube.Helm(t.Context(), append([]string{command, r.name, "--namespace", r.namespace}, args...)...); err != nil {
		t.Fatal(err)
	}
}

// install installs a chart and waits until it is ready.
func (r release) install(t *testing.T, chart string, values ...string) {
	t.Helper()
	r.helm(t, "install", append([]string{chart, "--create-namespace", "--wait", "--timeout=5m"}, set(values)...)...)
}

// upgrade brings the release to the chart of this version, with these values only.
func (r release) upgrade(t *testing.T, values ...string) {
	t.Helper()
	r.helm(t, "upgrade", append([]string{r.chart(), "--reset-values", "--wait", "--timeout=5m"}, set(values)...)...)
}

func (s *suite) chart() string { return filepath.Join(s.root, "deploy/helm/sightmesh") }

func set(values []string) (args []string) {
	for _, v := range values {
		key := "--set"
		if strings.Contains(v, "annotations") {
			key = "--set-string"
		}
		args = append(args, key, v)
	}
	return args
}

// address returns the address of the Service.
func (r release) address() string { return fmt.Sprintf("http://%s.%s", r.name, r.namespace) }

// nats returns the address of the NATS server.
func (r release) nats() string { return fmt.Sprintf("nats://%s-nats.%s:4222", r.name, r.namespace) }

// get returns a field of objects of the release.
func (r release) get(t *testing.T, objects, path string) string {
	t.Helper()
	return r.kubectl(t, "get", objects, "--namespace="+r.namespace, "--selector=app.kubernetes.io/instance="+r.name,
		"--output=jsonpath="+path)
}

// followLogs logs the warnings of the pods that run now when the test fails. Those of
// pods that a test deletes cannot be read later.
func (r release) followLogs(t *testing.T) {
	t.Helper()
	var logs bytes.Buffer
	stop, err := r.kube.FollowLogs(t.Context(), &logs, "--namespace="+r.namespace, "--selector=app.kubernetes.io/instance="+r.name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		for line := range strings.Lines(logs.String()) {
			if t.Failed() && (strings.Contains(line, `"WARN"`) || strings.Contains(line, `"ERROR"`)) {
				t.Log(strings.TrimSpace(line))
			}
		}
	})
}

// awaitReady waits until every Deployment and StatefulSet has all its pods.
func (r release) awaitReady(t *testing.T) {
	t.Helper()
	for _, object := range strings.Fields(r.get(t, "deployments,statefulsets", "{range .items[*]}{.kind}/{.metadata.name} {end}")) {
		r.kubectl(t, "rollout", "status", "--namespace="+r.namespace, "--timeout=3m", strings.ToLower(object))
	}
}

// check sends a page and compares the result with the one that is known.
func (s *suite) check(t *testing.T, l *load, p page) v1.Result {
	t.Helper()
	i, err := chaos.NewCopy("check", p.file, p.codes, 0, uint64(time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	status, answer, err := l.request(http.MethodPost, "/v1/images?pipeline="+p.pipeline, i.File, "Content-Type", "image/png")
	if err != nil {
		t.Fatal(err)
	}
	var r v1.Result
	if err := json.Unmarshal(answer, &r); err != nil || status != http.StatusOK {
		t.Fatalf("got %d %s, %v", status, answer, err)
	}
	if p.codes == nil {
		return r
	}
	if err := i.Check(r); err != nil {
		t.Errorf("the result of %s: %v", p.pipeline, err)
	}
	return r
}

// testInstall also learns what is in the pages with text.
func (r release) testInstall(t *testing.T, row *row) {
	if cpus := r.kubectl(t, "get", "nodes", "--output=jsonpath={.items[*].status.allocatable.cpu}"); cpus != fmt.Sprint(nodeCPUs) {
		t.Errorf("the node has %s CPUs, want %d", cpus, nodeCPUs)
	}
	begin := time.Now()
	r.install(t, r.chart(), values...)
	row.took = time.Since(begin)
	if restarts := strings.Fields(r.get(t, "pods", "{.items[*].status.containerStatuses[*].restartCount}")); slices.ContainsFunc(
		restarts, func(n string) bool { return n != "0" }) {
		t.Errorf("pods were restarted: %v", restarts)
	}
	for _, p := range []*page{&r.text, &r.long} {
		if p.codes = textsOf(r.check(t, newLoad(r.address()), *p)); len(p.codes) == 0 {
			t.Error("no text is found in the page")
		}
	}
}

func (r release) testHelmTest(t *testing.T, row *row) {
	r.helm(t, "test", "--timeout=2m")
}

// testIngress sends images through nginx, which has the settings of the Ingress.
func (r release) testIngress(t *testing.T, row *row) {
	r.startNginx(t)
	l := newLoad("http://" + r.get(t, "ingresses", "{.items[*].spec.rules[*].host}"))
	l.client.Transport = &http.Transport{DialContext: dialNginx}
	for range 10 {
		r.check(t, l, r.codes)
	}
	large := r.codes
	large.file = pad(large.file, 8<<20-4096)
	r.check(t, l, large)
	row.count(l, chaos.Counts{Accepted: 11})
	if row.failed > 0 {
		t.Errorf("%d of %d requests failed: %q", row.failed, row.requests, l.failures())
	}
}

// testTrace looks at the trace of a page with text, which every service works on.
func (r release) testTrace(t *testing.T, row *row) {
	id := r.check(t, newLoad(r.address()), r.text).TraceID
	want := []string{"sightmesh-classify", "sightmesh-detect", "sightmesh-ingress", "sightmesh-results"}
	eventually(t, time.Minute, func() error {
		services, err := tracedServices(t.Context(), fmt.Sprintf("http://%s-jaeger.%s:16686/api/traces/%s", r.name, r.namespace, id))
		if err == nil && !slices.Equal(services, want) {
			err = fmt.Errorf("the trace %s has spans of %v, want %v", id, services, want)
		}
		return err
	})
}

// tracedServices returns the names of the services that a trace has spans of.
func tracedServices(ctx context.Context, url string) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var answer struct {
		Data []struct {
			Processes map[string]struct{ ServiceName string }
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || len(answer.Data) != 1 {
		return nil, fmt.Errorf("got %d traces, %w", len(answer.Data), err)
	}
	var names []string
	for _, p := range answer.Data[0].Processes {
		names = append(names, p.ServiceName)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// testUpgrade replaces every pod of the services while clients send images. None of
// their requests fails.
func (r release) testUpgrade(t *testing.T, row *row) {
	const next = "next"
	for _, component := range components {
		image := "sightmesh-" + component + ":"
		if err := r.kube.Tag(t.Context(), image+r.version, image+next); err != nil {
			t.Fatal(err)
		}
	}
	r.followLogs(t)
	l := startLoad(t, r.address(), r.mixed())
	begin := time.Now()
	r.upgrade(t, append(values, "image.tag="+next)...)
	r.awaitReady(t)
	row.took = time.Since(begin)
	row.count(l, l.settle(t, r.nats()))
	if row.failed > 0 {
		t.Errorf("%d of %d requests failed: %q", row.failed, row.requests, l.failures())
	}
}

// testKill kills a pod without notice. Requests may fail; every job that was
// accepted has its one outcome.
func (r release) testKill(t *testing.T, row *row, component string) {
	r.followLogs(t)
	l := startLoad(t, r.address(), r.mixed())
	pods := r.kubectl(t, "get", "pods", "--namespace="+r.namespace, "--output=jsonpath={.items[*].metadata.name}",
		"--selector=app.kubernetes.io/instance="+r.name+",app.kubernetes.io/component="+component)
	victim, _, _ := strings.Cut(pods, " ")
	time.Sleep(2 * time.Second) // of load before the fault
	begin := time.Now()
	if err := r.kube.Kill(t.Context(), r.namespace, victim); err != nil {
		t.Fatal(err)
	}
	r.awaitReady(t)
	row.took = time.Since(begin)
	time.Sleep(2 * time.Second) // and after it
	row.count(l, l.settle(t, r.nats()))
}

// keda are the values of a service that KEDA scales as fast as it can.
func keda(service string, values ...string) (all []string) {
	for _, v := range append(values, "enabled=true", "keda.enabled=true", "keda.pollingInterval=1", "keda.cooldownPeriod=5",
		"behavior.scaleDown.stabilizationWindowSeconds=5") {
		all = append(all, service+".autoscaling."+v)
	}
	return all
}

// startKEDA starts KEDA, unless another step has.
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

// letKEDAIn are the values with which KEDA may read the monitoring port of NATS.
const letKEDAIn = `networkPolicy.natsMonitoringFrom[0].namespaceSelector.matchLabels.kubernetes\.io/metadata\.name=keda`

// testAutoscaling has 40 clients at work, and then none.
func (r release) testAutoscaling(t *testing.T, row *row) {
	r.startKEDA(t)
	r.upgrade(t, slices.Concat(values, keda("classify", "minReplicas=1", "maxReplicas=3"), []string{letKEDAIn})...)
	r.kubectl(t, "wait", "--namespace="+r.namespace, "--for=condition=Ready", "scaledobject/"+r.name+"-classify", "--timeout=2m")
	r.awaitReplicas(t, "classify", 1)
	begin := time.Now()
	l := startLoad(t, r.address(), slices.Repeat([]client{{r.long, true, time.Second}}, 40))
	r.awaitReplicas(t, "classify", 3)
	up := time.Since(begin)
	row.count(l, l.settle(t, r.nats()))
	begin = time.Now()
	r.awaitReplicas(t, "classify", 1)
	row.took = up
	row.words += fmt.Sprintf(" %.0f s after the last result", time.Since(begin).Seconds())
	if row.failed > 0 {
		t.Errorf("%d of %d requests failed: %q", row.failed, row.requests, l.failures())
	}
}

// awaitReplicas waits until a service has this number of pods, all ready.
func (r release) awaitReplicas(t *testing.T, service string, n int) {
	t.Helper()
	eventually(t, 4*time.Minute, func() error {
		// What is 0 is left out.
		counts := r.kubectl(t, "get", "deployment", r.name+"-"+service, "--namespace="+r.namespace,
			"--output=jsonpath={.spec.replicas} {.status.replicas} {.status.readyReplicas}")
		want := strings.TrimSpace(strings.Repeat(fmt.Sprint(n, " "), 3))
		if n == 0 {
			want = "0"
		}
		if got := strings.TrimSpace(counts); got != want {
			return fmt.Errorf("%s has %s pods (wanted, made, ready), want %d", service, got, n)
		}
		return nil
	})
}

// testScaleFromZero sends one image to a pipeline without workers, and waits for its
// result in the request.
func (r release) testScaleFromZero(t *testing.T, row *row) {
	r.startKEDA(t)
	r.helm(t, "upgrade", append([]string{r.chart(), "--reset-values", "--wait", "--timeout=5m", "--set-file=pipelines=testdata/cold.yaml"},
		set(slices.Concat(values, keda("detect", "minReplicas=0"), keda("classify", "minReplicas=0"), []string{letKEDAIn}))...)...)
	atZero := func() {
		r.awaitReplicas(t, "detect", 0)
		r.awaitReplicas(t, "classify", 0)
	}
	atZero()
	l := newLoad(r.address())
	eventually(t, time.Minute, func() error {
		var list v1.Pipelines
		status, answer, err := l.request(http.MethodGet, "/v1/pipelines", nil)
		if err == nil {
			err = json.Unmarshal(answer, &list)
		}
		if err != nil || len(list.Pipelines) != 1 || list.Pipelines[0].State != v1.PipelineCold {
			return fmt.Errorf("got %d %s, %v, want a pipeline that is %s", status, answer, err, v1.PipelineCold)
		}
		return nil
	})
	cold := r.long
	cold.pipeline = "cold"
	begin := time.Now()
	r.check(t, l, cold)
	row.took = time.Since(begin)
	begin = time.Now()
	atZero()
	row.words += fmt.Sprintf(" %.0f s after it", time.Since(begin).Seconds())
}

// testSecondRelease has both releases at work, each with its own NATS.
func (r release) testSecondRelease(t *testing.T, row *row) {
	second := release{r.suite, "second", "sightmesh"}
	second.install(t, r.chart(), small...)
	l := newLoad(second.address())
	id := r.check(t, l, r.codes).ID
	second.helm(t, "test", "--timeout=2m")
	r.helm(t, "test", "--timeout=2m")
	if status, _, err := newLoad(r.address()).request(http.MethodGet, "/v1/images/"+id, nil); err != nil || status != http.StatusNotFound {
		t.Errorf("the first release answers %d for a job of the second, %v", status, err)
	}
	second.testUninstall(t, row)
}

// former is the last commit of version 0.1.0, as in tools/scripts/upgrade.
const former = "9f6361e"

// testFormerChart installs the chart of version 0.1.0 as it starts: its NATS refuses
// a lame_duck_duration of less than 30 s. Its images are those of this version.
func (r release) testFormerChart(t *testing.T, row *row) {
	folder := t.TempDir()
	archive := exec.CommandContext(t.Context(), "sh", "-c",
		`git -C "$0" archive "$1" deploy/helm/sightmesh | tar x -C "$2"`, r.root, former, folder)
	if out, err := archive.CombinedOutput(); err != nil {
		t.Fatalf("read the chart of %s from the history: %v\n%s", former, err, out)
	}
	chart := filepath.Join(folder, "deploy/helm/sightmesh")
	file := filepath.Join(chart, "templates/nats.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("lame_duck_duration: 20s"), []byte("lame_duck_duration: 30s"), 1)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	old := release{r.suite, "former", "sightmesh"}
	old.install(t, chart, append(small, "image.tag="+r.version)...)
	l := newLoad(old.address())
	before := r.check(t, l, r.codes)
	begin := time.Now()
	old.upgrade(t, small...)
	old.awaitReady(t)
	row.took = time.Since(begin)
	old.helm(t, "test", "--timeout=2m")
	status, answer, err := l.request(http.MethodGet, "/v1/images/"+before.ID, nil)
	if err != nil || status != http.StatusOK {
		t.Errorf("the result of before the upgrade: %d %s, %v", status, answer, err)
	}
	old.testUninstall(t, row)
}

// testUninstall waits until nothing is left but the claim of NATS, and what every
// namespace has.
func (r release) testUninstall(t *testing.T, row *row) {
	kinds := strings.Join(strings.Fields(r.kubectl(t, "api-resources", "--namespaced", "--verbs=list", "--output=name")), ",")
	begin := time.Now()
	r.helm(t, "uninstall", "--wait", "--timeout=2m")
	eventually(t, 2*time.Minute, func() error {
		left := strings.Fields(r.kubectl(t, "get", kinds, "--namespace="+r.namespace, "--ignore-not-found", "--output=name"))
		left = slices.DeleteFunc(left, func(name string) bool {
			return strings.HasPrefix(name, "event") || slices.Contains([]string{"configmap/kube-root-ca.crt", "serviceaccount/default"}, name)
		})
		if want := []string{"persistentvolumeclaim/data-" + r.name + "-nats-0"}; !slices.Equal(left, want) {
			return fmt.Errorf("namespace %s has %v, want %v", r.namespace, left, want)
		}
		return nil
	})
	row.took = cmp.Or(row.took, time.Since(begin))
}

// eventually waits until a condition holds.
func eventually(t *testing.T, within time.Duration, holds func() error) {
	t.Helper()
	for deadline := time.Now().Add(within); ; {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond) // between two looks
	}
}

// writeTable prints the table, and writes it where the settings say.
func (s *suite) writeTable(t *testing.T) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, %d cores.\n\n", time.Now().Format(time.DateOnly), machine.Processor(), runtime.NumCPU())
	b.WriteString("| Step | Time | Requests | Failed requests | Accepted jobs | Jobs without their one outcome | Verdict | Subtest |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, r := range s.rows {
		counts := "– | – | – | –"
		if r.load {
			counts = fmt.Sprintf("%d | %d | %d | %d", r.requests, r.failed, r.accepted, r.broken)
		}
		fmt.Fprintf(&b, "| %s | %.1f s | %s | %s | `%s` |\n", r.words, r.took.Seconds(), counts, r.verdict, r.name)
	}
	t.Logf("\n%s", &b)
	file := os.Getenv(tableVariable)
	if file == "" || t.Failed() || slices.ContainsFunc(s.rows, func(r *row) bool { return r.verdict != held }) {
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
