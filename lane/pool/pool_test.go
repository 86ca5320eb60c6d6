package pool

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// testTimeout limits waits that only a test that hangs reaches.
const testTimeout = time.Minute

// The test binary is also its lane program, and a parent process that can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "lane" {
		if err := runTestLane(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "parent" {
		runTestParent()
		return
	}
	goleak.VerifyTestMain(m)
}

func runTestLane(args []string) error {
	conn, err := lane.Inherited(func() { os.Exit(0) })
	if err != nil {
		return err
	}
	l := &testLane{args: args, conn: conn}
	if slices.Contains(args, "raw") {
		return serveRaw(conn)
	}
	if slices.Contains(args, "exit-in-read") {
		return lane.Serve(&greedy{File: conn}, l)
	}
	return lane.Serve(conn, l)
}

// serveRaw is a lane that replies with the JSON in the pixels of a request, in which ID is
// replaced by the ID of the request.
func serveRaw(conn *os.File) error {
	for {
		facts, pixels, err := lane.ReadFrame(conn)
		if err != nil {
			return err
		}
		var head struct {
			ID uint64 `json:"id"`
		}
		if err := json.Unmarshal(facts, &head); err != nil {
			return err
		}
		reply := []byte(`{"type":"ready","protocol":1,"pipelines":{"p":{}}}`)
		if head.ID != 0 {
			reply = bytes.ReplaceAll(pixels, []byte("ID"), fmt.Append(nil, head.ID))
		}
		frame := binary.BigEndian.AppendUint32(nil, uint32(len(reply)))
		frame = binary.BigEndian.AppendUint32(frame, 0) // no pixels
		if _, err := conn.Write(append(frame, reply...)); err != nil {
			return err
		}
	}
}

// greedy ends the process while it reads a large request, as if it had no memory for it.
type greedy struct {
	*os.File
	read int
}

func (g *greedy) Read(b []byte) (int, error) {
	if g.read > 64<<10 {
		os.Exit(4)
	}
	n, err := g.File.Read(b[:min(len(b), 32<<10)])
	g.read += n
	return n, err
}

// testLane does what the order in the pixels of a request says.
type testLane struct {
	args   []string
	conn   interface{ Write([]byte) (int, error) }
	memory [][]byte // that it has allocated
}

func (l *testLane) Start(s lane.Start) (map[string]lane.Loaded, error) {
	switch {
	case slices.Contains(l.args, "hang-in-start"):
		select {}
	case slices.Contains(l.args, "hang-in-second-start"): // the last argument is a folder that the first start creates
		if err := os.Mkdir(l.args[len(l.args)-1], 0o700); err != nil {
			select {}
		}
		abort()
	case slices.Contains(l.args, "abort-in-start"):
		abort()
	case slices.Contains(l.args, "large-and-hangs"):
		if err := l.grow(largeWhenReady); err != nil {
			return nil, err
		}
		select {}
	case slices.Contains(l.args, "large-when-ready"):
		if err := l.grow(largeWhenReady); err != nil {
			return nil, err
		}
	}
	out := map[string]lane.Loaded{}
	for name := range s.Pipelines {
		out[name] = lane.Loaded{
			Models:   []v1.Model{{Name: "test", Version: strconv.Itoa(os.Getpid())}},
			Networks: []lane.Network{{Model: "test", Engine: "of " + name}},
		}
		if name == "refused" {
			out[name] = lane.Loaded{Error: "no such model in " + s.Models}
		}
	}
	return out, nil
}

// largeWhenReady is how many bytes a lane with that argument allocates before it is ready.
const largeWhenReady = 256 << 20

// grow allocates memory in one step.
func (l *testLane) grow(size int) error {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("grow by %d bytes: %w", size, err)
	}
	l.memory = append(l.memory, b)
	return nil
}

func abort() {
	fmt.Fprintln(os.Stderr, "terminate called after throwing an instance of 'cv::Exception'")
	syscall.Kill(os.Getpid(), syscall.SIGABRT)
	select {}
}

