package send

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/connection"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"))
}

// folder makes files with their own names as content.
func folder(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range names {
		p := filepath.Join(dir, n)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(n), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFind_Files(t *testing.T) {
	t.Parallel()
	dir := folder(t, "frame10.jpg", "frame2.jpg", "frame1.PNG", "notes.txt", ".hidden.jpg", ".git/x.jpg", "b/frame3.webp", "list.tif")
	for name, tt := range map[string]struct {
		args  []string
		stdin string
		want  string
	}{
		"folder":       {[]string{dir}, "", "b/frame3.webp frame1.PNG frame2.jpg frame10.jpg list.tif"},
		"glob":         {[]string{filepath.Join(dir, "frame*.jpg")}, "", "frame2.jpg frame10.jpg"},
		"file":         {[]string{filepath.Join(dir, "notes.txt")}, "", "notes.txt"},
		"list":         {[]string{"-"}, filepath.Join(dir, "frame10.jpg") + "\n\n" + filepath.Join(dir, "frame2.jpg"), "frame10.jpg frame2.jpg"},
		"once":         {[]string{dir + "/frame2.jpg", dir}, "", "frame2.jpg b/frame3.webp frame1.PNG frame10.jpg list.tif"},
		"nothing here": {[]string{filepath.Join(dir, "nothing")}, "", "error"},
		"empty glob":   {[]string{filepath.Join(dir, "*.gif")}, "", "error"},
	} {
		images, err := find(t.Context(), tt.args, strings.NewReader(tt.stdin))
		var got []string
		for _, f := range images.files {
			rel, err := filepath.Rel(dir, f.path)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, rel)
		}
		if err != nil {
			got = []string{"error"}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %v (%v), want %s", name, got, err, tt.want)
		}
	}
}

func TestResume_ReadsOutcomes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "out")
	switch sent, err := readSent(path); {
	case err != nil:
		t.Errorf("without a file: %v, %v", sent, err)
	case len(sent) != 0:
		t.Errorf("without a file: %v, %v: %d sent, want 0", sent, err, len(sent))
	}
	whole := `{"file":"a","status":"done"}
{"file":"b","status":"failed","problem":{"code":"damaged"}}
{"file":"c","status":"failed","problem":{"code":"overloaded"}}
{"file":"d","status":"failed","error":"connection refused"}
{"file":"e","status":"failed","error":"x"}
{"file":"e","status":"done"}
`
	if err := os.WriteFile(path, []byte(whole+`{"file":"f","sta`), 0o600); err != nil {
		t.Fatal(err)
	}
	sent, err := readSent(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"a": true, "b": true, "c": false, "d": false, "e": true, "f": false} {
		if _, ok := sent[name]; ok != want {
			t.Errorf("%s: sent is %v", name, ok)
		}
	}
	switch left, err := os.ReadFile(path); {
	case err != nil:
		t.Errorf("the torn line is still there: %q, %v", left, err)
	case string(left) != whole:
		t.Errorf("the torn line is still there: %q, %v: string(left) %v, want %v", left, err, string(left), whole)
	}
	if err := os.WriteFile(path, []byte("a photo of mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readSent(path); err == nil {
		t.Error("goes on with a file that is something else")
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	for n := 1; n < 20; n++ {
		least := min(500*time.Millisecond<<(min(n, 10)-1), 30*time.Second)
		if d := delay(n, 0); d < least || d > least+least/4 {
			t.Errorf("after attempt %d: %v, want %v and up to a quarter more", n, d, least)
		}
	}
	if d := delay(1, 4*time.Second); d < 4*time.Second || d > 5*time.Second {
		t.Errorf("told to wait 4 s: %v", d)
	}
}

// TestLimit_ConvergesToCapacity plays meshes of so many lanes, which take an image in
// so many seconds: images over that wait.
func TestLimit_ConvergesToCapacity(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lanes   float64
		seconds float64
	}{{1, 0.5}, {2, 0.1}, {8, 0.05}, {40, 0.2}} {
		at, usual := 2.0, 0.0
		for range 200 {
			mean := tt.seconds * max(1, float64(int(at))/tt.lanes)
			at, usual = step(at, usual, mean)
		}
		if at < tt.lanes || at > 4*tt.lanes+8 {
			t.Errorf("%v lanes: ends at %.1f", tt.lanes, at)
		}
	}
}

func TestLimit_HalvesOncePerOverload(t *testing.T) {
	t.Parallel()
	l := newLimit(0, true)
	l.at = 64
	for range 10 { // all of them in flight together
		l.observe(time.Second, true)
	}
	if n := l.current(); n != 32 {
		t.Errorf("at %d, want 32", n)
	}
	fixed := newLimit(7, false)
	fixed.observe(time.Second, true)
	if n := fixed.current(); n != 7 {
		t.Errorf("a limit that was given is %d", n)
	}
}

