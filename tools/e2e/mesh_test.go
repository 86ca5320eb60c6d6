package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// root is the repository, found by its go.work.
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
			t.Fatal("no go.work above the test")
		}
		dir = parent
	}
}

func binary(t testing.TB, name string) string {
	t.Helper()
	p := filepath.Join(root(t), "bin", name)
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return p
}

// realdata reads a file of the real photos, or skips the test.
func realdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), "..", "shared", "realdata", name))
	if err != nil {
		t.Skipf("no real data: %v", err)
	}
	return b
}

// mesh is a running sightmesh.
type mesh struct {
	http   []string // addresses of every ingress
	nats   string
	cmd    *exec.Cmd
	stderr *lines
	exited chan error
}

// lines collects what a process writes, line by line.
type lines struct {
	mu   sync.Mutex
	all  []string
	more chan struct{} // closed and replaced at each line
}

func newLines(r io.Reader) *lines {
	l := &lines{more: make(chan struct{})}
	go func() { // ends with the process
		s := bufio.NewScanner(r)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			l.mu.Lock()
			l.all = append(l.all, s.Text())
			close(l.more)
			l.more = make(chan struct{})
			l.mu.Unlock()
		}
	}()
	return l
}

// find waits for a line that matches and returns its submatches.
func (l *lines) find(t testing.TB, re *regexp.Regexp, within time.Duration) []string {
	t.Helper()
	m, ok := l.search(re, within)
	if !ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		t.Fatalf("no line like %q within %v in:\n%s", re, within, strings.Join(l.all, "\n"))
	}
	return m
}

func (l *lines) search(re *regexp.Regexp, within time.Duration) ([]string, bool) {
	timeout := time.After(within)
	for from := 0; ; {
		l.mu.Lock()
		all, more := l.all[from:], l.more
		from = len(l.all)
		l.mu.Unlock()
		for _, s := range all {
			if m := re.FindStringSubmatch(s); m != nil {
				return m, true
			}
		}
		select {
		case <-more:
		case <-timeout:
			return nil, false
		}
	}
}

// matching returns all lines that match so far.
func (l *lines) matching(re *regexp.Regexp) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, s := range l.all {
		if re.MatchString(s) {
			out = append(out, s)
		}
	}
	return out
}

var readyLine = regexp.MustCompile(`^ready http=(\S+) nats=(\S+)$`)

// start runs `sightmesh up` on free ports and waits until it is ready. It is
// stopped, gently, when the test ends.
func start(t testing.TB, env []string, args ...string) *mesh {
	t.Helper()
	args = append([]string{"up", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--data", t.TempDir(),
		"--log", "json", "--sample", "none", "--lanes", "2"}, args...)
	m := &mesh{cmd: exec.Command(binary(t, "sightmesh"), args...), exited: make(chan error, 1)}
	m.cmd.Env = append(os.Environ(), env...)
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := m.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := newLines(stdout)
	m.stderr = newLines(stderr)
	go func() { m.exited <- m.cmd.Wait() }()
	t.Cleanup(func() { m.stop(t) })
	found, ok := out.search(readyLine, 90*time.Second)
	if !ok {
		t.Fatalf("the mesh is not ready:\n%s", strings.Join(m.stderr.matching(regexp.MustCompile(``)), "\n"))
	}
	m.http, m.nats = []string{found[1]}, found[2]
	return m
}

// stop ends the mesh as Ctrl-C does and checks that it ended well.
func (m *mesh) stop(t testing.TB) {
	if m.exited == nil {
		return
	}
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("stop the mesh: %v", err)
	}
	select {
	case err := <-m.exited:
		if err != nil {
			t.Errorf("the mesh ended with %v:\n%s", err, strings.Join(m.stderr.matching(regexp.MustCompile(`"level":"(WARN|ERROR)"|panic|goroutine`)), "\n"))
		}
	case <-time.After(60 * time.Second):
		t.Error("the mesh did not end within 60 s")
		m.cmd.Process.Kill()
		<-m.exited
	}
	m.exited = nil
}

// join starts one more instance of a service by hand, as an operator would.
func (m *mesh) join(t testing.TB, service string, args ...string) *exec.Cmd {
	t.Helper()
	if service == "detect" || service == "classify" {
		args = append(args, "--lanes", "1")
	}
	if service == "ingress" {
		args = append(args, "--http", "127.0.0.1:0", "--old-routes")
	}
	cmd := exec.Command(binary(t, service), append(args, "--nats", m.nats)...)
	cmd.Env = m.cmd.Env
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log := newLines(stderr)
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	admin := log.find(t, regexp.MustCompile(`"name":"admin","addr":"([^"]+)"`), 30*time.Second)[1]
	if service == "ingress" {
		m.http = append(m.http, "http://"+log.find(t, regexp.MustCompile(`"name":"http","addr":"([^"]+)"`), 30*time.Second)[1])
	}
	eventually(t, 60*time.Second, func() error {
		res, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s is not ready: %s", service, res.Status)
		}
		return nil
	})
	return cmd
}

// eventually tries until f returns nil.
func eventually(t testing.TB, within time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// answer is what came back over HTTP.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	result  v1.Result
	problem v1.Problem
	took    time.Duration
}

func (a answer) String() string { return fmt.Sprintf("%d %.600s", a.status, a.body) }

// post sends a picture to one of the ingresses.
func (m *mesh) post(t testing.TB, query string, picture []byte, header ...string) answer {
	t.Helper()
	a, err := m.tryPost(query, picture, header...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var turn struct {
	sync.Mutex
	n int
}

func (m *mesh) base() string {
	turn.Lock()
	defer turn.Unlock()
	turn.n++
	return m.http[turn.n%len(m.http)]
}

func (m *mesh) tryPost(query string, picture []byte, header ...string) (answer, error) {
	req, err := http.NewRequest(http.MethodPost, m.base()+"/v1/images"+query, bytes.NewReader(picture))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	return do(req, header...)
}

func (m *mesh) get(t testing.TB, path string) answer {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, m.base()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := do(req)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var webClient = &http.Client{Timeout: 2 * time.Minute}

func do(req *http.Request, header ...string) (answer, error) {
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	begin := time.Now()
	res, err := webClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		return a, err
	}
	a.took = time.Since(begin)
	if err := checkDocumented(req, a); err != nil {
		return a, err
	}
	return a, a.decode()
}

// decode reads the body by its type.
func (a *answer) decode() error {
	switch a.header.Get("Content-Type") {
	case "application/problem+json":
		return json.Unmarshal(a.body, &a.problem)
	case "application/json":
		return json.Unmarshal(a.body, &a.result)
	}
	return nil
}

func (a answer) decoded(t testing.TB) answer {
	t.Helper()
	if err := a.decode(); err != nil {
		t.Fatalf("%v: %v", a, err)
	}
	return a
}

// done is a post that has to come back read.
func (m *mesh) done(t testing.TB, query string, picture []byte, header ...string) v1.Result {
	t.Helper()
	a := m.post(t, query, picture, header...)
	if a.status != http.StatusOK || a.result.Status != v1.Done {
		t.Fatalf("POST %s: %v", query, a)
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