func (l *testLane) Detect(d lane.Detect, order []byte) (lane.Detected, [][]byte, error) {
	switch s := string(order); s {
	case "abort":
		abort()
	case "exit":
		os.Exit(3)
	case "hang":
		for { //nolint:staticcheck // hangs like native code
		}
	case "grow":
		for {
			b := make([]byte, 16<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			l.memory = append(l.memory, b)
			time.Sleep(5 * time.Millisecond)
		}
	case "leave": // allocates more memory than the limit in one step, and replies
		if err := l.grow(200 << 20); err != nil {
			return lane.Detected{}, nil, err
		}
	case "garbage":
		l.conn.Write([]byte("\x00\x00\x00\x03\x00\x00\x00\x00{]}"))
		select {}
	case "huge":
		l.conn.Write([]byte("\xff\xff\xff\xff\x00\x00\x00\x00"))
		select {}
	case "wrong id":
		lane.WriteFrame(l.conn, lane.Detected{Type: lane.TypeDetected, ID: d.ID + 1})
		select {}
	case "wrong type":
		lane.WriteFrame(l.conn, lane.Ready{Type: "ready"})
		select {}
	case "classified":
		lane.WriteFrame(l.conn, lane.Classified{Type: lane.TypeClassified, ID: d.ID})
		select {}
	case "exit with child":
		child := exec.Command("sleep", "1000")
		if err := child.Start(); err != nil {
			return lane.Detected{}, nil, err
		}
		fmt.Fprintln(os.Stderr, "child", child.Process.Pid)
		os.Exit(3)
	case "problem":
		return lane.Detected{}, nil, v1.NewProblem(v1.Damaged, "as ordered")
	case "cancelled":
		return lane.Detected{}, nil, v1.NewProblem(v1.Cancelled, "%s", strings.Repeat("as ordered ", 1<<20))
	case "env":
		region := lane.Region{
			Box: v1.Box{Width: 1, Height: 1}, Label: os.Getenv("OMP_THREAD_LIMIT") + os.Getenv("GOMAXPROCS"),
		}
		return lane.Detected{Width: 1, Height: 1, Regions: []lane.Region{region}}, nil, nil
	case "pid":
		return lane.Detected{Width: os.Getpid(), Height: 1}, nil, nil
	case "sockets":
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return lane.Detected{}, nil, err
		}
		n := 0
		for _, fd := range fds {
			// The descriptor with which ReadDir reads the folder is closed.
			if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:") {
				n++
			}
		}
		return lane.Detected{Width: n, Height: 1}, nil, nil
	default:
		if ms, err := strconv.Atoi(s); err == nil {
			time.Sleep(time.Duration(ms) * time.Millisecond)
		}
		if gate, ok := strings.CutPrefix(s, gateOrder); ok {
			if err := eventually.Retry(testTimeout, func() error { _, err := os.Stat(gate); return err }); err != nil {
				return lane.Detected{}, nil, err
			}
		}
	}
	echo := order[:min(len(order), 1024)]
	return lane.Detected{
		Width: 1, Height: 1, Regions: []lane.Region{{Box: v1.Box{Width: 1, Height: 1}}},
		Crops: []lane.Crop{{Width: max(len(echo), 1), Height: 1, Channels: 1}},
	}, [][]byte{echo}, nil
}

func (l *testLane) Classify(lane.Classify, []byte) (lane.Classified, error) {
	return lane.Classified{}, nil
}

// detect sends an order to a lane.
func detect(ctx context.Context, l *Lane, pipeline, order string) (lane.Detected, error) {
	found, _, err := l.Detect(ctx, lane.Detect{Pipeline: pipeline, MediaType: "image/png", MaxRegions: 100}, []byte(order))
	return found, err
}

func TestLane_Networks(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("one"), program("other")}})
	l, err := b.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	got := l.Networks("other")
	if len(got) != 1 {
		t.Fatalf("got the networks %+v, want one", got)
	}
	if got[0].Engine != "of other" {
		t.Errorf("the engine is %q, want that of the pipeline", got[0].Engine)
	}
}

type logs struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.String()
}

type testPool struct {
	*Pool
	log    *logs
	counts counts
	stop   func()
}

// counts is the metrics of a pool: restarts by program and reason.
type counts struct {
	discard
	mu     sync.Mutex
	counts map[[2]string]int
}

