//go:build interop_clients

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// example is a program of docs/clients.
type example struct {
	file string // path below docs/clients
	job  string // name without extension: image, analyze, poll, events, report, session or bulk
}

// examples returns all programs of docs/clients.
func examples(t *testing.T) []example {
	t.Helper()
	folder := filepath.Join(root(t), "docs", "clients")
	var found []example
	for _, pattern := range []string{"go/*.go", "node/*.mjs", "python/*.py", "shell/*.sh"} {
		files, err := filepath.Glob(filepath.Join(folder, pattern))
		switch {
		case err != nil:
			t.Fatal(err)
		case len(files) == 0:
			t.Fatalf("docs/clients has no %s", pattern)
		}
		for _, file := range files {
			name, err := filepath.Rel(folder, file)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, example{name, strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))})
		}
	}
	return found
}

// usesNATS reports whether the first argument of the example is the URL of NATS.
func (e example) usesNATS() bool { return e.job == "analyze" || e.job == "bulk" }

// sendsSeveralImages reports whether the example sends several images.
func (e example) sendsSeveralImages() bool {
	return slices.Contains([]string{"report", "session", "bulk"}, e.job)
}

// run runs the example with the pipeline text, as the comment in its first line says.
func (e example) run(t *testing.T, address string, images ...string) (stdout, stderr string, err error) {
	t.Helper()
	return e.runWith(t, address, "text", images...)
}

// runWith is run with any pipeline.
func (e example) runWith(t *testing.T, address, pipeline string, images ...string) (stdout, stderr string, err error) {
	t.Helper()
	file := filepath.Join(root(t), "docs", "clients", e.file)
	cmd := exec.CommandContext(t.Context(), file)
	switch filepath.Ext(file) {
	case ".go":
		cmd = exec.CommandContext(t.Context(), "go", "run", file)
	case ".mjs":
		cmd = exec.CommandContext(t.Context(), "node", file)
	case ".py":
		cmd = exec.CommandContext(t.Context(), "python3", file)
	}
	cmd.Dir = root(t) // the workspace has the modules of the examples in Go
	cmd.Args = append(append(cmd.Args, address, pipeline), images...)
	bin := filepath.Join(root(t), "bin")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(bin, "python-clients"),
		"PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	if version, _ := exec.Command("node", "--version").Output(); bytes.HasPrefix(version, []byte("v18.")) {
		cmd.Env = append(cmd.Env, "NODE_OPTIONS=--experimental-global-webcrypto") // on by default from Node.js 20 on
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// faultyProxy is a proxy before an ingress. It rejects the first request that sends an image or opens a session, as an
// overloaded mesh does. It cuts the first event stream after its first event, and the first session after its first
// outcome.
type faultyProxy struct {
	*httptest.Server
	mu     sync.Mutex
	keys   []string // Idempotency-Key of the requests that send an image or open a session
	events []string // Last-Event-ID of the requests for events
}

func newFaultyProxy(t *testing.T, target string) *faultyProxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &faultyProxy{}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Host = r.In.Host },
		FlushInterval: -1, // for event streams
		ErrorLog:      log.New(io.Discard, "", 0),
		ModifyResponse: func(res *http.Response) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			switch body := res.Body.(type) {
			case io.ReadWriteCloser: // a session; the first one is the second request
				if len(p.keys) == 2 {
					res.Body = &cutSession{ReadWriteCloser: body}
				}
			default:
				if len(p.events) == 1 && strings.HasSuffix(res.Request.URL.Path, "/events") {
					res.Body = &cutStream{ReadCloser: body}
				}
			}
			return nil
		},
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.record(r) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			// The client may have disconnected.
			_ = json.NewEncoder(w).Encode(v1.NewProblem(v1.Overloaded, "the expected queue wait is too long"))
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// record records a request, and reports whether to reject it.
func (p *faultyProxy) record(r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/events") {
		p.events = append(p.events, r.Header.Get("Last-Event-ID"))
	}
	if r.Method == http.MethodPost || r.Header.Get("Upgrade") != "" {
		p.keys = append(p.keys, r.Header.Get("Idempotency-Key"))
		return len(p.keys) == 1
	}
	return false
}

// check checks that an example has retried its first request with the same key, and has reconnected after its stream or
// session was cut.
func (p *faultyProxy) check(t *testing.T, e example) {
	t.Helper()
	if len(p.keys) < 2 {
		t.Fatalf("%d requests came, want another one after the first was rejected", len(p.keys))
	}
	if e.job == "session" {
		if len(p.keys) < 3 {
			t.Errorf("%d requests for a session came, want another one after the session was cut", len(p.keys))
		}
		return
	}
	if p.keys[0] == "" {
		t.Error("the first request has no key")
	}
	if p.keys[1] != p.keys[0] {
		t.Errorf("the retry has the key %q, want %q as the first request", p.keys[1], p.keys[0])
	}
	if cut := e.job == "events" || e.job == "report"; cut && len(p.events) < 2 {
		t.Errorf("%d requests for events came, want another one after the stream was cut", len(p.events))
	}
}

// cutSession breaks after the first message of the mesh.
type cutSession struct {
	io.ReadWriteCloser
	first io.Reader // reads the rest of the first message
}

func (c *cutSession) Read(b []byte) (int, error) {
	if c.first == nil {
		r := bufio.NewReader(c.ReadWriteCloser)
		header, err := r.Peek(4) // of a WebSocket frame: byte 1 is the length, or 126 when bytes 2 and 3 are the length
		if err != nil {
			return 0, err
		}
		size := 2 + int64(header[1])
		if header[1] == 126 {
			size = 4 + int64(header[2])<<8 + int64(header[3])
		}
		c.first = io.LimitReader(r, size)
	}
	n, err := c.first.Read(b)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// cutStream breaks after its first event.
type cutStream struct {
	io.ReadCloser
	cut bool
}

func (c *cutStream) Read(b []byte) (int, error) {
	if c.cut {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(b)
	if end := bytes.Index(b[:n], []byte("\n\n")); end >= 0 {
		c.cut = true
		return end + 2, nil
	}
	return n, err
}

// TestClients_Examples runs each program of docs/clients against a mesh. Over HTTP the first request is rejected, and
// connections break.
func TestClients_Examples(t *testing.T) {
	m := start(t, nil)
	folder := t.TempDir()
	page, damaged := filepath.Join(folder, "page.png"), filepath.Join(folder, "a damaged page.png")
	image := samplePage(t)
	for file, content := range map[string][]byte{page: image, damaged: image[:len(image)/2]} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	result := m.postDone(t, "?pipeline=text", image)
	checkPage(t, result)
	var regions strings.Builder
	for _, r := range result.Regions {
		fmt.Fprintln(&regions, r.Box.X, r.Box.Y, r.Box.Width, r.Box.Height, r.Text)
	}
	problem := m.post(t, "?pipeline=text", image[:len(image)/2]).problem
	if problem.Code != v1.Damaged {
		t.Fatalf("half a page has the problem %v, want %s", problem, v1.Damaged)
	}

	for _, e := range examples(t) {
		t.Run(e.file, func(t *testing.T) {
			address := m.nats
			if !e.usesNATS() {
				proxy := newFaultyProxy(t, m.base())
				address = proxy.URL
				defer proxy.check(t, e)
			}
			if e.sendsSeveralImages() {
				checkMany(t, e, address, []string{page, damaged, page}, len(result.Regions), problem.Detail)
				return
			}
			stdout, stderr, err := e.run(t, address, page)
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr)
			}
			want := regions.String()
			if e.job == "events" {
				var ok bool
				if stdout, ok = strings.CutPrefix(stdout, "accepted\n"); !ok {
					t.Errorf("the first event is not accepted:\n%s", stdout)
				}
				_, stdout, _ = strings.Cut(stdout, "done\n")
			}
			if stdout != want {
				t.Errorf("it prints\n%s\nwant\n%s", stdout, want)
			}
			stdout, stderr, err = e.run(t, address, damaged)
			if err == nil {
				t.Errorf("no error for a damaged image, and it prints %s", stdout)
			}
			if want := "damaged: " + problem.Detail; !strings.Contains(stderr, want) {
				t.Errorf("standard error has %q, want %q in it", stderr, want)
			}
		})
	}
}

// checkMany runs an example that sends several images, the second of which is damaged.
func checkMany(t *testing.T, e example, address string, images []string, regions int, detail string) {
	t.Helper()
	stdout, stderr, err := e.run(t, address, images...)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	names := images
	if e.job == "session" {
		names = []string{"0", "1", "2"}
	}
	want := fmt.Sprintf("%s done %d regions\n%s failed damaged: %s\n%s done %d regions\n",
		names[0], regions, names[1], detail, names[2], regions)
	if stdout != want {
		t.Errorf("it prints\n%s\nwant\n%s\nstandard error has\n%s", stdout, want, stderr)
	}
}

// TestClients_BulkOfAnUnknownPipeline checks that the example in Go fails and says why, instead of waiting for jobs
// that no worker processes.
func TestClients_BulkOfAnUnknownPipeline(t *testing.T) {
	m := start(t, nil)
	page := filepath.Join(t.TempDir(), "page.png")
	if err := os.WriteFile(page, samplePage(t), 0o600); err != nil {
		t.Fatal(err)
	}
	bulk := example{file: "go/bulk.go", job: "bulk"}
	stdout, stderr, err := bulk.runWith(t, m.nats, "nonesuch", page)
	if err == nil {
		t.Errorf("no error, and it prints %s", stdout)
	}
	if want := `no pipeline "nonesuch"`; !strings.Contains(stderr, want) {
		t.Errorf("standard error has %q, want %q in it", stderr, want)
	}
}

// TestClients_Table checks that docs/clients/README.md links to each program.
func TestClients_Table(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "clients", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, e := range examples(t) {
		if !strings.Contains(string(text), "]("+filepath.ToSlash(e.file)+")") {
			t.Errorf("README.md does not link to %s", e.file)
		}
		links++
	}
	if got := strings.Count(string(text), "]("); got < links {
		t.Errorf("README.md has %d links, want at least one for each of the %d programs", got, links)
	}
}