// mesh plays what the hard cases need: an ingress that is busy, broken or slow.
type mesh struct {
	*httptest.Server
	mu    sync.Mutex
	posts map[string]int // by image
	keys  map[string]string
}

func newMesh(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, image string, n int)) *mesh {
	t.Helper()
	m := &mesh{posts: map[string]int{}, keys: map[string]string{}}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client is gone
		}
		image, key := string(body), r.Header.Get("Idempotency-Key")
		m.mu.Lock()
		m.posts[image]++
		n := m.posts[image]
		if old := m.keys[image]; image != "" && (key == "" || old != "" && old != key) {
			t.Errorf("%s has the key %q, and before %q", image, key, old)
		}
		m.keys[image] = key
		m.mu.Unlock()
		answer(w, r, image, n)
	}))
	t.Cleanup(m.Close)
	return m
}

func done(w http.ResponseWriter, id string) {
	json.NewEncoder(w).Encode(v1.Result{ID: id, Status: v1.Done, Regions: []v1.Region{}})
}

func problem(w http.ResponseWriter, code v1.Code, retryAfter string) {
	p := v1.NewProblem(code, "as ordered")
	if retryAfter != "" {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// command runs the sender and returns its outcomes by file, and its code.
func command(t *testing.T, ctx context.Context, cfg Config) (map[string]outcome, []string, int) { //nolint:revive // the test comes first
	t.Helper()
	if cfg.Attempts == 0 {
		cfg.Attempts = 5
	}
	if cfg.Concurrency == "" {
		cfg.Concurrency = "4"
	}
	var stdout bytes.Buffer
	if cfg.Out == "" {
		cfg.Out = "-"
	}
	err := Command(ctx, cfg, strings.NewReader(""), &stdout, t.Output())
	code := exit.Status(err)
	text := stdout.Bytes()
	if cfg.Out != "-" {
		if text, err = os.ReadFile(cfg.Out); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	out := map[string]outcome{}
	var order []string
	for line := range bytes.Lines(text) {
		var o outcome
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		name := filepath.Base(o.File)
		if _, twice := out[name]; twice {
			t.Errorf("%s has two outcomes", name)
		}
		out[name] = o
		order = append(order, name)
	}
	return out, order, code
}

func TestRetry_TransientErrors(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(w http.ResponseWriter, r *http.Request, image string, n int) {
		switch {
		case n > 1 || image == "good.jpg":
			done(w, image)
		case image == "busy.jpg":
			problem(w, v1.Overloaded, "1")
		case image == "noworker.jpg":
			problem(w, v1.NoWorker, "1")
		case image == "proxy.jpg":
			w.WriteHeader(http.StatusBadGateway)
		case image == "cut.jpg":
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("{"))
		case image == "hangup.jpg":
			panic(http.ErrAbortHandler)
		}
	})
	dir := folder(t, "good.jpg", "busy.jpg", "noworker.jpg", "proxy.jpg", "cut.jpg", "hangup.jpg")
	out, _, code := command(t, t.Context(), Config{URL: m.URL, Paths: []string{dir}})
	switch {
	case code != 0:
		t.Errorf("code %d, %d outcomes: code %v, want 0", code, len(out), code)
	case len(out) != 6:
		t.Errorf("code %d, %d outcomes: %d out, want 6", code, len(out), len(out))
	}
	for name, o := range out {
		want := 2
		if name == "good.jpg" {
			want = 1
		}
		if o.Attempts == 1 && name == "hangup.jpg" {
			o.Attempts = 2 // net/http itself repeats what has an Idempotency-Key, when the connection was not new
		}
		switch {
		case o.Status != v1.Done:
			t.Errorf("%s: %+v after %d posts, want %d: status %v, want done", name, o, m.posts[name], want, o.Status)
		case o.Attempts != want:
			t.Errorf("%s: %+v after %d posts, want %d: attempts %v, want %v",
				name, o, m.posts[name], want, o.Attempts, want)
		case m.posts[name] != want:
			t.Errorf("%s: %+v after %d posts, want %d: m.posts[name] %v, want %v",
				name, o, m.posts[name], want, m.posts[name], want)
		}
	}
}

func TestRetry_NotForImageProblems(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, image string, _ int) {
		switch image {
		case "damaged.jpg":
			problem(w, v1.Damaged, "")
		case "forbidden.jpg":
			w.WriteHeader(http.StatusForbidden)
		default:
			done(w, image)
		}
	})
	dir := folder(t, "damaged.jpg", "forbidden.jpg", "good.jpg")
	failed := filepath.Join(t.TempDir(), "failed.txt")
	out, _, code := command(t, t.Context(), Config{URL: m.URL, Paths: []string{dir}, Failed: failed})
	switch {
	case code != exit.Partial:
		t.Errorf("code %d: %+v: code %v, want %v", code, out, code, exit.Partial)
	case out["damaged.jpg"].Problem.Code != v1.Damaged:
		t.Errorf(`code %d: %+v: out["damaged.jpg"].Problem.Code %v, want damaged`,
			code, out, out["damaged.jpg"].Problem.Code)
	case out["forbidden.jpg"].Error == "":
		t.Errorf(`code %d: %+v: no out["forbidden.jpg"].Error`, code, out)
	case out["good.jpg"].Status != v1.Done:
		t.Errorf(`code %d: %+v: out["good.jpg"].Status %v, want done`, code, out, out["good.jpg"].Status)
	}
	for name, n := range m.posts {
		if n != 1 {
			t.Errorf("%s was sent %d times", name, n)
		}
	}
	list, err := os.ReadFile(failed)
	if err != nil {
		t.Fatal(err)
	}
	switch names := strings.Fields(string(list)); {
	case len(names) != 2:
		t.Errorf("failed: %q: %d names, want 2", list, len(names))
	case !slices.Contains(names, filepath.Join(dir, "damaged.jpg")):
		t.Errorf(`failed: %q: want slices.Contains(names, filepath.Join(dir, "damaged.jpg"))`, list)
	}
}