func (c *counts) AddRestart(program, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[[2]string]int{}
	}
	c.counts[[2]string{program, reason}]++
}

func (c *counts) restarts(program, reason string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[[2]string{program, reason}]
}

func program(name string, args ...string) Program {
	return Program{
		Name: name, Argv: append([]string{os.Args[0], "lane"}, args...),
		Pipelines: map[string]Pipeline{name: {Timeout: testTimeout}},
	}
}

// startPool runs a pool until the test ends. It waits until the first start of every process
// has ended.
func startPool(t testing.TB, cfg Config) *testPool {
	t.Helper()
	b := &testPool{log: &logs{}}
	if cfg.Lanes == 0 {
		cfg.Lanes = 1
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = testTimeout
	}
	cfg.Stage = "detect"
	cfg.Logger = slog.New(slog.NewJSONHandler(b.log, nil))
	cfg.Metrics = &b.counts
	var err error
	if b.Pool, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("pool ended with %v", err)
		}
	})
	t.Cleanup(b.stop)
	select {
	case <-b.Ready():
	case <-time.After(testTimeout):
		t.Fatalf("the pool is not ready:\n%s", b.log)
	}
	return b
}

// sendOrder sends an order to a lane.
//
//nolint:revive // t first, as everywhere in tests
func (b *testPool) sendOrder(t testing.TB, ctx context.Context, pipeline, order string) (lane.Detected, error) {
	t.Helper()
	l := b.mustAcquire(t)
	defer l.Release()
	return detect(ctx, l, pipeline, order)
}

// startOrder sends an order to a lane, and returns a channel that receives the error of the request when it ends.
//
//nolint:revive // t first, as everywhere in tests
func (b *testPool) startOrder(t testing.TB, ctx context.Context, pipeline, order string) <-chan error {
	t.Helper()
	l, ended := b.mustAcquire(t), make(chan error, 1)
	go func() {
		defer l.Release()
		_, err := detect(ctx, l, pipeline, order)
		ended <- err
	}()
	return ended
}

func (b *testPool) mustAcquire(t testing.TB) *Lane {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	l, err := b.Acquire(ctx)
	if err != nil {
		t.Fatalf("acquire: %v\n%s", err, b.log)
	}
	return l
}

func (b *testPool) pid(t testing.TB, pipeline string) int {
	t.Helper()
	d, err := b.sendOrder(t, context.Background(), pipeline, "pid")
	if err != nil {
		t.Fatal(err)
	}
	return d.Width
}

// gateOrder precedes the path of the file that an order waits for.
const gateOrder = "gate "

// newGate returns an order that takes a lane until open is called.
func newGate(t testing.TB) (order string, open func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "open")
	return gateOrder + path, func() {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func awaitEnd(t testing.TB, pid int) {
	t.Helper()
	eventually.Succeeds(t, time.Minute, func() error {
		if syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("process %d has not ended", pid)
		}
		return nil
	})
}

// awaitBusy waits until a lane of the pool is busy.
func awaitBusy(t testing.TB, p *testPool) {
	t.Helper()
	eventually.Succeeds(t, time.Minute, func() error {
		if len(p.Busy()) == 0 {
			return errors.New("no lane is busy")
		}
		return nil
	})
}

