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

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// The test binary is also its lane program, and a parent that can be killed.
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

// serveRaw is a lane that answers a request with the JSON in its pixels, as one
// in another language may. ID in it stands for the id of the request.
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
		answer := []byte(`{"type":"ready","protocol":1,"pipelines":{"p":{}}}`)
		if head.ID != 0 {
			answer = bytes.ReplaceAll(pixels, []byte("ID"), fmt.Append(nil, head.ID))
		}
		frame := binary.BigEndian.AppendUint32(nil, uint32(len(answer)))
		frame = binary.BigEndian.AppendUint32(frame, 0) // no pixels
		if _, err := conn.Write(append(frame, answer...)); err != nil {
			return err
		}
	}
}

// greedy ends the process in the middle of a large request, as one does that
// has no memory for it.
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

// testLane does what the pixels of a request say.
type testLane struct {
	args []string
	conn interface{ Write([]byte) (int, error) }
	hold [][]byte
}

func (l *testLane) Start(s lane.Start) (map[string]lane.Loaded, error) {
	switch {
	case slices.Contains(l.args, "hang-in-start"):
		select {}
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

// largeWhenReady is how much a lane with that argument takes before it is ready.
const largeWhenReady = 256 << 20

// grow takes so many bytes of memory, at once.
func (l *testLane) grow(size int) error {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("grow by %d bytes: %w", size, err)
	}
	l.hold = append(l.hold, b)
	return nil
}

func abort() {
	fmt.Fprintln(os.Stderr, "terminate called after throwing an instance of 'cv::Exception'")
	syscall.Kill(os.Getpid(), syscall.SIGABRT)
	select {}
}

func (l *testLane) Detect(d lane.Detect, order []byte) (lane.Detected, [][]byte, error) {
	switch what := string(order); what {
	case "abort":
		abort()
	case "exit":
		os.Exit(3)
	case "hang":
		for { //nolint:staticcheck // as native code hangs
		}
	case "grow":
		for {
			b := make([]byte, 16<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			l.hold = append(l.hold, b)
			time.Sleep(5 * time.Millisecond)
		}
	case "leave": // more memory than it is given, at once, and answers
		if err := l.grow(150 << 20); err != nil {
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
		return lane.Detected{Width: 1, Height: 1, Regions: []lane.Region{{Box: v1.Box{Width: 1, Height: 1}, Label: os.Getenv("OMP_THREAD_LIMIT") + os.Getenv("GOMAXPROCS")}}}, nil, nil
	case "pid":
		return lane.Detected{Width: os.Getpid(), Height: 1}, nil, nil
	case "sockets":
		n := 0
		fds, _ := os.ReadDir("/proc/self/fd")
		for _, fd := range fds {
			if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:") && fd.Name() == strconv.Itoa(lane.FD) {
				n++
			} else if strings.HasPrefix(to, "socket:") {
				n += 100 // another than ours and its copy in the runtime
			}
		}
		return lane.Detected{Width: n, Height: 1}, nil, nil
	default:
		if ms, err := strconv.Atoi(what); err == nil {
			time.Sleep(time.Duration(ms) * time.Millisecond)
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

// detect asks for what the order says.
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
	if len(got) != 1 || got[0].Engine != "of other" {
		t.Errorf("networks %+v, want the one of the pipeline", got)
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

type bench struct {
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
	return Program{Name: name, Argv: append([]string{os.Args[0], "lane"}, args...), Pipelines: map[string]Pipeline{name: {Timeout: 20 * time.Second}}}
}

// startPool runs a pool until the test ends and waits until its processes were
// tried.
func startPool(t testing.TB, cfg Config) *bench {
	t.Helper()
	b := &bench{log: &logs{}}
	if cfg.Lanes == 0 {
		cfg.Lanes = 1
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = 20 * time.Second
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
	case <-time.After(40 * time.Second):
		t.Fatalf("the pool is not ready:\n%s", b.log)
	}
	return b
}

// ask does one request in a lane of its own.
func (b *bench) ask(t testing.TB, ctx context.Context, pipeline, order string) (lane.Detected, error) { //nolint:revive // t first, as everywhere in tests
	t.Helper()
	acquire, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	l, err := b.Acquire(acquire)
	if err != nil {
		t.Fatalf("acquire: %v\n%s", err, b.log)
	}
	defer l.Release()
	return detect(ctx, l, pipeline, order)
}

func (b *bench) pid(t testing.TB, pipeline string) int {
	t.Helper()
	d, err := b.ask(t, context.Background(), pipeline, "pid")
	if err != nil {
		t.Fatal(err)
	}
	return d.Width
}

func gone(t testing.TB, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives on", pid)
		}
	}
}

func code(err error) v1.Code {
	var p *v1.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

// TestWhatEndsALane: each of these costs the request that caused it, and the
// next one is answered by a new process.
func TestWhatEndsALane(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		order  string
		want   v1.Code
		detail string
		reason string
	}{
		{"abort", v1.LaneDied, "SIGABRT", "died"},
		{"abort", v1.LaneDied, "cv::Exception", "died"}, // its last words
		{"exit", v1.LaneDied, "exit status 3", "died"},
		{"hang", v1.TooSlow, "500ms", "timeout"},
		{"grow", v1.TooMuchMemory, "536870912 bytes (--lane-memory)", "memory"},
		{"garbage", v1.LaneDied, "protocol", "protocol"},
		{"huge", v1.LaneDied, "too large", "protocol"},
		{"wrong id", v1.LaneDied, "answered request", "protocol"},
		{"wrong type", v1.LaneDied, "ready", "protocol"},
	} {
		t.Run(tt.order, func(t *testing.T) {
			t.Parallel()
			p := program("p")
			timeout := 20 * time.Second
			if tt.order == "hang" {
				timeout = 500 * time.Millisecond
			}
			p.Pipelines["p"] = Pipeline{Timeout: timeout}
			p.Memory = MemoryLimit{512 << 20, "--lane-memory"}
			b := startPool(t, Config{Programs: []Program{p}})
			before := b.pid(t, "p")
			_, err := b.ask(t, context.Background(), "p", tt.order)
			if code(err) != tt.want || !strings.Contains(err.Error(), tt.detail) {
				t.Errorf("got %v, want %s with %q", err, tt.want, tt.detail)
			}
			gone(t, before)
			if !b.Status()["p"].Ready {
				t.Error("the pipeline is not ready while its lane is restarted")
			}
			if after := b.pid(t, "p"); after == before {
				t.Error("the same process answers")
			}
			if n := b.counts.restarts("p", tt.reason); n != 1 {
				t.Errorf("%v restarts are counted as %s", n, tt.reason)
			}
			if n := strings.Count(b.log.String(), `"msg":"lane ended"`); n != 1 {
				t.Errorf("the death is logged %d times:\n%s", n, b.log)
			}
		})
	}
}

// tracer keeps the attributes of spans named lane, and the events in them.
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

// TestTracer_SaysWhatHappenedToTheProcess that had a request.
func TestTracer_SaysWhatHappenedToTheProcess(t *testing.T) {
	t.Parallel()
	for want, ask := range map[string]func(*bench){
		"restart reason=died": func(b *bench) { b.ask(t, t.Context(), "p", "abort") },
		"hand-back reason=stopped": func(b *bench) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			canceled, leave := context.WithCancel(t.Context())
			defer context.AfterFunc(ctx, leave)()
			b.ask(t, canceled, "p", "hang")
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			r := &tracer{}
			b := startPool(t, Config{Programs: []Program{program("p")}, Tracer: r})
			ask(b)
			if got := "[pipeline=p lane=0 program=p]"; len(r.spans) != 1 || r.spans[0] != got {
				t.Errorf("the spans are %q, want one of %s", r.spans, got)
			}
			if len(r.events) != 1 || r.events[0] != want {
				t.Errorf("the events are %q, want %s", r.events, want)
			}
		})
	}
}

func TestProblemKeepsTheLane(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	before := b.pid(t, "p")
	if _, err := b.ask(t, context.Background(), "p", "problem"); code(err) != v1.Damaged || !strings.Contains(err.Error(), "as ordered") {
		t.Errorf("got %v", err)
	}
	if after := b.pid(t, "p"); after != before {
		t.Error("the process was replaced")
	}
}

func TestLane_CannotCancelAJob(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	_, err := b.ask(t, context.Background(), "p", "cancelled")
	if code(err) != v1.Internal {
		t.Errorf("got %.100v, want %s", err, v1.Internal)
	}
	if n := len(err.Error()); n > 2*maxDetail {
		t.Errorf("the problem has %d bytes, want about %d", n, maxDetail)
	}
}

func TestDeadlineAndCancel(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	pid := b.pid(t, "p")
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := b.ask(t, ctx, "p", "hang"); code(err) != v1.DeadlineExceeded {
		t.Errorf("deadline: %v", err)
	}
	gone(t, pid)
	pid = b.pid(t, "p")
	ctx, cancel = context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := b.ask(t, ctx, "p", "hang"); !errors.Is(err, context.Canceled) || code(err) != "" {
		t.Errorf("cancel: %v", err)
	}
	gone(t, pid)
}

func TestIdleDeathIsNoticed(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	for range 10 { // a request that comes at once has nothing to do with it
		before := b.pid(t, "p")
		syscall.Kill(before, syscall.SIGKILL)
		gone(t, before)
		if after := b.pid(t, "p"); after == before {
			t.Error("a dead process answers")
		}
	}
}

// TestRequestThatIsTooMuchToRead: a process that dies before it has the whole
// request is not the first to do so.
func TestRequestThatIsTooMuchToRead(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p", "exit-in-read")}})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := b.ask(t, ctx, "p", strings.Repeat("x", 4<<20)); code(err) != v1.LaneDied {
		t.Errorf("got %v, want %s", err, v1.LaneDied)
	}
	if n := strings.Count(b.log.String(), "exit status 4"); n > 2 {
		t.Errorf("it ended %d processes", n)
	}
}

func TestRecycling(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}, MaxJobs: 3})
	seen := map[int]int{}
	for range 9 {
		seen[b.pid(t, "p")]++
	}
	if len(seen) != 3 {
		t.Errorf("requests by process: %v, want 3 each", seen)
	}
	if strings.Contains(b.log.String(), "lane ended") {
		t.Errorf("replacing is logged as a death:\n%s", b.log)
	}
}

func TestProgramsAreApart(t *testing.T) {
	t.Parallel()
	good, refused := program("good"), Pipeline{Timeout: time.Second}
	good.Pipelines["refused"] = refused
	b := startPool(t, Config{
		Programs: []Program{good, program("aborts", "abort-in-start"), program("hangs", "hang-in-start"), {Name: "absent", Argv: []string{"/no/such/program"}, Pipelines: map[string]Pipeline{"absent": {}}}},
		Models:   "/the/models", StartTimeout: 8 * time.Second,
	})
	if _, err := b.ask(t, context.Background(), "good", "0"); err != nil {
		t.Errorf("good: %v", err)
	}
	for name, reason := range map[string]string{"refused": "no such model in /the/models", "aborts": "SIGABRT", "hangs": "timeout", "absent": "no such file"} {
		if s := b.Status()[name]; s.Ready || !strings.Contains(s.Reason, reason) {
			t.Errorf("%s: %+v, want %q", name, s, reason)
		}
	}
	l, err := b.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Pipelines(); !slices.Equal(got, []string{"good"}) {
		t.Errorf("the lane serves %v", got)
	}
	if _, err := detect(context.Background(), l, "nobody's", ""); err == nil {
		t.Error("a pipeline that no program has was served")
	}
	l.Release()
}

// TestStart_WhatFailedTakesNoTurnOfOthers has a program that hangs while it loads. From
// its second start on it waits for its own kind only.
func TestStart_WhatFailedTakesNoTurnOfOthers(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{
		Programs: []Program{program("good"), program("hangs", "hang-in-start")}, StartTimeout: 2 * time.Second,
	})
	for len(b.startingAgain) == 0 { // until it starts for the second time
		if _, err := b.ask(t, context.Background(), "good", "10"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(b.starting); n != 0 {
		t.Errorf("%d turns are taken while the good program runs, want 0", n)
	}
	before := b.pid(t, "good")
	if _, err := b.ask(t, context.Background(), "good", "exit"); err == nil {
		t.Fatal("the good program did not end")
	}
	if after := b.pid(t, "good"); after == before {
		t.Error("the good program was not started again")
	}
}

func TestLanesWorkSideBySide(t *testing.T) {
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
	if _, err := b.Acquire(expired()); !errors.Is(err, context.Canceled) {
		t.Errorf("a third lane: %v", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { detect(context.Background(), one, "p", "2000") })
	for b.Busy() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := detect(context.Background(), two, "p", "0"); err != nil {
		t.Error(err)
	}
	if n := b.Busy(); n != 1 {
		t.Errorf("%d lanes are at work, want the slow one", n)
	}
	wg.Wait()
	one.Release()
	two.Release()
	if s := b.Status()["p"]; s.ServiceMS <= 0 {
		t.Errorf("status %+v has no service time", s)
	}
}

func expired() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestWhatALaneInherits(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}, Lanes: 4})
	if d, err := b.ask(t, context.Background(), "p", "env"); err != nil || d.Regions[0].Label != "11" {
		t.Errorf("OMP_THREAD_LIMIT and GOMAXPROCS: %+v %v", d.Regions, err)
	}
	// Its own end of its own socket, FileConn's copy of that, and no end of a
	// sibling's.
	for range 4 {
		if d, err := b.ask(t, context.Background(), "p", "sockets"); err != nil || d.Width > 101 {
			t.Errorf("sockets: %+v %v", d, err)
		}
	}
}

func TestNothingIsLeftAtTheEnd(t *testing.T) {
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
	for b.Busy() == 0 {
		time.Sleep(time.Millisecond)
	}
	b.stop()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("the request in hand: %v", err)
	}
	gone(t, pid)
	if _, err := b.Acquire(context.Background()); err == nil {
		if _, err = b.Acquire(context.Background()); !errors.Is(err, ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	}
}

// runTestParent is a parent that says the pid of its lane and waits for its
// end.
func runTestParent() {
	p, err := New(Config{
		Stage: "detect", Lanes: 1, Programs: []Program{program("p")}, StartTimeout: 20 * time.Second,
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

// TestLane_RequestsTakeTurns: several requests to one lane at once each get
// their own reply.
func TestLane_RequestsTakeTurns(t *testing.T) {
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

// TestLane_ReplyOfAnotherTypeEndsIt: an answer to a question that was not asked
// is not taken for one.
func TestLane_ReplyOfAnotherTypeEndsIt(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	l, err := b.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if _, err := detect(context.Background(), l, "p", "classified"); code(err) != v1.LaneDied {
		t.Errorf("got %v, want %s", err, v1.LaneDied)
	}
}

// TestLane_ChildrenEndWithIt, also when it ends by itself.
func TestLane_ChildrenEndWithIt(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	_, err := b.ask(t, context.Background(), "p", "exit with child")
	if code(err) != v1.LaneDied {
		t.Fatalf("got %v, want %s", err, v1.LaneDied)
	}
	said := regexp.MustCompile(`child (\d+)`).FindStringSubmatch(err.Error())
	if said == nil {
		t.Fatalf("no child in %q", err)
	}
	child, err := strconv.Atoi(said[1])
	if err != nil {
		t.Fatal(err)
	}
	gone(t, child)
}

// TestLanesOfAKilledParentEnd although they are at work.
func TestLanesOfAKilledParentEnd(t *testing.T) {
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
	gone(t, d.Width)
}

// TestPool_RunsWithoutPrograms: a worker of a stage that no pipeline has waits,
// and does not end.
func TestPool_RunsWithoutPrograms(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := b.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a lane to be waited for", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"no lanes":              {},
		"no command":            {Lanes: 1, Programs: []Program{{Name: "p"}}},
		"less memory than none": {Lanes: 1, Programs: []Program{{Name: "p", Argv: []string{"p"}, Memory: MemoryLimit{Bytes: -1}}}},
		"served twice":          {Lanes: 1, Programs: []Program{program("p"), program("p")}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// BenchmarkRoundTrip is a picture of 100 KB there and 1 KB back, with no work.
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
