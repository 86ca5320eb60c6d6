package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// children returns the child processes of a process, by the name of their
// program.
func children(t testing.TB, parent int) map[string][]int {
	t.Helper()
	out := map[string][]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b), "(")
		name, rest, _ := strings.Cut(rest, ") ")
		fields := strings.Fields(rest)
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) || fields[0] == "Z" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = append(out[name], pid)
	}
	return out
}

func kill(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestMesh_KilledServices kills each service and each lane under load. Every
// image gets a response, and the mesh recovers.
func TestMesh_KilledServices(t *testing.T) { testKilledServices(t, start(t, nil)) }

// testKilledServices needs a mesh with one instance of each service and two lanes.
func testKilledServices(t *testing.T, m *mesh) {
	diedBefore := len(m.stderr.matchingLines(serviceDied))
	page := samplePage(t)
	stop := make(chan struct{})
	var load sync.WaitGroup
	var mu sync.Mutex
	responses := 0
	for range 2 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := m.tryPost("?pipeline=text", page)
				if a.problem.Code == v1.NoWorker {
					continue // rejected immediately while the only worker is restarted
				}
				// lane-died is the only problem allowed: the mesh cannot know
				// whether the image or this test has ended the lane.
				switch {
				case err != nil:
					t.Errorf("post an image: %v", err)
					return
				case a.result.Status != v1.Done && a.problem.Code != v1.LaneDied:
					t.Errorf("response %v, want a result or %s", a, v1.LaneDied)
					return
				}
				mu.Lock()
				responses++
				mu.Unlock()
			}
		})
	}
	awaitResponses := func() {
		mu.Lock()
		from := responses
		mu.Unlock()
		eventually.Succeeds(t, responseTimeout, func() error {
			mu.Lock()
			defer mu.Unlock()
			if responses < from+4 {
				return fmt.Errorf("%d of 4 more responses", responses-from)
			}
			return nil
		})
	}
	awaitResponses()
	// Each worker has two lanes for images, and detect has one more that draws.
	lanesOf := map[string]int{"detect": 3, "classify": 2, "results": 0}
	for _, name := range []string{"detect", "classify", "results"} {
		pids := m.pids(t, name)
		if len(pids) != 1 {
			t.Fatalf("%s has the processes %v, want one", name, pids)
		}
		lanes := children(t, pids[0])[name]
		if len(lanes) != lanesOf[name] {
			t.Fatalf("%s has lanes %v, want %d", name, lanes, lanesOf[name])
		}
		for _, lane := range lanes {
			kill(t, lane)
			awaitResponses()
		}
		lanes = children(t, pids[0])[name]
		kill(t, pids[0])
		awaitResponses()
		for _, lane := range lanes {
			eventually.Succeeds(t, responseTimeout, func() error {
				if err := syscall.Kill(lane, 0); !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("lane %d of the killed %s still runs: %w", lane, name, err)
				}
				return nil
			})
		}
	}
	close(stop)
	load.Wait()
	if died := len(m.stderr.matchingLines(serviceDied)) - diedBefore; died != 3 {
		t.Errorf("%d ends of services were logged, want 3", died)
	}
	if ended := m.stderr.matchingLines(regexp.MustCompile(`"msg":"lane ended".*"reason":"died"`)); len(ended) < 5 {
		t.Errorf("%d ends of lanes were logged, want at least 5: %v", len(ended), ended)
	}
}

// TestUp_RestartedIngressKeepsItsAddress kills the ingress. The new process
// listens on the same address.
func TestUp_RestartedIngressKeepsItsAddress(t *testing.T) {
	testRestartedIngressKeepsAddress(t, start(t, nil))
}

