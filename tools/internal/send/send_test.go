package send

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"))
}

// folder returns a folder with files. The content of a file is its name.
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
	dir := folder(t, "frame10.jpg", "frame2.jpg", "frame1.PNG", "notes.txt", ".hidden.jpg", ".git/x.jpg",
		"b/frame3.webp", "list.tif")
	for name, tt := range map[string]struct {
		args  []string
		stdin string
		want  string
	}{
		"folder": {[]string{dir}, "", "b/frame3.webp frame1.PNG frame2.jpg frame10.jpg list.tif"},
		"glob":   {[]string{filepath.Join(dir, "frame*.jpg")}, "", "frame2.jpg frame10.jpg"},
		"file":   {[]string{filepath.Join(dir, "notes.txt")}, "", "notes.txt"},
		"list": {[]string{"-"}, filepath.Join(dir, "frame10.jpg") + "\n\n" + filepath.Join(dir, "frame2.jpg"),
			"frame10.jpg frame2.jpg"},
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
		t.Errorf("without a file: %v", err)
	case len(sent) != 0:
		t.Errorf("without a file: sent is %v, want nothing", sent)
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
			t.Errorf("%s: sent is %v, want %v", name, ok, want)
		}
	}
	switch left, err := os.ReadFile(path); {
	case err != nil:
		t.Error(err)
	case string(left) != whole:
		t.Errorf("the file is %q, want %q without the incomplete line", left, whole)
	}
	if err := os.WriteFile(path, []byte("a photo of mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readSent(path); err == nil {
		t.Error("readSent of another kind of file: no error")
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	for n := 1; n < 20; n++ {
		least := min(500*time.Millisecond<<(min(n, 10)-1), 30*time.Second)
		if d := delay(n, 0); d < least || d > least+least/4 {
			t.Errorf("the delay after attempt %d is %v, want %v and at most a quarter more", n, d, least)
		}
	}
	if d := delay(1, 4*time.Second); d < 4*time.Second || d > 5*time.Second {
		t.Errorf("the delay with Retry-After 4 s is %v, want 4 s to 5 s", d)
	}
}

// TestLimit_ConvergesToCapacity simulates meshes with a number of lanes and a time for
// each image. Images wait while all lanes are busy.
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
			t.Errorf("%v lanes: the limit is %.1f, want %v to %v", tt.lanes, at, tt.lanes, 4*tt.lanes+8)
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
		t.Errorf("the limit is %d, want 32", n)
	}
	fixed := newLimit(7, false)
	fixed.observe(time.Second, true)
	if n := fixed.current(); n != 7 {
		t.Errorf("the fixed limit is %d, want 7", n)
	}
}

// mesh is a fake ingress that can be busy, broken or slow.
type mesh struct {
	*httptest.Server
	mu    sync.Mutex
	posts map[string]int // by image
	keys  map[string]string
}

// newMesh starts a mesh. respond gets the image and the number of its request.
func newMesh(t *testing.T, respond func(w http.ResponseWriter, r *http.Request, image string, n int)) *mesh {
	t.Helper()
	m := &mesh{posts: map[string]int{}, keys: map[string]string{}}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has disconnected
		}
		image, key := string(body), r.Header.Get("Idempotency-Key")
		m.mu.Lock()
		m.posts[image]++
		n := m.posts[image]
		switch old, ok := m.keys[image]; {
		case image == "": // a request without an image needs no key
		case key == "":
			t.Errorf("%s has no key", image)
		case ok && key != old:
			t.Errorf("%s has the key %q, want %q as before", image, key, old)
		}
		m.keys[image] = key
		m.mu.Unlock()
		respond(w, r, image, n)
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

// command runs the sender and returns its outcomes by file, the files in the order of
// their outcomes, and the exit code.
//
//nolint:revive // the test comes first
func command(t *testing.T, ctx context.Context, cfg Config) (map[string]outcome, []string, int) {
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

// closedURL is a URL at which nothing listens: port 1 is never given out as a free port.
const closedURL = "http://127.0.0.1:1"

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
		t.Errorf("code %d, want 0", code)
	case len(out) != 6:
		t.Errorf("%d outcomes, want 6", len(out))
	}
	for name, o := range out {
		want := 2
		if name == "good.jpg" {
			want = 1
		}
		if o.Attempts == 1 && name == "hangup.jpg" {
			o.Attempts = 2 // net/http itself retries a request with an Idempotency-Key on a reused connection
		}
		switch {
		case o.Status != v1.Done:
			t.Errorf("%s: outcome %+v: status %s, want done", name, o, o.Status)
		case o.Attempts != want:
			t.Errorf("%s: %d attempts, want %d", name, o.Attempts, want)
		case m.posts[name] != want:
			t.Errorf("%s was sent %d times, want %d", name, m.posts[name], want)
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
		t.Errorf("code %d, want %d: %+v", code, exit.Partial, out)
	case out["damaged.jpg"].Problem.Code != v1.Damaged:
		t.Errorf("damaged.jpg has the problem %s, want %s", out["damaged.jpg"].Problem.Code, v1.Damaged)
	case out["forbidden.jpg"].Error == "":
		t.Errorf("forbidden.jpg has no error: %+v", out["forbidden.jpg"])
	case out["good.jpg"].Status != v1.Done:
		t.Errorf("good.jpg is %s, want done", out["good.jpg"].Status)
	}
	for name, n := range m.posts {
		if n != 1 {
			t.Errorf("%s was sent %d times, want 1", name, n)
		}
	}
	list, err := os.ReadFile(failed)
	if err != nil {
		t.Fatal(err)
	}
	switch names := strings.Fields(string(list)); {
	case len(names) != 2:
		t.Errorf("the list of failures is %q, want 2 files", list)
	case !slices.Contains(names, filepath.Join(dir, "damaged.jpg")):
		t.Errorf("the list of failures is %q, want damaged.jpg in it", list)
	}
}

