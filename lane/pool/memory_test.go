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

// limited is a program whose processes may have so many bytes, which its
// pipeline says.
func limited(bytes int64, name string, args ...string) Program {
	p := program(name, args...)
	p.Memory = MemoryLimit{bytes, "detect.memory of pipeline " + name}
	return p
}

// TestPool_RefusesALaneThatIsTooLargeWhenReady is of the row Lanes of the
// cases: it was ended by its first image and started again without end, and its
// pipeline was ready.
func TestPool_RefusesALaneThatIsTooLargeWhenReady(t *testing.T) {
	t.Parallel()
	const limit = largeWhenReady - 64<<20
	b := startPool(t, Config{
		Programs: []Program{limited(limit, "large", "large-when-ready"), limited(limit, "small")},
		Lanes:    2,
	})
	s := b.Status()["large"]
	if s.Ready {
		t.Error("the pipeline is ready")
	}
	said := regexp.MustCompile(`has (\d+) bytes .* more than the (\d+) that (.*) allows`).FindStringSubmatch(s.Reason)
	if said == nil {
		t.Fatalf("the reason is %q, want one with both numbers", s.Reason)
	}
	if n, err := strconv.Atoi(said[1]); err != nil || n <= limit { // it may be seen while it grows
		t.Errorf("it says that the process has %s bytes, want more than %d", said[1], limit)
	}
	if said[2] != strconv.Itoa(limit) {
		t.Errorf("it says that the limit is %s, want %d", said[2], limit)
	}
	if want := "detect.memory of pipeline large"; said[3] != want {
		t.Errorf("it names the setting %q, want %q", said[3], want)
	}
	if n := strings.Count(b.log.String(), `"msg":"lane is refused"`); n != 1 {
		t.Errorf("it is logged %d times, want once for both lanes:\n%s", n, b.log)
	}
	if n := b.counts.restarts("large", "memory"); n != 2 {
		t.Errorf("%d processes were ended, want one for each lane", n)
	}
}

// TestPool_RefusesALaneThatGrowsWhileItLoads ends it before it has taken the memory of
// the machine: one that never gets ready was ended by the time it may take, only.
func TestPool_RefusesALaneThatGrowsWhileItLoads(t *testing.T) {
	t.Parallel()
	const limit = largeWhenReady - 64<<20
	b := startPool(t, Config{
		Programs: []Program{limited(limit, "large", "large-and-hangs"), limited(limit, "small")}, StartTimeout: time.Minute,
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
	if _, err := b.ask(t, context.Background(), "small", "0"); err != nil {
		t.Errorf("the other program: %v", err)
	}
}

// TestPool_ServesOthersBesideARefusedLane: the lanes go on with the programs
// that fit.
func TestPool_ServesOthersBesideARefusedLane(t *testing.T) {
	t.Parallel()
	const limit = largeWhenReady - 64<<20
	b := startPool(t, Config{
		Programs: []Program{limited(limit, "large", "large-when-ready"), limited(limit, "small")},
	})
	if _, err := b.ask(t, context.Background(), "small", "0"); err != nil {
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

// TestPool_LimitsEachProgramByItself: a program with more room keeps what
// another may not have.
func TestPool_LimitsEachProgramByItself(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{
		limited(2*largeWhenReady, "roomy", "large-when-ready"),
		limited(largeWhenReady, "tight"),
		program("any", "large-when-ready"), // no limit
	}})
	for _, name := range []string{"roomy", "any"} {
		if _, err := b.ask(t, context.Background(), name, "300"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := b.ask(t, context.Background(), "tight", "grow")
	if code(err) != v1.TooMuchMemory {
		t.Fatalf("got %v, want %s", err, v1.TooMuchMemory)
	}
	if want := "268435456 bytes (detect.memory of pipeline tight)"; !strings.Contains(err.Error(), want) {
		t.Errorf("the problem is %q, want the limit that counted: %q", err, want)
	}
}

// TestLane_PeakMemory measures the process that serves a pipeline, and no other.
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
		t.Errorf("the small one has %d bytes, want fewer than %d", small, largeWhenReady)
	}
}

func TestRestartDelay_IsLongAfterARefusal(t *testing.T) {
	t.Parallel()
	longest := restartBackoff[len(restartBackoff)-1]
	refused := &refusedError{"large", 2, MemoryLimit{1, "--lane-memory"}, "when it is ready"}
	if d := restartDelay(refused, 1); d < longest {
		t.Errorf("the first delay is %v, want at least %v", d, longest)
	}
	if d := restartDelay(refused, 100); d < time.Hour {
		t.Errorf("the last delay is %v, want at least 1h", d)
	}
	if d := restartDelay(errTimeout, 1); d > time.Second {
		t.Errorf("the first delay after another end is %v, want a short one", d)
	}
	if d := restartDelay(errRecycled, 0); d != 0 {
		t.Errorf("the delay after a process that worked is %v, want none", d)
	}
}

// TestMemoryOfAnother: a lane that was left large by one request does not fail
// the next one.
func TestMemoryOfAnother(t *testing.T) {
	t.Parallel()
	p := program("p")
	p.Memory = MemoryLimit{160 << 20, "--lane-memory"}
	b := startPool(t, Config{Programs: []Program{p}})
	for range 10 {
		if _, err := b.ask(t, context.Background(), "p", "leave"); err != nil {
			t.Logf("the large one: %v", err)
		}
		if _, err := b.ask(t, context.Background(), "p", "200"); err != nil {
			t.Errorf("an innocent one: %v", err)
		}
	}
}