func TestCommand_AllFail(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	dir := folder(t, "a.jpg", "b.jpg")
	out, _, code := command(t, t.Context(), Config{URL: "http://" + l.Addr().String(), Paths: []string{dir}, Attempts: 2})
	switch {
	case code != exit.Failure:
		t.Errorf("code %d: %+v: code %v, want %v", code, out, code, exit.Failure)
	case out["a.jpg"].Attempts != 2:
		t.Errorf(`code %d: %+v: out["a.jpg"].Attempts %v, want 2`, code, out, out["a.jpg"].Attempts)
	case out["a.jpg"].Error == "":
		t.Errorf(`code %d: %+v: no out["a.jpg"].Error`, code, out)
	}
}

func TestCommand_Usage(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"no paths": {}, "concurrency": {Paths: []string{"x"}, Concurrency: "many"}, "resume of stdout": {Paths: []string{"x"}, Resume: true},
		"no web address": {Paths: []string{"x"}, URL: "ftp://x"}, "no pipeline over NATS": {Paths: []string{"x"}, NATS: connection.Config{URL: "nats://127.0.0.1:1"}},
	} {
		if _, _, code := command(t, t.Context(), cfg); code != exit.Usage {
			t.Errorf("%s: code %d", name, code)
		}
	}
	if _, _, code := command(t, t.Context(), Config{URL: "http://127.0.0.1:1", Paths: []string{"/nothing/here"}}); code != exit.Failure {
		t.Errorf("a path that is not there: code %d", code)
	}
}

func TestDeliver_ResultAfterTheWait(t *testing.T) {
	t.Parallel()
	var polls atomic.Int64
	m := newMesh(t, func(w http.ResponseWriter, r *http.Request, _ string, _ int) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusAccepted)
			json.NewEncoder(w).Encode(v1.Result{ID: "j1", Status: v1.Queued})
			return
		}
		switch {
		case r.URL.Path != "/v1/images/j1":
			t.Errorf(`asks %s: URL.Path %q, want "/v1/images/j1"`, r.URL, r.URL.Path)
		case r.URL.Query().Get("wait") == "":
			t.Errorf(`asks %s: no URL.Query().Get("wait")`, r.URL)
		}
		if polls.Add(1) < 3 {
			json.NewEncoder(w).Encode(v1.Result{ID: "j1", Status: v1.Running})
			return
		}
		done(w, "j1")
	})
	out, _, code := command(t, t.Context(), Config{URL: m.URL, Paths: []string{folder(t, "a.jpg")}})
	switch {
	case code != 0:
		t.Errorf("code %d, %+v after %d polls and %d posts: code %v, want 0",
			code, out, polls.Load(), m.posts["a.jpg"], code)
	case out["a.jpg"].Status != v1.Done:
		t.Errorf(`code %d, %+v after %d polls and %d posts: out["a.jpg"].Status %v, want done`,
			code, out, polls.Load(), m.posts["a.jpg"], out["a.jpg"].Status)
	case polls.Load() != 3:
		t.Errorf("code %d, %+v after %d polls and %d posts: polls.Load() %v, want 3",
			code, out, polls.Load(), m.posts["a.jpg"], polls.Load())
	case m.posts["a.jpg"] != 1:
		t.Errorf(`code %d, %+v after %d polls and %d posts: m.posts["a.jpg"] %v, want 1`,
			code, out, polls.Load(), m.posts["a.jpg"], m.posts["a.jpg"])
	}
}