func problemCode(err error) v1.Code {
	var p *v1.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

// TestLane_IsReplaced: each of these orders fails its own request, and a new process serves the
// next one.
func TestLane_IsReplaced(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		order  string
		want   v1.Code
		detail string
		reason string
	}{
		{"abort", v1.LaneDied, "SIGABRT", "died"},
		{"abort", v1.LaneDied, "cv::Exception", "died"}, // its last output
		{"exit", v1.LaneDied, "exit status 3", "died"},
		{"hang", v1.TooSlow, "500ms", "timeout"},
		{"grow", v1.TooMuchMemory, "536870912 bytes (--lane-memory)", "memory"},
		{"garbage", v1.LaneDied, "protocol", "protocol"},
		{"huge", v1.LaneDied, "too large", "protocol"},
		{"wrong id", v1.LaneDied, "the reply has the id", "protocol"},
		{"wrong type", v1.LaneDied, "ready", "protocol"},
	} {
		t.Run(tt.order, func(t *testing.T) {
			t.Parallel()
			p, pipeline := program("p"), "p"
			if tt.order == "hang" { // the other requests have more time
				pipeline = "short"
				p.Pipelines[pipeline] = Pipeline{Timeout: 500 * time.Millisecond}
			}
			p.Memory = MemoryLimit{512 << 20, "--lane-memory"}
			b := startPool(t, Config{Programs: []Program{p}})
			before := b.pid(t, "p")
			_, err := b.sendOrder(t, context.Background(), pipeline, tt.order)
			if problemCode(err) != tt.want {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			if !strings.Contains(err.Error(), tt.detail) {
				t.Errorf("the problem is %q, want %q in it", err, tt.detail)
			}
			awaitEnd(t, before)
			if !b.Status()["p"].Ready {
				t.Error("the pipeline is not ready while its lane is restarted")
			}
			if after := b.pid(t, "p"); after == before {
				t.Error("the same process serves the next request")
			}
			if n := b.counts.restarts("p", tt.reason); n != 1 {
				t.Errorf("%d restarts are counted as %s, want 1", n, tt.reason)
			}
			if n := strings.Count(b.log.String(), `"msg":"lane ended"`); n != 1 {
				t.Errorf("the end is logged %d times, want once:\n%s", n, b.log)
			}
		})
	}
}

// tracer records the attributes of the spans named lane, and their events.
type tracer struct {
	mu     sync.Mutex
	spans  []string
	events []string
}

func (r *tracer) StartSpan(
	ctx context.Context, name string, _ time.Time, attrs ...slog.Attr,
) (context.Context, func(time.Time, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name == "lane" {
		r.spans = append(r.spans, fmt.Sprint(attrs))
	}
	return ctx, func(time.Time, error) {}
}

func (r *tracer) AddEvent(_ context.Context, name string, attrs ...slog.Attr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, name+" "+attrs[0].String())
}

// TestTracer_RecordsTheEndOfAProcess during a request.
func TestTracer_RecordsTheEndOfAProcess(t *testing.T) {
	t.Parallel()
	for want, send := range map[string]func(*testing.T, *testPool){
		"restart reason=died": func(t *testing.T, b *testPool) { b.sendOrder(t, t.Context(), "p", "abort") },
		"hand-back reason=stopped": func(t *testing.T, b *testPool) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := b.startOrder(t, ctx, "p", "hang")
			awaitBusy(t, b)
			cancel()
			<-ended
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			r := &tracer{}
			b := startPool(t, Config{Programs: []Program{program("p")}, Tracer: r})
			send(t, b)
			if want := []string{"[pipeline=p lane=0 program=p]"}; !slices.Equal(r.spans, want) {
				t.Errorf("the spans are %q, want %q", r.spans, want)
			}
			if want := []string{want}; !slices.Equal(r.events, want) {
				t.Errorf("the events are %q, want %q", r.events, want)
			}
		})
	}
}

func TestLane_ProblemDoesNotEndIt(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	before := b.pid(t, "p")
	_, err := b.sendOrder(t, context.Background(), "p", "problem")
	if problemCode(err) != v1.Damaged {
		t.Fatalf("got %v, want %s", err, v1.Damaged)
	}
	if want := "as ordered"; !strings.Contains(err.Error(), want) {
		t.Errorf("the problem is %q, want %q in it", err, want)
	}
	if after := b.pid(t, "p"); after != before {
		t.Error("the process was replaced")
	}
}

func TestLane_CannotCancelAJob(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	_, err := b.sendOrder(t, context.Background(), "p", "cancelled")
	if problemCode(err) != v1.Internal {
		t.Errorf("got %.100v, want %s", err, v1.Internal)
	}
	if n := len(err.Error()); n > 2*v1.MaxDetail {
		t.Errorf("the problem has %d bytes, want about %d", n, v1.MaxDetail)
	}
}

// deadlineContext is a context whose deadline passes when the context in it is cancelled.
type deadlineContext struct{ context.Context }

func (c deadlineContext) Err() error {
	if c.Context.Err() != nil {
		return context.DeadlineExceeded
	}
	return nil
}