func testRestartedIngressKeepsAddress(t *testing.T, m *mesh) {
	kill(t, m.pids(t, "ingress")[0])
	eventually.Succeeds(t, responseTimeout, func() error {
		a, err := m.tryPost("?pipeline=faces", sampleFace(t))
		if err != nil {
			return err
		}
		if a.result.Status != v1.Done {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
}

// TestUp_NoProcessIsLeft kills `sightmesh up`. Its services and their lanes end.
func TestUp_NoProcessIsLeft(t *testing.T) {
	m := start(t, nil)
	all := []int{}
	for _, service := range services {
		for _, pid := range m.pids(t, service) {
			all = append(all, pid)
			for _, lanes := range children(t, pid) {
				all = append(all, lanes...)
			}
		}
	}
	if len(all) != 9 {
		t.Fatalf("%d processes, want 9: 4 services, 4 lanes and one lane that draws", len(all))
	}
	m.kill(t)
	for _, pid := range all {
		eventually.Succeeds(t, responseTimeout, func() error {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d still runs: %w", pid, err)
			}
			return nil
		})
	}
}

// TestUp_StopFinishesAcceptedJobs stops a mesh that has unfinished jobs. The
// request that waits gets its result. The next mesh on the same folder finishes
// the asynchronous jobs.
func TestUp_StopFinishesAcceptedJobs(t *testing.T) { testStopFinishesAcceptedJobs(t, start(t, nil)) }

func testStopFinishesAcceptedJobs(t *testing.T, m *mesh) {
	page := samplePage(t)
	var jobs []string
	for range 20 { // bulk, because a busy machine rejects the request below while many interactive jobs wait
		a := m.post(t, "?pipeline=text&priority=bulk", page, "Prefer", "respond-async")
		if a.status != http.StatusAccepted {
			t.Fatalf("response %v, want 202", a)
		}
		jobs = append(jobs, a.result.ID)
	}
	waiting := make(chan response, 1)
	face := sampleFace(t)
	post := func() {
		a, err := m.tryPost("?pipeline=faces", face)
		if err != nil {
			a.body = []byte(err.Error())
		}
		waiting <- a
	}
	go post()
	inFlight := regexp.MustCompile(`sightmesh_http_requests_in_flight 1`)
	admin := m.admin(t, "ingress")
	eventually.Succeeds(t, responseTimeout, func() error {
		if err := scrape(admin, inFlight); err == nil {
			return nil
		}
		select {
		case a := <-waiting: // the request has its response already
			if a.result.Status != v1.Done {
				t.Errorf("a request before the stop got %v, want a result", a)
			}
			go post()
			return fmt.Errorf("no request is in flight, the last response is %v", a)
		default:
			return errors.New("no request is in flight")
		}
	})
	m.stop(t)
	if a := <-waiting; a.result.Status != v1.Done {
		t.Errorf("the waiting request got %v, want a result", a)
	}

	m.restart(t)
	for _, id := range jobs {
		eventually.Succeeds(t, responseTimeout, func() error {
			if a := m.get(t, "/v1/images/"+id); a.result.Status != v1.Done {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
	}
}

// TestMesh_NoWorker suspends classify. A request is rejected immediately with
// 503 no-worker.
func TestMesh_NoWorker(t *testing.T) { testNoWorker(t, start(t, nil)) }

func testNoWorker(t *testing.T, m *mesh) {
	pid := m.pids(t, "classify")[0]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	eventually.Succeeds(t, responseTimeout, func() error {
		a := m.post(t, "?pipeline=text", samplePage(t), "Prefer", "wait=1")
		switch {
		case a.status != http.StatusServiceUnavailable:
			return fmt.Errorf("%v: status %d, want 503", a, a.status)
		case a.problem.Code != v1.NoWorker:
			return fmt.Errorf("%v: code %q, want %s", a, a.problem.Code, v1.NoWorker)
		case a.header.Get("Retry-After") == "":
			return fmt.Errorf("%v: no Retry-After", a)
		}
		return nil
	})
	if a := m.get(t, "/v1/pipelines"); !strings.Contains(string(a.body), `"ready":false`) {
		t.Errorf("pipelines %s, want one that is not ready", a.body)
	}
}

// TestMesh_Metrics reads the metrics and the probes of every service.
func TestMesh_Metrics(t *testing.T) {
	r := newReceiver(t)
	m := start(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL})
	m.postDone(t, "?pipeline=text", samplePage(t))
	m.post(t, "?pipeline=text", []byte("no image"))
	for service, patterns := range map[string][]string{
		"ingress": {
			`sightmesh_http_request_duration_seconds_count\{method="POST",route="/v1/images",status="200"\} 1`,
			`sightmesh_http_request_duration_seconds_bucket\{.*\} \d+ # \{trace_id="[0-9a-f]{32}"\}`, // the exemplar
			`sightmesh_problems_total\{code="unsupported-type"\} 1`,
			`sightmesh_backlog\{pipeline="text",priority="interactive",stage="detect"\} 0`,
		},
		"detect": {
			`sightmesh_messages_total\{outcome="done",pipeline="text",priority="interactive"\} 1`,
			`sightmesh_queue_wait_seconds_count\{pipeline="text",priority="interactive"\} 1`,
			`sightmesh_lane_jobs_total\{outcome="done",pipeline="text"\} 1`,
			`sightmesh_message_bytes_total\{direction="in"\} \d+`,
			`sightmesh_lane_count 2`,
		},
		"classify": {`sightmesh_lane_seconds_count\{pipeline="text"\} 1`},
		"results": {
			`sightmesh_results_total\{pipeline="text"\} 1`,
			`sightmesh_answers_total\{pipeline="text"\} 1`, // the former name
			`sightmesh_replies_total 1`, `go_goroutines \d+`,
		},
	} {
		admin := m.admin(t, service)
		for _, p := range patterns {
			eventually.Succeeds(t, responseTimeout, func() error { return scrape(admin, regexp.MustCompile(p)) })
		}
		for _, path := range []string{"/livez", "/readyz"} {
			res, err := http.Get(admin + path)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				t.Errorf("%s %s: %s", service, path, res.Status)
			}
		}
	}
}

// admin returns the admin address of the instance of a service that was
// started last.
func (m *mesh) admin(t testing.TB, service string) string {
	t.Helper()
	listening := regexp.MustCompile(`"msg":"listening","service":"` + service + `".*` + adminLine.String())
	found := m.stderr.lastSubmatch(listening)
	if found == nil {
		t.Fatalf("%s has not logged its admin address:\n%s", service, m.stderr)
	}
	return "http://" + found[1]
}

// scrape returns nil when a line of the metrics matches.
func scrape(admin string, re *regexp.Regexp) error {
	req, err := http.NewRequest(http.MethodGet, admin+"/metrics", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if !re.Match(body) {
		return fmt.Errorf("no %s in\n%s", re, regexp.MustCompile(`(?m)^sightmesh.*`).FindAllString(string(body), -1))
	}
	return nil
}
