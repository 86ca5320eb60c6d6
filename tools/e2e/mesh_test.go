package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
)

// root returns the root folder of the repository, which has a go.work.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no folder above the test has a go.work")
		}
		dir = parent
	}
}

// binFolderVariable names the environment variable with the folder of the
// programs. The default is bin.
const binFolderVariable = "SIGHTMESH_E2E_BIN"

func binary(t testing.TB, name string) string {
	t.Helper()
	p := filepath.Join(cmp.Or(os.Getenv(binFolderVariable), filepath.Join(root(t), "bin")), name)
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return p
}

// readRealdata reads a file of ../shared/realdata. It skips the test when there is
// no such file.
func readRealdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), "..", "shared", "realdata", name))
	if err != nil {
		t.Skipf("no real data: %v", err)
	}
	return b
}

// services are the names of the services of a mesh, in the order in which they
// stop.
var services = []string{"ingress", "detect", "classify", "results"}

// mesh is a running sightmesh.
type mesh struct {
	http   []string // base URLs of the ingresses
	nats   string   // URLs, separated by commas
	env    []string // environment of every service
	stderr *lines   // standard error of every service
	runner
}

// runner runs the services of a mesh: either `sightmesh up`, or a supervisor on
// NATS servers that the test has started.
type runner interface {
	// start runs the services and waits until they are ready. After stop or
	// kill, start runs them again on the same streams.
	start(t testing.TB, m *mesh)
	// stop ends the services with SIGTERM, as an operator does, and checks
	// that they ended without an error. It does nothing when they do not run.
	stop(t testing.TB)
	// kill ends the services and NATS with SIGKILL.
	kill(t testing.TB)
	// pids returns the process IDs of a service, without instances that join
	// has started.
	pids(t testing.TB, service string) []int
}

// generousLimits returns an environment of a mesh in which the limits of lanes and
// the wait for a result only end what hangs, because a busy machine exceeds the
// defaults. It has the built-in pipelines; the flag --pipelines replaces them.
func generousLimits(t testing.TB) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pipelines.yaml")
	generous := stageTimeout.ReplaceAll(pipeline.BuiltInFile(), []byte("timeout: 1m"))
	if err := os.WriteFile(file, generous, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"SIGHTMESH_PIPELINES=" + file, "SIGHTMESH_LANE_START=1m", "SIGHTMESH_WAIT=1m"}
}

var stageTimeout = regexp.MustCompile(`timeout: \d+s`)

// startMesh starts a mesh and stops it when the test ends.
func startMesh(t testing.TB, r runner, env []string) *mesh {
	t.Helper()
	m := &mesh{env: slices.Concat(generousLimits(t), env), stderr: newLines(), runner: r}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("warnings and errors of the services:\n%s", strings.Join(m.stderr.matchingLines(warningLine), "\n"))
		}
	})
	t.Cleanup(func() { m.stop(t) })
	m.start(t, m)
	return m
}

// restart runs the services again after stop or kill, on the same streams.
func (m *mesh) restart(t testing.TB) {
	t.Helper()
	m.start(t, m)
}

var readyLine = regexp.MustCompile(`^ready http=(\S+) nats=(\S+)$`)

// start runs `sightmesh up` on free ports and waits until it is ready. The mesh
// is stopped with SIGTERM when the test ends.
func start(t testing.TB, env []string, args ...string) *mesh {
	t.Helper()
	args = append([]string{"up", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--data", t.TempDir(),
		"--log", "json", "--sample", "none", "--lanes", "2"}, args...)
	return startMesh(t, &upRunner{args: args}, env)
}

// upRunner runs `sightmesh up`.
type upRunner struct {
	args []string
	up   *process // nil when it does not run
	log  *lines
	out  *lines // its standard output
}

func (u *upRunner) start(t testing.TB, m *mesh) {
	t.Helper()
	cmd := exec.Command(binary(t, "sightmesh"), u.args...)
	cmd.Env = append(os.Environ(), m.env...)
	u.out = newLines()
	cmd.Stdout, cmd.Stderr = u.out.writer(), m.stderr.writer()
	p, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	u.up, u.log = p, m.stderr
	found, ok := u.out.search(readyLine, 90*time.Second)
	if !ok {
		t.Fatalf("the mesh is not ready:\n%s", m.stderr)
	}
	m.http, m.nats = []string{found[1]}, found[2]
}

func (u *upRunner) stop(t testing.TB) {
	t.Helper()
	if u.up == nil {
		return
	}
	if err := u.up.stop(t); err != nil {
		t.Errorf("the mesh ended with %v:\n%s", err, strings.Join(u.log.matchingLines(warningLine), "\n"))
	}
	u.up = nil
}