func TestLane_EndedContextDoesNotEndIt(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	before := b.pid(t, "p")
	if _, err := b.sendOrder(t, cancelledContext(), "p", "0"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, want %v", err, context.Canceled)
	}
	_, err := b.sendOrder(t, deadlineContext{cancelledContext()}, "p", "0")
	if problemCode(err) != v1.DeadlineExceeded {
		t.Errorf("deadline: %v, want %s", err, v1.DeadlineExceeded)
	}
	if after := b.pid(t, "p"); after != before {
		t.Error("the process was replaced")
	}
}

func TestLane_EndsWithTheContext(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	pid := b.pid(t, "p")
	ctx, pass := context.WithCancel(context.Background())
	deadline := deadlineContext{ctx}
	ended := b.startOrder(t, deadline, "p", "hang")
	awaitBusy(t, b)
	pass()
	if err := <-ended; problemCode(err) != v1.DeadlineExceeded {
		t.Errorf("deadline: %v", err)
	}
	awaitEnd(t, pid)
	pid = b.pid(t, "p")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended = b.startOrder(t, ctx, "p", "hang")
	awaitBusy(t, b)
	cancel()
	err := <-ended
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancel: %v, want %v", err, context.Canceled)
	}
	if c := problemCode(err); c != "" {
		t.Errorf("cancel: the problem %s, want none", c)
	}
	awaitEnd(t, pid)
}

func TestLane_IdleProcessThatEndsIsReplaced(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	for range 10 { // the next request does not fail
		before := b.pid(t, "p")
		syscall.Kill(before, syscall.SIGKILL)
		awaitEnd(t, before)
		if after := b.pid(t, "p"); after == before {
			t.Error("the same process serves the next request")
		}
	}
}

// TestLane_EndsWhileItReadsARequest: the request is sent to a second process, and not to more.
func TestLane_EndsWhileItReadsARequest(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p", "exit-in-read")}})
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if _, err := b.sendOrder(t, ctx, "p", strings.Repeat("x", 4<<20)); problemCode(err) != v1.LaneDied {
		t.Errorf("got %v, want %s", err, v1.LaneDied)
	}
	b.pid(t, "p") // of a third process: the ends of those before it are logged
	if n := strings.Count(b.log.String(), "exit status 4"); n != 2 {
		t.Errorf("%d processes ended, want 2:\n%s", n, b.log)
	}
}

func TestPool_ReplacesAProcessAfterMaxJobs(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}, MaxJobs: 3})
	requests := map[int]int{} // by process
	for range 9 {
		requests[b.pid(t, "p")]++
	}
	if len(requests) != 3 {
		t.Errorf("requests by process: %v, want 3 processes", requests)
	}
	for pid, n := range requests {
		if n != 3 {
			t.Errorf("process %d served %d requests, want 3", pid, n)
		}
	}
	if strings.Contains(b.log.String(), "lane ended") {
		t.Errorf("a replacement is logged as a crash:\n%s", b.log)
	}
}

func TestPool_ProgramsAreIndependent(t *testing.T) {
	t.Parallel()
	good, refused := program("good"), Pipeline{Timeout: time.Second}
	good.Pipelines["refused"] = refused
	b := startPool(t, Config{
		Programs: []Program{
			good, program("aborts", "abort-in-start"), program("hangs", "hang-in-start"),
			{Name: "absent", Argv: []string{"/no/such/program"}, Pipelines: map[string]Pipeline{"absent": {}}},
		},
		Models: "/the/models", StartTimeout: 8 * time.Second,
	})
	// On a busy machine, the first start of a program can exceed StartTimeout. Then the pool starts it again.
	eventually.Succeeds(t, testTimeout, func() error {
		if s := b.Status()["good"]; !s.Ready {
			return fmt.Errorf("good is not ready: %s", s.Reason)
		}
		return nil
	})
	if _, err := b.sendOrder(t, context.Background(), "good", "0"); err != nil {
		t.Errorf("good: %v", err)
	}
	for name, reason := range map[string]string{
		"refused": "no such model in /the/models", "aborts": "SIGABRT", "hangs": "timeout", "absent": "no such file",
	} {
		eventually.Succeeds(t, testTimeout, func() error {
			if s := b.Status()[name]; !strings.Contains(s.Reason, reason) {
				return fmt.Errorf("%s: the reason is %q, want %q in it", name, s.Reason, reason)
			}
			return nil
		})
		if b.Status()[name].Ready {
			t.Errorf("%s is ready", name)
		}
	}
	l, err := b.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Pipelines(); !slices.Equal(got, []string{"good"}) {
		t.Errorf("the lane serves %v", got)
	}
	if _, err := detect(context.Background(), l, "unknown", ""); err == nil {
		t.Error("no error for a pipeline that no program serves")
	}
	l.Release()
}

// TestPool_HangingProgramDoesNotDelayStarts: from its second start on, a program that hangs
// while it loads only waits for other programs that have failed. Its first start ends at once.
func TestPool_HangingProgramDoesNotDelayStarts(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{
		Programs: []Program{
			program("good"), program("hangs", "hang-in-second-start", filepath.Join(t.TempDir(), "started")),
		},
	})
	eventually.Succeeds(t, testTimeout, func() error {
		if len(b.startingAgain) == 0 {
			return errors.New("the program that hangs is not started for the second time")
		}
		return nil
	})
	if n := len(b.starting); n != 0 {
		t.Errorf("%d turns are in use while the good program runs, want 0", n)
	}
	before := b.pid(t, "good")
	if _, err := b.sendOrder(t, context.Background(), "good", "exit"); err == nil {
		t.Fatal("the good program did not end")
	}
	if after := b.pid(t, "good"); after == before {
		t.Error("the good program was not started again")
	}
}

func TestPool_LanesWorkInParallel(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}, Lanes: 2})
	one, err := b.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	two, err := b.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Acquire(cancelledContext()); !errors.Is(err, context.Canceled) {
		t.Errorf("a third lane: %v", err)
	}
	order, open := newGate(t)
	slow := make(chan error, 1)
	go func() {
		_, err := detect(context.Background(), one, "p", order)
		slow <- err
	}()
	awaitBusy(t, b)
	if _, err := detect(context.Background(), two, "p", "0"); err != nil {
		t.Error(err)
	}
	busy := b.Busy()
	if len(busy) != 1 {
		t.Fatalf("%d lanes are busy, want the slow one", len(busy))
	}
	if busy[0].Pipeline != "p" {
		t.Errorf("the busy lane has pipeline %q, want p", busy[0].Pipeline)
	}
	if err := syscall.Kill(busy[0].PID, 0); err != nil {
		t.Errorf("the busy lane has process %d: %v", busy[0].PID, err)
	}
	if busy[0].BusyMS <= 0 {
		t.Errorf("the lane is busy for %v ms", busy[0].BusyMS)
	}
	open()
	if err := <-slow; err != nil {
		t.Errorf("the slow lane: %v", err)
	}
	if busy := b.Busy(); len(busy) != 0 {
		t.Errorf("the lanes %+v are busy after their requests", busy)
	}
	one.Release()
	two.Release()
	if s := b.Status()["p"]; s.ServiceMS <= 0 {
		t.Errorf("status %+v has no service time", s)
	}
}

func cancelledContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestLane_InheritsEnvironmentAndSocket(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}, Lanes: 4})
	d, err := b.sendOrder(t, context.Background(), "p", "env")
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Regions[0].Label; got != "11" {
		t.Errorf("OMP_THREAD_LIMIT and GOMAXPROCS are %q, want 1 and 1", got)
	}
	// A socket of another lane would keep that lane from reading end of file.
	for range 4 {
		d, err := b.sendOrder(t, context.Background(), "p", "sockets")
		if err != nil {
			t.Fatal(err)
		}
		if d.Width != 1 {
			t.Errorf("a lane has %d sockets, want its own only", d.Width)
		}
	}
}

func TestPool_RunEndsAllProcesses(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}, Lanes: 2})
	pid := b.pid(t, "p")
	l, err := b.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := detect(context.Background(), l, "p", "hang")
		asked <- err
	}()
	awaitBusy(t, b)
	b.stop()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("the request in progress: %v", err)
	}
	awaitEnd(t, pid)
	// The other lane is free, and Acquire may return it.
	_, err = b.Acquire(context.Background())
	if err == nil {
		_, err = b.Acquire(context.Background())
	}
	if !errors.Is(err, ErrClosed) {
		t.Errorf("Acquire after the end returned %v, want %v", err, ErrClosed)
	}
}