func TestCommand_AllFail(t *testing.T) {
	t.Parallel()
	dir := folder(t, "a.jpg", "b.jpg")
	out, _, code := command(t, t.Context(), Config{URL: closedURL, Paths: []string{dir}, Attempts: 2})
	switch {
	case code != exit.Failure:
		t.Errorf("code %d, want %d: %+v", code, exit.Failure, out)
	case out["a.jpg"].Attempts != 2:
		t.Errorf("%d attempts, want 2", out["a.jpg"].Attempts)
	case out["a.jpg"].Error == "":
		t.Errorf("the outcome has no error: %+v", out["a.jpg"])
	}
}

func TestCommand_Usage(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"no paths": {}, "concurrency": {Paths: []string{"x"}, Concurrency: "many"},
		"resume of stdout":      {Paths: []string{"x"}, Resume: true},
		"no web address":        {Paths: []string{"x"}, URL: "ftp://x"},
		"no pipeline over NATS": {Paths: []string{"x"}, NATS: connection.Config{URL: "nats://127.0.0.1:1"}},
	} {
		if _, _, code := command(t, t.Context(), cfg); code != exit.Usage {
			t.Errorf("%s: code %d, want %d", name, code, exit.Usage)
		}
	}
	missing := Config{URL: closedURL, Paths: []string{"/nothing/here"}}
	if _, _, code := command(t, t.Context(), missing); code != exit.Failure {
		t.Errorf("a missing file: code %d, want %d", code, exit.Failure)
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
		if r.URL.Path != "/v1/images/j1" {
			t.Errorf("GET %s, want /v1/images/j1", r.URL)
		}
		if r.URL.Query().Get("wait") == "" {
			t.Errorf("GET %s, want the parameter wait", r.URL)
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
		t.Errorf("code %d, want 0: %+v", code, out)
	case out["a.jpg"].Status != v1.Done:
		t.Errorf("status %s, want done", out["a.jpg"].Status)
	case polls.Load() != 3:
		t.Errorf("%d polls, want 3", polls.Load())
	case m.posts["a.jpg"] != 1:
		t.Errorf("the image was sent %d times, want 1", m.posts["a.jpg"])
	}
}

// TestCommand_Ordered responds to the first frame when the last one arrives. With 8 frames in flight, at least 32 other
// frames have their outcome before.
func TestCommand_Ordered(t *testing.T) {
	t.Parallel()
	lastArrived := make(chan struct{})
	m := newMesh(t, func(w http.ResponseWriter, r *http.Request, image string, _ int) {
		switch image {
		case "frame0.jpg":
			select {
			case <-lastArrived:
			case <-r.Context().Done():
			}
		case "frame39.jpg":
			close(lastArrived)
		}
		done(w, image)
	})
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprint("frame", i, ".jpg"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // only a run that waits for the first frame reaches it
	defer cancel()
	_, order, code := command(t, ctx,
		Config{URL: m.URL, Paths: []string{folder(t, names...)}, Ordered: true, Concurrency: "8"})
	switch {
	case code != 0:
		t.Errorf("code %d, want 0", code)
	case !slices.Equal(order, names):
		t.Errorf("the order is %q, want %q", order, names)
	}
}

func TestCommand_AutoSendsAllFiles(t *testing.T) {
	t.Parallel()
	lanes := make(chan struct{}, 4)
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, image string, _ int) {
		lanes <- struct{}{}
		time.Sleep(2 * time.Millisecond) // the work of a lane
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
		t.Errorf("code %d, want 0", code)
	case len(out) != 300:
		t.Errorf("%d outcomes, want 300", len(out))
	}
}

// TestCommand_ResumesAfterInterrupt interrupts a run while images are in flight and other
// images wait for a retry. The resumed run sends the rest, and no image twice.
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
			time.Sleep(50 * time.Millisecond) // the interrupt comes before the response
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
		t.Fatalf("the code of the interrupted run is %d, want %d", code, exit.Interrupted)
	case len(first) >= len(names):
		t.Fatalf("the interrupted run has %d outcomes, want fewer than %d", len(first), len(names))
	case first["20.jpg"].Status != v1.Done:
		t.Fatalf("20.jpg, which was in flight, is %s, want done", first["20.jpg"].Status)
	}
	healed.Store(true)
	cfg.Resume = true
	all, _, code := command(t, t.Context(), cfg)
	switch {
	case code != 0:
		t.Errorf("the code of the resumed run is %d, want 0", code)
	case len(all) != len(names):
		t.Errorf("%d outcomes after the resumed run, want %d", len(all), len(names))
	}
	for _, name := range names {
		want := 1
		if name == "busy.jpg" {
			want = m.posts[name] // it was rejected before
		}
		switch {
		case all[name].Status != v1.Done:
			t.Errorf("%s is %s, want done", name, all[name].Status)
		case m.posts[name] != want:
			t.Errorf("%s was sent %d times, want %d", name, m.posts[name], want)
		}
	}
	if _, err := os.Stat(cfg.Out + ".run"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat of the .run file: %v, want that it does not exist", err)
	}
}

func TestCommand_OutcomesCannotBeWritten(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, image string, _ int) { done(w, image) })
	cfg := Config{URL: m.URL, Paths: []string{folder(t, "a.jpg", "b.jpg")}, Concurrency: "1", Priority: "interactive",
		Attempts: 1, Out: "-"}
	if err := Command(t.Context(), cfg, nil, full{}, t.Output()); exit.Status(err) != exit.Failure {
		t.Errorf("the error is %v, want a failure", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }
