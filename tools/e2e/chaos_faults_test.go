package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/tools/internal/chaos"
)

// A fault is injected into a mesh under load. Its make function returns when the
// cause of the fault is over; the mesh may not have recovered yet.
type fault struct {
	name   string // name of the subtest
	words  string // description for the table
	make   func(t testing.TB, m *chaosMesh, rng *rand.Rand)
	notRun string // the reason when the fault is not injected
}

// Durations of the faults.
const (
	overAckWait = streams.AckWait + 2*time.Second
	shortDedupe = 2 * time.Second
	overDedupe  = streams.AckWait + 2*shortDedupe
	holdTime    = 5 * time.Second
	// Streams with accepted work keep messages longer than any deadline.
	overDeadline = chaosDeadline + bulkMargin + 2*time.Second
	shortAge     = overDeadline + 30*time.Second
	sweepPeriod  = 5 * time.Second // the default of results
)

// sleepDuringFault sleeps for the duration of a fault. It does not wait for a
// condition.
func sleepDuringFault(d time.Duration) { time.Sleep(d) }

// selectFaults returns the faults of a topology in the order of the table. On
// three servers a fault takes twice the time, so faults that exercise the same
// code as others and depend little on the servers are omitted. shiftable is the
// folder with the services whose clock can be shifted.
func selectFaults(servers int, shiftable string) []fault {
	all := make([]fault, 0, 64)
	paused, held := services[1:], services
	full := []string{
		streams.Images, streams.Crops, streams.Parts, streams.Results, streams.Fetches, streams.Reports, streams.Callbacks,
	}
	if servers > 1 {
		paused, held = []string{"classify", "results"}, []string{"ingress", "results"}
		full = []string{streams.Parts, streams.Results}
	}
	for _, s := range services {
		all = append(all, killFault(1, s))
	}
	all = append(all,
		fault{"kill-two-services", "kill -9 of two services at once", killTwoServices, ""},
		fault{"kill-all-services", "kill -9 of every service at once", killAllServices, ""},
		fault{"restart-everything", "rolling restart of services and NATS by SIGTERM", restartEverything, ""},
	)
	for _, s := range services {
		all = append(all, pauseFault(s))
	}
	for _, s := range paused {
		all = append(all, pauseOverDedupeFault(s))
	}
	for _, s := range held {
		all = append(all, holdFault(s, chaos.ToServer), holdFault(s, chaos.FromServer))
	}
	all = append(all,
		fault{"cut-connections", "connections of all services to NATS cut every second, 8 times", cutConnections, ""},
		fault{
			"delay-connections", "connections of all services to NATS delayed by 50 ms each way for 8 s", delayConnections, "",
		},
		fault{"results-away", "results stopped for longer than AckWait, then started", stopResultsBeyondAckWait, ""},
		fault{
			"results-away-over-deadline",
			fmt.Sprintf("results stopped for %v, longer than any deadline; age of PARTS cut to %v", overDeadline, shortAge),
			stopResultsPastDeadline, "",
		},
	)
	for _, s := range full {
		all = append(all, fullFault(s))
	}
	if servers == 1 {
		for _, s := range services {
			all = append(all, clockFault(s, shiftable))
		}
		return append(all, fault{"kill-nats", "kill -9 of the NATS server, then started", killEveryNode, ""})
	}
	for n := range servers {
		all = append(all, fault{
			fmt.Sprint("kill-node-", n+1), fmt.Sprintf("kill -9 of NATS server %d, then started", n+1),
			func(t testing.TB, m *chaosMesh, rng *rand.Rand) { killNode(t, m, m.cluster[n], rng) }, "",
		})
	}
	for _, s := range []string{
		streams.Images, streams.Crops, streams.Parts, streams.Results, streams.Reports, streams.Fetches, streams.Callbacks,
		streams.Jobs,
	} {
		all = append(all, killLeaderFault(s))
	}
	for _, s := range []string{streams.Images, streams.Parts, streams.Results, streams.Reports} {
		all = append(all, stepDownFault(20, s))
	}
	return append(all, fault{"kill-all-nodes", "kill -9 of all three NATS servers, then started", killEveryNode, ""})
}

// victim returns one instance of a service.
func (m *chaosMesh) victim(name string, rng *rand.Rand) *chaosInstance {
	all := m.serviceInstances(name)
	return all[rng.IntN(len(all))]
}

// killFault kills one instance of each named service at the same time. It repeats
// this the given number of times.
func killFault(times int, names ...string) fault {
	return fault{
		"kill-" + strings.Join(names, "-"), "kill -9 of " + strings.Join(names, " and "),
		func(t testing.TB, m *chaosMesh, rng *rand.Rand) {
			for range times {
				for _, name := range names {
					m.victim(name, rng).signal(t, syscall.SIGKILL)
				}
			}
		}, "",
	}
}

func killTwoServices(t testing.TB, m *chaosMesh, rng *rand.Rand) {
	two := rng.Perm(len(services))[:2]
	killFault(1, services[two[0]], services[two[1]]).make(t, m, rng)
}

func killAllServices(t testing.TB, m *chaosMesh, _ *rand.Rand) {
	for _, i := range m.instances {
		i.signal(t, syscall.SIGKILL)
	}
}

// restartEverything ends one process after the other with SIGTERM. It continues
// with the next process when the previous one is ready again.
func restartEverything(t testing.TB, m *chaosMesh, rng *rand.Rand) {
	for _, n := range rng.Perm(len(m.instances)) {
		i := m.instances[n]
		before := i.service.pid()
		i.signal(t, syscall.SIGTERM)
		eventually.Succeeds(t, 2*time.Minute, func() error {
			if pid := i.service.pid(); pid == before || pid == 0 {
				return fmt.Errorf("%s was not restarted", i.name)
			}
			return i.service.ready()
		})
	}
	for _, n := range m.cluster {
		n.server.stop(t) // its exit status after SIGTERM does not matter
		n.server = nil
		n.Start(t)
		m.cluster.awaitHealthy(t)
	}
}

// pause suspends an instance and its lanes, and resumes them.
func pause(t testing.TB, i *chaosInstance, d time.Duration) {
	t.Helper()
	i.signal(t, syscall.SIGSTOP)
	sleepDuringFault(d)
	i.signal(t, syscall.SIGCONT)
}

func pauseFault(name string) fault {
	return fault{
		"pause-" + name,
		fmt.Sprintf("SIGSTOP of %s and its lanes for %v (AckWait is %v), SIGCONT", name, overAckWait, streams.AckWait),
		func(t testing.TB, m *chaosMesh, rng *rand.Rand) { pause(t, m.victim(name, rng), overAckWait) }, "",
	}
}

func pauseOverDedupeFault(name string) fault {
	return fault{
		"pause-" + name + "-over-dedupe",
		fmt.Sprintf("SIGSTOP of %s and its lanes for %v with a deduplication window of %v, SIGCONT", name, overDedupe,
			shortDedupe),
		func(t testing.TB, m *chaosMesh, rng *rand.Rand) {
			setDedupe := func(d time.Duration) {
				for _, s := range append(slices.Sorted(maps.Keys(workStreams)), streams.Results, streams.Reports) {
					m.update(t, s, func(_ *jetstream.StreamInfo, c *jetstream.StreamConfig) { c.Duplicates = d })
				}
			}
			setDedupe(shortDedupe)
			pause(t, m.victim(name, rng), overDedupe)
			// The instance runs again, and the streams must have forgotten its IDs.
			sleepDuringFault(shortDedupe)
			setDedupe(streams.DefaultDedupe)
		}, "",
	}
}

// proxies calls f for the proxies of both instances of some services.
func (m *chaosMesh) proxies(f func(*chaos.Proxy), names ...string) {
	for _, i := range m.instances {
		if slices.Contains(names, i.name) {
			for _, p := range i.proxies {
				f(p)
			}
		}
	}
}

