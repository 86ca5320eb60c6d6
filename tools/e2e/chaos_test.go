package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/tools/internal/chaos"
)

// The chaos suite injects faults into a mesh under load, one after the other.
// After each fault it checks that every accepted job has exactly one outcome,
// that the outcome is correct and does not change, and that no message is left.
// `make chaos` runs all faults on both topologies, `make test` a few.
//
// A seed determines the order of the faults, their times and their victims.

// Environment variables of the chaos suite. Only readChaosSettings reads them.
const (
	// A number or "random". When it is empty, only TestChaos_FewFaults runs.
	chaosSeedVariable = "SIGHTMESH_E2E_CHAOS_SEED"
	// A Markdown file with the markers of package chaos.
	chaosTableVariable = "SIGHTMESH_E2E_CHAOS_TABLE"
)

// chaosSettings are the settings of a run.
type chaosSettings struct {
	seed  uint64
	given bool   // the seed is set by the variable
	table string // a file, or empty for none
}

func readChaosSettings(t testing.TB) chaosSettings {
	t.Helper()
	s := chaosSettings{seed: rand.Uint64N(1e6), table: os.Getenv(chaosTableVariable)}
	given := os.Getenv(chaosSeedVariable)
	if s.given = given != ""; s.given && given != "random" {
		var err error
		if s.seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("%s: %v", chaosSeedVariable, err)
		}
	}
	return s
}

// chaosTime is how long a run injects new faults.
const chaosTime = 23 * time.Minute

// TestChaos_FewFaults injects a few faults, among them those that once lost jobs.
func TestChaos_FewFaults(t *testing.T) {
	s := readChaosSettings(t)
	run := newChaosRun(t, s, fewFaultDeadline, fewFaultPause)
	run.topology(t, "one-server", newCluster(t, 1), 2, []fault{
		killFault(2, "results"),
		{"kill-all-services", "kill -9 of every service at once", killAllServices, ""},
		pauseFault("detect"),
		{"kill-nats", "kill -9 of the NATS server, then started", killEveryNode, ""},
	})
	run.topology(t, "three-servers", newCluster(t, 3), 1, []fault{stepDownFault(6, "PARTS")})
	run.report(t)
}

// TestChaos_AllFaults injects every fault, on one server and on three.
func TestChaos_AllFaults(t *testing.T) {
	s := readChaosSettings(t)
	if !s.given {
		t.Skip("takes 25 minutes; make chaos runs it")
	}
	shiftable := buildShiftable(t)
	run := newChaosRun(t, s, chaosDeadline, chaosPause)
	run.fullDisk(t)
	run.topology(t, "one-server", newCluster(t, 1), 2, selectFaults(1, shiftable))
	run.topology(t, "three-servers", newCluster(t, 3), 2, selectFaults(3, shiftable))
	run.report(t)
}

// chaosRun is a run of the suite.
type chaosRun struct {
	settings chaosSettings
	deadline time.Duration // deadline of an interactive job
	pause    time.Duration // pause of a client between two rounds, for each server
	rng      *rand.Rand
	begin    time.Time
	faults   uint64 // number of faults so far
	rows     []chaos.Row
}

func newChaosRun(t testing.TB, s chaosSettings, deadline, pause time.Duration) *chaosRun {
	t.Helper()
	t.Logf("SEED=%d", s.seed)
	return &chaosRun{
		settings: s, deadline: deadline, pause: pause,
		rng: rand.New(rand.NewPCG(s.seed, 0)), begin: time.Now(),
	}
}

