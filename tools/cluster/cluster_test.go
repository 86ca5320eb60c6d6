//go:build cluster

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/chaos"
)

// Environment variables that tools/scripts/cluster-test and the Makefile set.
const (
	programsVariable = "SIGHTMESH_CLUSTER_PROGRAMS" // folder of make cluster
	stateVariable    = "SIGHTMESH_CLUSTER_STATE"    // an empty folder
	cgroupVariable   = "SIGHTMESH_CLUSTER_CGROUP"   // a cgroup in every hierarchy
	tableVariable    = "SIGHTMESH_CLUSTER_TABLE"    // Markdown file with the markers of the table; empty for none
)

// TestChart installs the chart on a cluster and performs the tasks of operators, one after
// the other.
func TestChart(t *testing.T) {
	s := newSuite(t)
	mesh := release{s, "mesh", "sightmesh"}
	s.step(t, "install", "`helm install --wait` until every pod is ready, on a node of 2 CPUs", mesh.testInstall)
	if t.Failed() {
		t.FailNow() // every other step needs the release
	}
	s.step(t, "helm-test", "`helm test`: images through the Service", mesh.testHelmTest)
	s.step(t, "ingress", "images through the Ingress: in requests, one of them of 8 MiB, and over WebSocket",
		mesh.testIngress)
	s.step(t, "trace", "Jaeger has the trace of a request, with all four services", mesh.testTrace)
	s.step(t, "policies", "the network policies, as rules of nftables", mesh.testPolicies)
	s.step(t, "upgrade", "`helm upgrade --wait` to other images, under load", mesh.testUpgrade)
	for _, component := range []string{"detect", "classify", "results", "ingress", "nats"} {
		s.step(t, "kill-"+component, "a pod of "+component+" killed under load, until all are ready again",
			func(t *testing.T, r *row) { mesh.testKill(t, r, component) })
	}
	s.step(t, "autoscaling", "KEDA: classify from 1 pod to 3 while images wait; back to 1", mesh.testAutoscaling)
	s.step(t, "second-release",
		"a second release in a namespace beside it, until it is ready; then `helm test` of both, and its end",
		mesh.testSecondRelease)
	s.step(t, "former-chart", "`helm upgrade` of a release of version 0.1.0; its results are still there",
		mesh.testOldChart)
	s.step(t, "scale-from-zero", "KEDA: detect and classify from 0 pods, one request to its result; back to 0",
		mesh.testScaleFromZero)
	s.step(t, "uninstall", "`helm uninstall` until only the volume of NATS is left", mesh.testUninstall)
	s.writeTable(t)
}

// meshValues are the values of the first release: the defaults with an Ingress and a
// Jaeger.
func meshValues() []string {
	return []string{
		"httpIngress.enabled=true",
		`httpIngress.annotations.nginx\.ingress\.kubernetes\.io/proxy-body-size=65m`,
		`httpIngress.annotations.nginx\.ingress\.kubernetes\.io/proxy-read-timeout=75`,
		`httpIngress.annotations.nginx\.ingress\.kubernetes\.io/proxy-request-buffering=off`,
		"jaeger.enabled=true",
	}
}

// smallValues are the values of a release that fits on the node beside another release.
func smallValues() []string {
	return []string{
		"ingress.replicas=1", "detect.replicas=1", "classify.replicas=1", "results.replicas=1",
		"ingress.resources.requests.cpu=20m", "detect.resources.requests.cpu=50m", "classify.resources.requests.cpu=50m",
		"nats.own.resources.requests.cpu=50m",
	}
}

// check sends a page and compares the codes of the result with the known ones.
func (s *suite) check(t *testing.T, l *load, p page) v1.Result {
	t.Helper()
	i, err := chaos.NewCopy("check", p.file, p.codes, 0, uint64(time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	path := "/v1/images?pipeline=" + p.pipeline
	status, content, err := l.request(http.MethodPost, path, i.File, "Content-Type", "image/png")
	if err != nil {
		t.Fatal(err)
	}
	var r v1.Result
	switch err := json.Unmarshal(content, &r); {
	case err != nil:
		t.Fatalf("got %d %s: %v", status, content, err)
	case status != http.StatusOK:
		t.Fatalf("got %d %s, want 200", status, content)
	}
	if p.codes == nil {
		return r
	}
	if err := i.Check(r); err != nil {
		t.Errorf("the result of %s: %v", p.pipeline, err)
	}
	return r
}

// testInstall also sets the known text of the pages.
func (r release) testInstall(t *testing.T, row *row) {
	cpus := r.kubectl(t, "get", "nodes", "--output=jsonpath={.items[*].status.allocatable.cpu}")
	if cpus != fmt.Sprint(nodeCPUs) {
		t.Errorf("the node has %s CPUs, want %d", cpus, nodeCPUs)
	}
	begin := time.Now()
	r.install(t, r.chart(), meshValues()...)
	row.elapsed = time.Since(begin)
	restarts := strings.Fields(r.get(t, "pods", "{.items[*].status.containerStatuses[*].restartCount}"))
	if slices.ContainsFunc(restarts, func(n string) bool { return n != "0" }) {
		t.Errorf("pods were restarted: %v", restarts)
	}
	for _, p := range []*page{&r.text, &r.long} {
		if p.codes = textsOf(r.check(t, newLoad(r.address()), *p)); len(p.codes) == 0 {
			t.Error("the result of the page has no text")
		}
	}
}

func (r release) testHelmTest(t *testing.T, row *row) {
	r.helm(t, "test", "--timeout=2m")
}

// testIngress sends images through nginx, which has the settings of the Ingress: in
// requests and as the frames of a session.
func (r release) testIngress(t *testing.T, row *row) {
	r.startNginx(t)
	host := r.get(t, "ingresses", "{.items[*].spec.rules[*].host}")
	l := newLoad("http://" + host)
	l.client.Transport = &http.Transport{DialContext: dialNginx}
	large := r.codes
	large.file = pad(large.file, 8<<20-4096)
	const small = 10
	for range small {
		l.send("through nginx", r.codes, false)
	}
	l.send("through nginx", large, false)
	row.count(l, l.settle(t, r.nats()))
	if row.failed > 0 {
		t.Errorf("%d requests failed: %q", row.failed, l.failures())
	}
	if row.accepted != small+1 {
		t.Errorf("%d images were accepted, want %d", row.accepted, small+1)
	}
	if err := r.sendFrames(t.Context(), "ws://"+host, l.client, small); err != nil {
		t.Error(err)
	}
}

// sendFrames sends frames over WebSocket, and reads their results.
func (s *suite) sendFrames(ctx context.Context, to string, client *http.Client, n int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	options := &websocket.DialOptions{HTTPClient: client}
	ws, _, err := websocket.Dial(ctx, to+"/v1/stream?pipeline=codes", options) //nolint:bodyclose // a session has no body
	if err != nil {
		return fmt.Errorf("open a session: %w", err)
	}
	defer ws.CloseNow() // the session was read to its end, or is broken
	for frame := range n {
		if err := ws.Write(ctx, websocket.MessageBinary, s.codes.file); err != nil {
			return fmt.Errorf("send frame %d: %w", frame, err)
		}
		var a v1.FrameOutcome
		if err := wsjson.Read(ctx, ws, &a); err != nil {
			return fmt.Errorf("read the result of frame %d: %w", frame, err)
		}
		if a.Result == nil {
			return fmt.Errorf("frame %d has no result: %+v", frame, a)
		}
		if got := textsOf(*a.Result); !slices.Equal(got, s.codes.codes) {
			return fmt.Errorf("frame %d has the codes %q, want %q", frame, got, s.codes.codes)
		}
	}
	return nil
}

// testTrace reads the trace of a page with text, which every service processes.
func (r release) testTrace(t *testing.T, row *row) {
	id := r.check(t, newLoad(r.address()), r.text).TraceID
	url := fmt.Sprintf("http://%s-jaeger.%s:16686/api/traces/%s", r.name, r.namespace, id)
	want := []string{"sightmesh-classify", "sightmesh-detect", "sightmesh-ingress", "sightmesh-results"}
	eventually.Succeeds(t, time.Minute, func() error {
		services, err := tracedServices(t.Context(), url)
		if err == nil && !slices.Equal(services, want) {
			err = fmt.Errorf("the trace %s has spans of %v, want %v", id, services, want)
		}
		return err
	})
}

// tracedServices returns the names of the services with spans in a trace.
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
	var response struct {
		Data []struct {
			Processes map[string]struct{ ServiceName string }
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&response); err != nil {
		return nil, fmt.Errorf("read a trace: %w", err)
	}
	if len(response.Data) != 1 {
		return nil, fmt.Errorf("got %d traces, want 1", len(response.Data))
	}
	var names []string
	for _, p := range response.Data[0].Processes {
		names = append(names, p.ServiceName)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// testUpgrade replaces every pod of the services while clients send images. No request
// fails.
func (r release) testUpgrade(t *testing.T, row *row) {
	const next = "next"
	for _, component := range components {
		image := "sightmesh-" + component + ":"
		if err := r.kube.Tag(t.Context(), image+r.version, image+next); err != nil {
			t.Fatal(err)
		}
	}
	r.followLogs(t)
	l := startLoad(t, r.address(), r.mixedClients())
	begin := time.Now()
	r.upgrade(t, append(meshValues(), "image.tag="+next)...)
	r.awaitReady(t)
	row.elapsed = time.Since(begin)
	row.count(l, l.settle(t, r.nats()))
	if row.failed > 0 {
		t.Errorf("%d of %d requests failed: %q", row.failed, row.requests, l.failures())
	}
}

// testKill kills a pod with SIGKILL. Requests may fail. Every accepted job has exactly one
// outcome.
func (r release) testKill(t *testing.T, row *row, component string) {
	r.followLogs(t)
	l := startLoad(t, r.address(), r.mixedClients())
	victim := r.kubectl(t, "get", "pods", "--namespace="+r.namespace, r.selector(component),
		"--output=jsonpath={.items[0].metadata.name}")
	time.Sleep(2 * time.Second) // load before the fault
	begin := time.Now()
	if err := r.kube.Kill(t.Context(), r.namespace, victim); err != nil {
		t.Fatal(err)
	}
	r.awaitReady(t)
	row.elapsed = time.Since(begin)
	time.Sleep(2 * time.Second) // load after the fault
	row.count(l, l.settle(t, r.nats()))
}

// keda returns the values with which KEDA scales a service as fast as possible.
func keda(service string, values ...string) (all []string) {
	values = append(values, "enabled=true", "keda.enabled=true", "keda.pollingInterval=1", "keda.cooldownPeriod=5",
		"behavior.scaleDown.stabilizationWindowSeconds=5")
	for _, v := range values {
		all = append(all, service+".autoscaling."+v)
	}
	return all
}

// allowKEDA is the value that allows KEDA to read the monitoring port of NATS.
const allowKEDA = `networkPolicy.natsMonitoringFrom[0].namespaceSelector.matchLabels.kubernetes\.io/metadata\.name=keda`

// testAutoscaling runs a load of 40 clients and then stops it.
func (r release) testAutoscaling(t *testing.T, row *row) {
	r.startKEDA(t)
	r.upgrade(t, slices.Concat(meshValues(), keda("classify", "minReplicas=1", "maxReplicas=3"), []string{allowKEDA})...)
	r.kubectl(t, "wait", "--namespace="+r.namespace, "--for=condition=Ready", "--timeout=2m",
		"scaledobject/"+r.name+"-classify")
	r.awaitReplicas(t, "classify", 1)
	begin := time.Now()
	l := startLoad(t, r.address(), slices.Repeat([]client{{r.long, true, time.Second}}, 40))
	r.awaitReplicas(t, "classify", 3)
	up := time.Since(begin)
	row.count(l, l.settle(t, r.nats()))
	begin = time.Now()
	r.awaitReplicas(t, "classify", 1)
	row.elapsed = up
	row.text += fmt.Sprintf(" %.0f s after the last result", time.Since(begin).Seconds())
	if row.failed > 0 {
		t.Errorf("%d of %d requests failed: %q", row.failed, row.requests, l.failures())
	}
}

// testScaleFromZero sends one image to a pipeline without workers, and waits for its
// result in the request.
func (r release) testScaleFromZero(t *testing.T, row *row) {
	r.startKEDA(t)
	r.upgrade(t, slices.Concat(meshValues(), keda("detect", "minReplicas=0"), keda("classify", "minReplicas=0"),
		[]string{allowKEDA, "pipelines=testdata/cold.yaml"})...)
	atZero := func() {
		r.awaitReplicas(t, "detect", 0)
		r.awaitReplicas(t, "classify", 0)
	}
	atZero()
	l := newLoad(r.address())
	eventually.Succeeds(t, time.Minute, func() error {
		var list v1.Pipelines
		status, content, err := l.request(http.MethodGet, "/v1/pipelines", nil)
		if err == nil {
			err = json.Unmarshal(content, &list)
		}
		switch {
		case err != nil:
			return err
		case len(list.Pipelines) != 1:
			return fmt.Errorf("got %d %s, want one pipeline", status, content)
		case list.Pipelines[0].State != v1.PipelineCold:
			return fmt.Errorf("got %d %s, want a pipeline that is %s", status, content, v1.PipelineCold)
		}
		return nil
	})
	cold := r.long
	cold.pipeline = "cold"
	begin := time.Now()
	r.check(t, l, cold)
	row.elapsed = time.Since(begin)
	begin = time.Now()
	atZero()
	row.text += fmt.Sprintf(" %.0f s later", time.Since(begin).Seconds())
}

// testSecondRelease uses two releases at the same time, each with its own NATS.
func (r release) testSecondRelease(t *testing.T, row *row) {
	second := release{r.suite, "second", "sightmesh"}
	begin := time.Now()
	second.install(t, r.chart(), smallValues()...)
	row.elapsed = time.Since(begin)
	l := newLoad(second.address())
	id := r.check(t, l, r.codes).ID
	second.helm(t, "test", "--timeout=2m")
	r.helm(t, "test", "--timeout=2m")
	status, _, err := newLoad(r.address()).request(http.MethodGet, "/v1/images/"+id, nil)
	switch {
	case err != nil:
		t.Error(err)
	case status != http.StatusNotFound:
		t.Errorf("the status of the first release for a job of the second is %d, want 404", status)
	}
	second.testUninstall(t, row)
}

// oldCommit is the last commit of version 0.1.0, as in tools/scripts/upgrade.
const oldCommit = "9f6361e"

// testOldChart installs the chart of version 0.1.0 with the images of this version. It
// changes the lame_duck_duration to 30 s, because NATS rejects a shorter one.
func (r release) testOldChart(t *testing.T, row *row) {
	folder := t.TempDir()
	archive := exec.CommandContext(t.Context(), "sh", "-c",
		`git -C "$0" archive "$1" deploy/helm/sightmesh | tar x -C "$2"`, r.root, oldCommit, folder)
	if out, err := archive.CombinedOutput(); err != nil {
		t.Fatalf("read the chart of %s from the history: %v\n%s", oldCommit, err, out)
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
	old.install(t, chart, append(smallValues(), "image.tag="+r.version)...)
	l := newLoad(old.address())
	before := r.check(t, l, r.codes)
	begin := time.Now()
	old.upgrade(t, smallValues()...)
	old.awaitReady(t)
	row.elapsed = time.Since(begin)
	old.helm(t, "test", "--timeout=2m")
	status, content, err := l.request(http.MethodGet, "/v1/images/"+before.ID, nil)
	switch {
	case err != nil:
		t.Error(err)
	case status != http.StatusOK:
		t.Errorf("GET of the result from before the upgrade: %d %s, want 200", status, content)
	}
	old.testUninstall(t, row)
}

// testUninstall waits until only the claim of NATS and the objects of every namespace are
// left.
func (r release) testUninstall(t *testing.T, row *row) {
	kinds := strings.Fields(r.kubectl(t, "api-resources", "--namespaced", "--verbs=list", "--output=name"))
	inEveryNamespace := []string{"configmap/kube-root-ca.crt", "serviceaccount/default"}
	begin := time.Now()
	r.helm(t, "uninstall", "--wait", "--timeout=2m")
	eventually.Succeeds(t, 2*time.Minute, func() error {
		left := strings.Fields(r.kubectl(t, "get", strings.Join(kinds, ","), "--namespace="+r.namespace, "--output=name"))
		left = slices.DeleteFunc(left, func(name string) bool {
			return strings.HasPrefix(name, "event") || slices.Contains(inEveryNamespace, name)
		})
		if want := []string{"persistentvolumeclaim/data-" + r.name + "-nats-0"}; !slices.Equal(left, want) {
			return fmt.Errorf("namespace %s has %v, want %v", r.namespace, left, want)
		}
		return nil
	})
	row.elapsed = cmp.Or(row.elapsed, time.Since(begin))
}