func holdFault(name string, d chaos.Direction) fault {
	way := map[chaos.Direction]string{chaos.ToServer: "to", chaos.FromServer: "from"}[d]
	return fault{
		"hold-" + name + "-" + way + "-nats",
		fmt.Sprintf("connections of both %s to NATS: bytes %s held for %v", name, d, holdTime),
		func(_ testing.TB, m *chaosMesh, _ *rand.Rand) {
			m.proxies(func(p *chaos.Proxy) { p.Pause(d) }, name)
			sleepDuringFault(holdTime)
			m.proxies(func(p *chaos.Proxy) { p.Resume(d) }, name)
		}, "",
	}
}

func cutConnections(_ testing.TB, m *chaosMesh, _ *rand.Rand) {
	for range 8 {
		m.proxies((*chaos.Proxy).Cut, services...)
		sleepDuringFault(time.Second)
	}
}

func delayConnections(_ testing.TB, m *chaosMesh, _ *rand.Rand) {
	m.proxies(func(p *chaos.Proxy) { p.SetDelay(50 * time.Millisecond) }, services...)
	sleepDuringFault(8 * time.Second)
	m.proxies(func(p *chaos.Proxy) { p.SetDelay(0) }, services...)
}

// restartResults kills all instances of results and starts them after d.
func (m *chaosMesh) restartResults(t testing.TB, d time.Duration) {
	t.Helper()
	for _, i := range m.serviceInstances("results") {
		i.service.kill(t)
		i.service = nil
	}
	sleepDuringFault(d)
	for _, i := range m.serviceInstances("results") {
		i.start()
	}
}

func stopResultsBeyondAckWait(t testing.TB, m *chaosMesh, _ *rand.Rand) {
	m.restartResults(t, overAckWait)
}

// stopResultsPastDeadline leaves parts of jobs that are past their deadline. The
// parts are nearly as old as the maximum age of their stream.
func stopResultsPastDeadline(t testing.TB, m *chaosMesh, _ *rand.Rand) {
	var before time.Duration
	m.update(t, streams.Parts, func(_ *jetstream.StreamInfo, c *jetstream.StreamConfig) {
		before = c.MaxAge
		c.MaxAge, c.Duplicates = shortAge, min(c.Duplicates, shortAge)
	})
	m.restartResults(t, overDeadline)
	for _, i := range m.serviceInstances("results") {
		eventually.Succeeds(t, 2*time.Minute, i.service.ready)
	}
	sleepDuringFault(streams.AckWait + sweepPeriod)
	m.update(t, streams.Parts, func(_ *jetstream.StreamInfo, c *jetstream.StreamConfig) {
		c.MaxAge, c.Duplicates = before, streams.DefaultDedupe
	})
}

// clockShift is how much a clock is shifted: more than any deadline here.
const clockShift = time.Minute

// buildShiftable builds the services whose clock can be shifted, and returns
// their folder.
func buildShiftable(t testing.TB) string {
	t.Helper()
	folder := t.TempDir()
	build := exec.Command("go", "build", "-tags", "clockshift", "-o", folder+"/")
	for _, s := range services {
		build.Args = append(build.Args, "./services/"+s)
	}
	build.Dir = root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the services with a clock that can be shifted: %v\n%s", err, out)
	}
	return folder
}

// clockFault restarts one instance of a service with a clock that is ahead or
// behind, and after holdTime with the right clock.
func clockFault(name, shiftable string) fault {
	return fault{
		"clock-" + name, fmt.Sprintf("clock of one %s ahead or behind by %v for %v", name, clockShift, holdTime),
		func(t testing.TB, m *chaosMesh, rng *rand.Rand) {
			shift := clockShift
			if rng.IntN(2) == 0 {
				shift = -shift
			}
			t.Logf("the clock is shifted by %v", shift)
			i := m.victim(name, rng)
			right := *i
			i.path = filepath.Join(shiftable, name)
			i.env = append(slices.Clone(i.env), "SIGHTMESH_CLOCK_SHIFT="+shift.String())
			i.restart(t)
			sleepDuringFault(holdTime)
			i.path, i.env = right.path, right.env
			i.restart(t)
		}, "",
	}
}

// fullFault lowers the limit of a stream to its current size, and raises it again.
func fullFault(stream string) fault {
	return fault{
		"full-" + strings.ToLower(stream),
		fmt.Sprintf("%s full for %v: its limit lowered to its size, then raised", stream, holdTime),
		func(t testing.TB, m *chaosMesh, rng *rand.Rand) {
			var messages, size int64
			byBytes := rng.IntN(2) == 0
			m.update(t, stream, func(i *jetstream.StreamInfo, c *jetstream.StreamConfig) {
				messages, size = c.MaxMsgs, c.MaxBytes
				if byBytes {
					c.MaxBytes = int64(max(i.State.Bytes, 1))
				} else {
					c.MaxMsgs = int64(max(i.State.Msgs, 1))
				}
			})
			sleepDuringFault(holdTime)
			m.update(t, stream, func(_ *jetstream.StreamInfo, c *jetstream.StreamConfig) {
				c.MaxMsgs, c.MaxBytes = messages, size
			})
		}, "",
	}
}

// killNode kills a server, continues the load without it, and starts it again.
func killNode(t testing.TB, m *chaosMesh, n *node, rng *rand.Rand) {
	t.Helper()
	n.Kill(t)
	sleepDuringFault(time.Duration(rng.IntN(3000)) * time.Millisecond)
	n.Start(t)
}

func killLeaderFault(stream string) fault {
	return fault{
		"kill-leader-" + strings.ToLower(stream), "kill -9 of the NATS server that leads " + stream + ", then started",
		func(t testing.TB, m *chaosMesh, rng *rand.Rand) {
			var n *node
			eventually.Succeeds(t, responseTimeout, func() error {
				if n = m.leader(stream); n == nil {
					return fmt.Errorf("%s has no leader", stream)
				}
				return nil
			})
			killNode(t, m, n, rng)
		}, "",
	}
}

func killEveryNode(t testing.TB, m *chaosMesh, rng *rand.Rand) {
	var all sync.WaitGroup
	for _, n := range m.cluster {
		all.Go(func() { n.Kill(t) })
	}
	all.Wait()
	sleepDuringFault(time.Duration(rng.IntN(3000)) * time.Millisecond)
	for _, n := range m.cluster {
		n.Start(t)
	}
}

// stepDownFault makes the leader of a stream step down repeatedly. A request can
// fail because the stream has no leader at that time.
func stepDownFault(times int, stream string) fault {
	return fault{
		"step-down-" + strings.ToLower(stream), fmt.Sprintf("leader of %s steps down every 0.5 s, %d times", stream, times),
		func(t testing.TB, m *chaosMesh, _ *rand.Rand) {
			done := 0
			for range times {
				reply, err := m.nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, 500*time.Millisecond)
				var result struct{ Success bool }
				if err == nil && json.Unmarshal(reply.Data, &result) == nil && result.Success {
					done++
				}
				sleepDuringFault(500 * time.Millisecond)
			}
			t.Logf("%d of %d step-downs of %s were confirmed", done, times, stream)
			if done == 0 {
				t.Error("the fault was not injected")
			}
		}, "",
	}
}

// diskFull fills the file system of a server, frees the space and restarts the
// server, as an operator does.
func diskFull(t testing.TB, m *chaosMesh, _ *rand.Rand) {
	n := m.cluster[0]
	ballast := filepath.Join(filepath.Dir(n.config.Folder), "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(block)
	}
	f.Close()
	t.Logf("the disk is full: %v", err)
	sleepDuringFault(holdTime)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	n.Kill(t)
	n.Start(t)
}