// runTestParent is a parent process that prints the pid of its lane and waits until it is
// killed.
func runTestParent() {
	p, err := New(Config{
		Stage: "detect", Lanes: 1, Programs: []Program{program("p")}, StartTimeout: testTimeout,
	})
	if err != nil {
		panic(err)
	}
	go p.Run(context.Background())
	<-p.Ready()
	l, err := p.Acquire(context.Background())
	if err != nil {
		panic(err)
	}
	found, err := detect(context.Background(), l, "p", "pid")
	if err != nil {
		panic(err)
	}
	json.NewEncoder(os.Stdout).Encode(found)
	detect(context.Background(), l, "p", "hang")
}

// TestLane_ConcurrentRequests: each of several concurrent requests to one lane gets its own
// reply.
func TestLane_ConcurrentRequests(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	l, err := b.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			order := fmt.Sprint("order ", i)
			_, crops, err := l.Detect(context.Background(), lane.Detect{Pipeline: "p", Crops: true}, []byte(order))
			if err != nil {
				t.Errorf("request %d: %v", i, err)
			}
			if string(crops) != order {
				t.Errorf("request %d got the reply %q", i, crops)
			}
		})
	}
	all.Wait()
}

// TestLane_ReplyOfAnotherTypeEndsIt: a reply of the wrong type is a protocol error.
func TestLane_ReplyOfAnotherTypeEndsIt(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	l, err := b.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if _, err := detect(context.Background(), l, "p", "classified"); problemCode(err) != v1.LaneDied {
		t.Errorf("got %v, want %s", err, v1.LaneDied)
	}
}

// TestLane_ChildrenEndWithIt: also when it ends by itself.
func TestLane_ChildrenEndWithIt(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	_, err := b.sendOrder(t, context.Background(), "p", "exit with child")
	if problemCode(err) != v1.LaneDied {
		t.Fatalf("got %v, want %s", err, v1.LaneDied)
	}
	match := regexp.MustCompile(`child (\d+)`).FindStringSubmatch(err.Error())
	if match == nil {
		t.Fatalf("no child in %q", err)
	}
	child, err := strconv.Atoi(match[1])
	if err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, child)
}

// TestLane_EndsWithAKilledParent: also during a request.
func TestLane_EndsWithAKilledParent(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "parent")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var d lane.Detected
	if err := json.NewDecoder(out).Decode(&d); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	awaitEnd(t, d.Width)
}

// TestPool_RunsWithoutPrograms: a worker of a stage that no pipeline has does not end.
func TestPool_RunsWithoutPrograms(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := b.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that Acquire waits", err)
	}
}

func TestNew_RejectsInvalidConfigs(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]Config{
		"lanes: 0, want 1 or more":   {},
		"lane program p: no command": {Lanes: 1, Programs: []Program{{Name: "p"}}},
		"lane program p: memory of -1 bytes, want 0 or more": {Lanes: 1, Programs: []Program{
			{Name: "p", Argv: []string{"p"}, Memory: MemoryLimit{Bytes: -1}},
		}},
		"pipeline p: served by lane programs p and p": {Lanes: 1, Programs: []Program{program("p"), program("p")}},
	} {
		if _, err := New(cfg); err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
}

// BenchmarkRoundTrip sends 100 KB to a lane, which does nothing and returns 1 KB.
func BenchmarkRoundTrip(b *testing.B) {
	pool := startPool(b, Config{Programs: []Program{program("p")}})
	l, err := pool.Acquire(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	defer l.Release()
	pixels := bytes.Repeat([]byte("x"), 100<<10)
	times := make([]time.Duration, 0, 1<<16)
	b.SetBytes(int64(len(pixels)))
	for b.Loop() {
		began := time.Now()
		if _, _, err := l.Detect(context.Background(), lane.Detect{Pipeline: "p", Crops: true}, pixels); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1000, "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1000, "p99-µs")
}