func TestCommand_Ordered(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, image string, _ int) {
		time.Sleep(time.Duration(len(image)*31%17) * time.Millisecond)
		done(w, image)
	})
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprint("frame", i, ".jpg"))
	}
	_, order, code := command(t, t.Context(), Config{URL: m.URL, Paths: []string{folder(t, names...)}, Ordered: true, Concurrency: "8"})
	switch {
	case code != 0:
		t.Errorf("code %d, order %v: code %v, want 0", code, order, code)
	case !slices.Equal(order, names):
		t.Errorf("code %d, order %v: want slices.Equal(order, names)", code, order)
	}
}

func TestCommand_AutoSendsAllFiles(t *testing.T) {
	t.Parallel()
	lanes := make(chan struct{}, 4)
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, image string, _ int) {
		lanes <- struct{}{}
		time.Sleep(2 * time.Millisecond)
		<-lanes
		done(w, image)
	})
	var names []string
	for i := range 300 {
		names = append(names, fmt.Sprint(i, ".jpg"))
	}
	out, _, code := command(t, t.Context(), Config{URL: m.URL, Paths: []string{folder(t, names...)}, Concurrency: "auto"})
	switch {
	case code != 0:
		t.Errorf("code %d, %d outcomes: code %v, want 0", code, len(out), code)
	case len(out) != 300:
		t.Errorf("code %d, %d outcomes: %d out, want 300", code, len(out), len(out))
	}
}

// TestCommand_ResumesAfterInterrupt: a run is interrupted while images are in flight
// and others wait to be tried again; what follows sends the rest and no
// image twice.
func TestCommand_ResumesAfterInterrupt(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	var healed atomic.Bool
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, image string, _ int) {
		if !healed.Load() && strings.HasPrefix(image, "busy") {
			problem(w, v1.Overloaded, "3600")
			return
		}
		if image == "20.jpg" {
			interrupt()
			time.Sleep(50 * time.Millisecond)
		}
		done(w, image)
	})
	names := []string{"busy.jpg"}
	for i := range 60 {
		names = append(names, fmt.Sprint(i, ".jpg"))
	}
	dir := folder(t, names...)
	cfg := Config{URL: m.URL, Paths: []string{dir}, Out: filepath.Join(t.TempDir(), "out.ndjson")}
	first, _, code := command(t, ctx, cfg)
	switch {
	case code != exit.Interrupted:
		t.Fatalf("interrupted: code %d with %d outcomes: code %v, want %v", code, len(first), code, exit.Interrupted)
	case len(first) >= len(names):
		t.Fatalf("interrupted: code %d with %d outcomes: %d first, want < len(names)", code, len(first), len(first))
	case first["20.jpg"].Status != v1.Done:
		t.Fatalf(`interrupted: code %d with %d outcomes: first["20.jpg"].Status %v, want done`,
			code, len(first), first["20.jpg"].Status)
	}
	healed.Store(true)
	cfg.Resume = true
	all, _, code := command(t, t.Context(), cfg)
	switch {
	case code != 0:
		t.Errorf("resumed: code %d with %d outcomes of %d: code %v, want 0", code, len(all), len(names), code)
	case len(all) != len(names):
		t.Errorf("resumed: code %d with %d outcomes of %d: %d all, want %v",
			code, len(all), len(names), len(all), len(names))
	}
	for _, name := range names {
		want := 1
		if name == "busy.jpg" {
			want = m.posts[name] // it was refused before
		}
		switch {
		case all[name].Status != v1.Done:
			t.Errorf("%s: %+v after %d posts: all[name].Status %v, want done",
				name, all[name], m.posts[name], all[name].Status)
		case m.posts[name] != want:
			t.Errorf("%s: %+v after %d posts: m.posts[name] %v, want %v",
				name, all[name], m.posts[name], m.posts[name], want)
		}
	}
	if _, err := os.Stat(cfg.Out + ".run"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run is not ended: %v", err)
	}
}

func TestCommand_OutcomesCannotBeWritten(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, image string, _ int) { done(w, image) })
	cfg := Config{URL: m.URL, Paths: []string{folder(t, "a.jpg", "b.jpg")}, Concurrency: "1", Priority: "interactive", Attempts: 1, Out: "-"}
	if err := Command(t.Context(), cfg, nil, full{}, t.Output()); exit.Status(err) != exit.Failure {
		t.Errorf("got %v", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }
