package pool

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// newLimitedProgram returns a program with a memory limit, which is a setting of its pipeline.
func newLimitedProgram(bytes int64, name string, args ...string) Program {
	p := program(name, args...)
	p.Memory = MemoryLimit{bytes, "detect.memory of pipeline " + name}
	return p
}

// TestPool_RejectsALaneThatIsTooLargeWhenReady checks the size at ready. Otherwise the pipeline would be ready, and
// each image would end a process.
func TestPool_RejectsALaneThatIsTooLargeWhenReady(t *testing.T) {
	t.Parallel()
	const limit = largeWhenReady - 64<<20
	b := startPool(t, Config{
		Programs: []Program{newLimitedProgram(limit, "large", "large-when-ready"), newLimitedProgram(limit, "small")},
		Lanes:    2,
	})
	s := b.Status()["large"]
	if s.Ready {
		t.Error("the pipeline is ready")
	}
	reason := regexp.MustCompile(`has (\d+) bytes .* more than the (\d+) that (.*) allows`).FindStringSubmatch(s.Reason)
	if reason == nil {
		t.Fatalf("the reason is %q, want one with both numbers", s.Reason)
	}
	if n, err := strconv.Atoi(reason[1]); err != nil || n <= limit { // it may be measured while it grows
		t.Errorf("the reason has the size %s, want more than %d", reason[1], limit)
	}
	if reason[2] != strconv.Itoa(limit) {
		t.Errorf("the reason has the limit %s, want %d", reason[2], limit)
	}
	if want := "detect.memory of pipeline large"; reason[3] != want {
		t.Errorf("the reason has the setting %q, want %q", reason[3], want)
	}
	if n := strings.Count(b.log.String(), `"msg":"lane is rejected"`); n != 1 {
		t.Errorf("it is logged %d times, want once for both lanes:\n%s", n, b.log)
	}
	if n := b.counts.restarts("large", "memory"); n != 2 {
		t.Errorf("%d processes were ended, want one for each lane", n)
	}
}

// TestPool_RejectsALaneThatGrowsWhileItLoads checks that a process that never becomes ready cannot use all memory
// until StartTimeout.
func TestPool_RejectsALaneThatGrowsWhileItLoads(t *testing.T) {
	t.Parallel()
	const limit = largeWhenReady - 64<<20
	b := startPool(t, Config{
		Programs:     []Program{newLimitedProgram(limit, "large", "large-and-hangs"), newLimitedProgram(limit, "small")},
		StartTimeout: time.Minute,
	})
	s := b.Status()["large"]
	if s.Ready {
		t.Error("the pipeline is ready")
	}
	for _, want := range []string{"while it loads its models", strconv.Itoa(limit), "detect.memory of pipeline large"} {
		if !strings.Contains(s.Reason, want) {
			t.Errorf("the reason is %q, want %q in it", s.Reason, want)
		}
	}
	if _, err := b.sendOrder(t, context.Background(), "small", "0"); err != nil {
		t.Errorf("the other program: %v", err)
	}
}

// TestPool_ServesOtherPrograms: a rejected program does not affect the others.
func TestPool_ServesOtherPrograms(t *testing.T) {
	t.Parallel()
	const limit = largeWhenReady - 64<<20
	b := startPool(t, Config{
		Programs: []Program{newLimitedProgram(limit, "large", "large-when-ready"), newLimitedProgram(limit, "small")},
	})
	if _, err := b.sendOrder(t, context.Background(), "small", "0"); err != nil {
		t.Errorf("the small one: %v", err)
	}
	l, err := b.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if got := l.Pipelines(); !slices.Equal(got, []string{"small"}) {
		t.Errorf("the lane serves %v, want only the small one", got)
	}
}

// TestPool_LimitsEachProgram: each program has its own limit.
func TestPool_LimitsEachProgram(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{
		newLimitedProgram(2*largeWhenReady, "roomy", "large-when-ready"),
		newLimitedProgram(largeWhenReady, "tight"),
		program("any", "large-when-ready"), // no limit
	}})
	for _, name := range []string{"roomy", "any"} {
		if _, err := b.sendOrder(t, context.Background(), name, "300"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := b.sendOrder(t, context.Background(), "tight", "grow")
	if problemCode(err) != v1.TooMuchMemory {
		t.Fatalf("got %v, want %s", err, v1.TooMuchMemory)
	}
	if want := "268435456 bytes (detect.memory of pipeline tight)"; !strings.Contains(err.Error(), want) {
		t.Errorf("the problem is %q, want the limit that applied: %q", err, want)
	}
}

// TestLane_PeakMemory: it is that of the process that serves the pipeline.
func TestLane_PeakMemory(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("large", "large-when-ready"), program("small")}})
	l, err := b.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	large, err := l.PeakMemory("large")
	if err != nil {
		t.Fatal(err)
	}
	if large < largeWhenReady {
		t.Errorf("the large one has %d bytes, want at least %d", large, largeWhenReady)
	}
	small, err := l.PeakMemory("small")
	if err != nil {
		t.Fatal(err)
	}
	if small <= 0 || small >= largeWhenReady {
		t.Errorf("the small one has %d bytes, want 1 to %d", small, largeWhenReady)
	}
}

func TestRestartDelay_IsLongAfterARejection(t *testing.T) {
	t.Parallel()
	longest := restartBackoff[len(restartBackoff)-1]
	rejected := &rejectedError{"large", 2, MemoryLimit{1, "--lane-memory"}, "when it is ready"}
	if d := restartDelay(rejected, 1); d < longest {
		t.Errorf("the first delay is %v, want at least %v", d, longest)
	}
	if d := restartDelay(rejected, 100); d < time.Hour {
		t.Errorf("the last delay is %v, want at least 1h", d)
	}
	if d := restartDelay(errTimeout, 1); d > time.Second {
		t.Errorf("the first delay after another end is %v, want a short one", d)
	}
	if d := restartDelay(errRecycled, 0); d != 0 {
		t.Errorf("the delay after a process that worked is %v, want none", d)
	}
}

// TestLane_MemoryOfAnEarlierRequest: a request leaves the process over its limit, and the process is ended during the
// next request, which does not fail. The test measures the process itself, because the pool could do it during the
// first request: the pool measures only processes that have a limit at start.
func TestLane_MemoryOfAnEarlierRequest(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	s := b.lanes[0].all[0]
	if _, err := b.sendOrder(t, t.Context(), "p", "leave"); err != nil {
		t.Fatalf("the large request: %v", err)
	}
	s.prog.Memory = MemoryLimit{160 << 20, "--lane-memory"}
	order, open := newGate(t)
	next := b.startOrder(t, t.Context(), "p", order)
	awaitBusy(t, b)
	s.checkMemory()
	open()
	if err := <-next; err != nil {
		t.Errorf("the request after it: %v", err)
	}
	if n := b.counts.restarts("p", "memory"); n != 1 {
		t.Errorf("%d processes were ended over their limit, want 1", n)
	}
}