func (u *upRunner) kill(t testing.TB) {
	t.Helper()
	u.up.kill(t) // its children die with it
	u.up = nil
}

func (u *upRunner) pids(t testing.TB, service string) []int {
	t.Helper()
	return children(t, u.up.cmd.Process.Pid)[service]
}

// join starts one more instance of a service, as an operator does.
func (m *mesh) join(t testing.TB, service string, args ...string) {
	t.Helper()
	if service == "detect" || service == "classify" {
		args = append(args, "--lanes", "1")
	}
	if service == "ingress" {
		args = append(args, "--http", "127.0.0.1:0", "--old-routes")
	}
	cmd := exec.Command(binary(t, service), append(args, "--nats", m.nats)...)
	cmd.Env = append(os.Environ(), m.env...)
	log := newLines()
	cmd.Stderr = log.writer()
	p, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(t) })
	eventually.Succeeds(t, 90*time.Second, func() error { return ready(log) })
	if service == "ingress" {
		m.http = append(m.http, "http://"+log.lastSubmatch(httpLine)[1])
	}
}

// These patterns match log lines of a service with its listen addresses.
var (
	adminLine = regexp.MustCompile(`"name":"admin","addr":"([^"]+)"`)
	httpLine  = regexp.MustCompile(`"name":"http","addr":"([^"]+)"`)
)

// ready returns nil when the service with this log is ready, and otherwise why it
// is not.
func ready(log *lines) error {
	admin := log.lastSubmatch(adminLine)
	if admin == nil {
		return errors.New("the service does not listen yet")
	}
	res, err := http.Get("http://" + admin[1] + "/readyz")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the service is not ready: %s", res.Status)
	}
	return nil
}

// response is an HTTP response that was read completely.
type response struct {
	status  int
	header  http.Header
	body    []byte
	result  v1.Result
	problem v1.Problem
	took    time.Duration
}

func (a response) String() string { return fmt.Sprintf("%d %.600s", a.status, a.body) }

// post sends an image to one of the ingresses, to each in turn, and again while a mesh on a busy machine rejects it.
func (m *mesh) post(t testing.TB, query string, image []byte, header ...string) response {
	t.Helper()
	var a response
	eventually.Succeeds(t, responseTimeout, func() (err error) {
		if a, err = m.tryPost(query, image, header...); err != nil {
			t.Fatal(err)
		}
		if a.problem.Code == v1.Overloaded { // the machine is busy
			return pendingError{a}
		}
		return nil
	})
	return a
}

var nextIngress struct {
	sync.Mutex
	n int
}

func (m *mesh) base() string {
	nextIngress.Lock()
	defer nextIngress.Unlock()
	nextIngress.n++
	return m.http[nextIngress.n%len(m.http)]
}

func (m *mesh) tryPost(query string, image []byte, header ...string) (response, error) {
	req, err := http.NewRequest(http.MethodPost, m.base()+"/v1/images"+query, bytes.NewReader(image))
	if err != nil {
		return response{}, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	return doRequest(req, header...)
}

func (m *mesh) get(t testing.TB, path string) response {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, m.base()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := doRequest(req)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var webClient = &http.Client{Timeout: 2 * time.Minute}

func doRequest(req *http.Request, header ...string) (response, error) {
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	a, err := exchange(webClient, req)
	if err != nil {
		return a, err
	}
	return a, checkDocumented(req, a)
}

// exchange makes a request and reads its response.
func exchange(client *http.Client, req *http.Request) (response, error) {
	begin := time.Now()
	res, err := client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	a := response{status: res.StatusCode, header: res.Header}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		return a, err
	}
	a.took = time.Since(begin)
	return a, a.decode()
}

// decode parses the body according to its Content-Type.
func (a *response) decode() error {
	switch a.header.Get("Content-Type") {
	case "application/problem+json":
		return json.Unmarshal(a.body, &a.problem)
	case "application/json":
		return json.Unmarshal(a.body, &a.result)
	}
	return nil
}

func (a response) mustDecode(t testing.TB) response {
	t.Helper()
	if err := a.decode(); err != nil {
		t.Fatalf("%v: %v", a, err)
	}
	return a
}

// postDone posts an image and returns its result. The job must be done.
func (m *mesh) postDone(t testing.TB, query string, image []byte, header ...string) v1.Result {
	t.Helper()
	a := m.post(t, query, image, header...)
	switch {
	case a.status != http.StatusOK:
		t.Fatalf("POST %s: %v: status %v, want 200", query, a, a.status)
	case a.result.Status != v1.Done:
		t.Fatalf("POST %s: %v: status %v, want done", query, a, a.result.Status)
	}
	return a.result
}

func (m *mesh) connect(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(m.nats)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

var serviceDied = regexp.MustCompile(`service died`)