// topology starts a mesh on servers that do not run yet, and injects faults.
func (r *chaosRun) topology(t *testing.T, name string, c cluster, instances int, faults []fault) {
	t.Helper()
	rows := make([]chaos.Row, len(faults))
	t.Run(name, func(t *testing.T) {
		m := startChaosMesh(t, c, instances, r.deadline)
		ledgers := map[int]*chaos.Ledger{}
		for _, n := range r.rng.Perm(len(faults)) {
			f := faults[n]
			seed := r.rng.Uint64()
			row := chaos.Row{Fault: f.words, Topology: strings.ReplaceAll(name, "-", " "), NotRun: f.notRun}
			if row.NotRun == "" && time.Since(r.begin) > chaosTime {
				row.NotRun = "the time of the run was over"
			}
			made := t.Run(f.name, func(t *testing.T) {
				row.Test = t.Name()
				if row.NotRun != "" {
					t.Skip("not run: " + row.NotRun)
				}
				ledger := chaos.NewLedger(seed, r.deadline, nil)
				ledgers[n] = ledger
				r.faults++
				load := newChaosLoad(t, ledger, m.addresses(), r.pause*time.Duration(len(c)))
				row = m.runFault(t, f, row, load, rand.New(rand.NewPCG(seed, 1)))
			})
			if row.Test == "" {
				continue // excluded by -run
			}
			if !made && row.Passed() {
				row.NotRun = "the fault could not be injected"
			}
			if rows[n] = row; row.NotRun == "" && !row.Passed() && m.isCalm() != nil {
				m.restartAll(t)
			}
		}
		t.Run("outcomes-later", func(t *testing.T) {
			for n, ledger := range ledgers {
				m.lookupAgain(t, ledger)
				rows[n].Counts = ledger.Close()
			}
		})
	})
	r.rows = append(r.rows, slices.DeleteFunc(rows, func(row chaos.Row) bool { return row.Test == "" })...)
}

// fullDisk injects the fault that needs its own file system. Mounting it needs root.
func (r *chaosRun) fullDisk(t *testing.T) {
	t.Helper()
	f := fault{"disk-full", "disk of NATS full for 5 s, then free again and NATS restarted", diskFull, ""}
	c := newCluster(t, 1)
	disk := t.TempDir()
	if err := syscall.Mount("sightmesh-chaos", disk, "tmpfs", 0, "size=64m"); err != nil {
		f.notRun = fmt.Sprintf("mounting a file system needs root: %v", err)
	} else {
		c[0].config.Folder = filepath.Join(disk, "nats")
		t.Cleanup(func() {
			c[0].Kill(t)
			if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	r.topology(t, "one-server-on-its-own-disk", c, 2, []fault{f})
}

// report logs the table, and writes it to the file of the settings.
func (r *chaosRun) report(t *testing.T) {
	t.Helper()
	table := fmt.Sprintf("Seed %d, %s. %d faults in %v.\n\n%s", r.settings.seed, time.Now().Format(time.DateOnly),
		r.faults, time.Since(r.begin).Round(time.Second), chaos.Markdown(r.rows))
	t.Logf("\n%s", table)
	if r.settings.table == "" {
		return
	}
	before, err := os.ReadFile(r.settings.table)
	if err != nil {
		t.Fatal(err)
	}
	after, err := chaos.Replace(before, "chaos", table)
	if err != nil {
		t.Fatalf("%s: %v", r.settings.table, err)
	}
	if err := os.WriteFile(r.settings.table, after, 0o644); err != nil {
		t.Fatal(err)
	}
}

// recoveryPatience is how long clients may wait after a fault. A slow recovery is
// no failure, but a client without an outcome after this time is.
const recoveryPatience = 3 * time.Minute

// runFault injects a fault under load, and then checks every guarantee.
func (m *chaosMesh) runFault(t *testing.T, f fault, row chaos.Row, load *chaosLoad, rng *rand.Rand) chaos.Row {
	t.Helper()
	ledger := load.ledger
	warnings := len(m.log.matchingLines(warningLine))
	defer load.stop(0)
	if _, err := load.awaitRound(time.Time{}, recoveryPatience); err != nil {
		ledger.Violate(chaos.Pending, "before the fault: %v", err)
	}
	load.awaitRounds(rng.IntN(60), responseTimeout) // the seed determines the time of the fault
	ledger.Watch()
	f.make(t, m, rng)
	end := time.Now()
	last, err := load.awaitRound(end, recoveryPatience)
	if err != nil {
		ledger.Violate(chaos.Pending, "%v", err)
	} else {
		row.Recovery = time.Since(end)
	}
	load.stop(chaosPatience)
	m.drain(ledger)
	row.Counts = ledger.Close()
	t.Logf("%s: %d accepted, %d rejected %v, %d unanswered, %d expired, stall %.1f s, recovery %.1f s with %q",
		f.name, row.Accepted, row.Rejected, row.Codes, row.Unanswered, len(row.Expired), row.Stall.Seconds(),
		row.Recovery.Seconds(), last)
	if len(row.Expired) > 0 {
		t.Logf("expired:\n%s", strings.Join(row.Expired, "\n"))
	}
	for guarantee, all := range row.Broken {
		t.Errorf("%d %s:\n%s", len(all), guarantee, strings.Join(all[:min(len(all), 10)], "\n"))
	}
	if t.Failed() || len(row.Expired) > 0 {
		t.Logf("warnings and errors of the services:\n%s", strings.Join(m.warnings(warnings), "\n"))
	}
	return row
}

// drain waits until every job has its outcome, every webhook was called and no
// message is left. It records violations.
func (m *chaosMesh) drain(ledger *chaos.Ledger) {
	look := &chaosClient{
		chaosLoad: &chaosLoad{ledger: ledger, to: m.addresses(), ctx: context.Background()}, name: "drain",
	}
	eventually.Retry(chaosPatience, func() error { // open jobs are recorded below
		look.lookupAll(ledger.Open())
		if open := ledger.Open(); len(open) > 0 {
			return fmt.Errorf("%d jobs are open", len(open))
		}
		return nil
	})
	for _, j := range ledger.Open() {
		a, err := look.request(http.MethodGet, "/v1/images/"+j.ID, "", nil)
		ledger.Violate(chaos.Lost, "%s: job %s has no outcome: %v %v", j.Image.Client, j.ID, a, err)
	}
	eventually.Retry(chaosPatience, func() error { // missing webhooks are recorded below
		if uncalled := ledger.WithoutWebhook(); len(uncalled) > 0 {
			return fmt.Errorf("%d webhooks were not called", len(uncalled))
		}
		return nil
	})
	for _, j := range ledger.WithoutWebhook() {
		a, err := look.request(http.MethodGet, "/v1/images/"+j.ID, "", nil)
		if err == nil && a.result.Callback != nil && a.result.Callback.State == "pending" && a.result.Callback.Attempts > 0 {
			continue // attempts have failed, and the next one follows after minutes
		}
		ledger.Violate(chaos.Lost, "%s: the webhook of job %s was not called: %v %v", j.Image.Client, j.ID, a, err)
	}
	if err := eventually.Retry(chaosPatience, m.isCalm); err != nil {
		ledger.Violate(chaos.Pending, "%v", err)
	}
	for _, again := range m.storeFaults {
		ledger.Violate(chaos.Changed, "%s", again)
	}
	m.storeFaults = nil
	for id, s := range m.stored {
		ledger.Store(id, s.sum)
	}
	look.lookupAll(ledger.Jobs())
}

// lookupAll looks up jobs, several at a time.
func (c *chaosClient) lookupAll(jobs []chaos.Job) {
	var all sync.WaitGroup
	for some := range slices.Chunk(jobs, max(1, len(jobs)/8+1)) {
		all.Go(func() {
			for _, j := range some {
				c.lookup(j.Image, j.ID, "") // the caller reads the open jobs from the ledger
			}
		})
	}
	all.Wait()
}

// lookupAgain looks up every job of an earlier fault once more.
func (m *chaosMesh) lookupAgain(t *testing.T, ledger *chaos.Ledger) {
	t.Helper()
	before := len(ledger.Close().Broken[chaos.Changed])
	look := &chaosClient{chaosLoad: &chaosLoad{ledger: ledger, to: m.addresses(), ctx: t.Context()}, name: "later"}
	look.lookupAll(ledger.Jobs())
	if changed := ledger.Close().Broken[chaos.Changed]; len(changed) > before {
		t.Errorf("outcomes changed after their fault: %v", changed[before:])
	}
}

// restartAll restarts every process, so that damage of one fault does not count
// against the next.
func (m *chaosMesh) restartAll(t testing.TB) {
	t.Helper()
	m.stopServices(t)
	for _, n := range m.cluster {
		n.Kill(t)
	}
	m.cluster.start(t)
	for _, i := range m.instances {
		i.start()
	}
	m.awaitReady(t)
}
