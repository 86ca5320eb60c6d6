//go:build interop_clients

package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// natscli runs commands of the program nats, which make interop-clients builds, in a
// folder with the file page.png. Their output is not a terminal.
type natscli struct {
	dir string
	env []string
	nc  *nats.Conn
}

func newNATSCLI(t *testing.T, m *mesh, page []byte) natscli {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "page.png"), page, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Dir(binary(t, "nats")) + string(os.PathListSeparator) + os.Getenv("PATH")
	return natscli{dir: dir, env: append(os.Environ(), "PATH="+path, "HOME="+dir, "NATS_URL="+m.nats), nc: m.connect(t)}
}

func (n natscli) command(line string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", "exec "+line)
	cmd.Dir, cmd.Env = n.dir, n.env
	return cmd
}

// run runs a command and returns its output.
func (n natscli) run(t *testing.T, line string) string {
	t.Helper()
	out, err := n.command(line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// result runs a command that prints only a result, and returns the result.
func (n natscli) result(t *testing.T, line string) (r v1.Result) {
	t.Helper()
	out, err := n.command(line).Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return r
}

// watch runs a command that prints until it is killed. It calls cause repeatedly until
// the output matches, and then kills the command.
func (n natscli) watch(t *testing.T, line string, cause func(), printed *regexp.Regexp) {
	t.Helper()
	out := newLines()
	cmd := n.command(line)
	cmd.Stdout, cmd.Stderr = out.writer(), out.writer()
	p, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill(t)
	eventually.Succeeds(t, responseTimeout, func() error {
		cause()
		if _, ok := out.search(printed, 2*time.Second); !ok {
			return fmt.Errorf("%s does not print %s:\n%s", line, printed, out)
		}
		return nil
	})
}

// exampleJob is the job of the examples in docs/nats.md.
var exampleJob = regexp.MustCompile(`01M7[0-9A-Z]{22}`)

// documentedCommands returns the commands of docs/nats.md.
func documentedCommands(t *testing.T) (commands []string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "nats.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^    (nats .*)$`).FindAllStringSubmatch(string(page), -1) {
		commands = append(commands, m[1])
	}
	return commands
}

// TestClientsNATS_DocumentedCommands runs each command of docs/nats.md.
func TestClientsNATS_DocumentedCommands(t *testing.T) {
	m := start(t, nil)
	// A template after the end of the image, which nats would expand.
	page := append(samplePage(t), "{{ID}}"...)
	n, sum := newNATSCLI(t, m, page), fmt.Sprintf("%x", sha256.Sum256(page))
	var job string // the job of the command that does not wait
	contains := func(want ...string) func(*testing.T, string) {
		return func(t *testing.T, line string) {
			out := n.run(t, line)
			for _, w := range want {
				if !strings.Contains(out, w) {
					t.Errorf("%s does not print %s:\n%s", line, w, out)
				}
			}
		}
	}
	checks := map[string]func(t *testing.T, line string){
		"nats req --raw --no-templates --force-stdin --timeout 30s sight.v1.analyze.text < page.png": func(
			t *testing.T, line string,
		) {
			switch r := n.result(t, line); {
			case r.Status != v1.Done:
				t.Errorf("the status is %s, want %s: %+v", r.Status, v1.Done, r)
			case len(r.Regions) != 6:
				t.Errorf("%d regions, want the 6 lines of the page: %+v", len(r.Regions), r.Regions)
			case r.Image.SHA256 != sum:
				t.Errorf("the image has the SHA-256 %s, want that of the file, %s", r.Image.SHA256, sum)
			}
		},
		"nats req --raw --no-templates --force-stdin -H Prefer:respond-async -H Sight-Priority:bulk " +
			"sight.v1.analyze.text < page.png": func(t *testing.T, line string) {
			r := n.result(t, line)
			if r.Status != v1.Queued {
				t.Errorf("the status is %s, want %s", r.Status, v1.Queued)
			}
			job = r.ID
		},
		"nats req sight.v1.lookup.JOB ''": func(t *testing.T, line string) {
			eventually.Succeeds(t, responseTimeout, func() error {
				if out := n.run(t, strings.Replace(line, "JOB", job, 1)); !strings.Contains(out, `"status":"done"`) {
					return fmt.Errorf("the job is not done: %s", out)
				}
				return nil
			})
		},
		"nats sub sight.v1.events.JOB": func(t *testing.T, line string) {
			n.testEvents(t, line)
		},
		"nats sub 'sight.v1.results.text.>'": func(t *testing.T, line string) {
			n.watch(t, line, func() {
				if _, err := n.nc.Request(subject.Analyze("text"), samplePage(t), responseTimeout); err != nil {
					t.Fatal(err)
				}
			}, regexp.MustCompile(`"status":"done"`))
		},
		"nats req sight.v1.cancel.JOB ''": func(t *testing.T, line string) {
			contains(`"was":"queued"`)(t, strings.Replace(line, "JOB", n.waitingJob(t), 1))
		},
		"nats req sight.v1.status.detect '' --replies 0": contains(`"service":"detect"`, `"lanes":2`),
		"nats micro info ingress": contains("max_bytes: 8388608", "pipelines: ", "response_schema: ", "result.json",
			"sight.v1.analyze.*"),
		"nats micro stats ingress": contains("ingress", "analyze"),
		"nats pub --jetstream --no-templates --force-stdin -H Nats-Msg-Id:scan-0001.images " +
			"sight.v1.images.text.bulk.scan-0001 < page.png": contains("IMAGES"),
		"nats req sight.v1.lookup.scan-0001 ''": func(t *testing.T, line string) {
			eventually.Succeeds(t, responseTimeout, func() error {
				if out := n.run(t, line); !strings.Contains(out, sum) {
					return fmt.Errorf("the job is not done with the image %s: %s", sum, out)
				}
				return nil
			})
		},
	}
	run := map[string]bool{}
	for _, line := range documentedCommands(t) {
		line = exampleJob.ReplaceAllString(line, "JOB")
		check, ok := checks[line]
		if !ok {
			t.Errorf("no check for the command %s", line)
			continue
		}
		if !run[line] {
			t.Run(line, func(t *testing.T) { check(t, line) })
		}
		run[line] = true
	}
	for line := range checks {
		if !run[line] {
			t.Errorf("docs/nats.md has no command %s", line)
		}
	}
}

// testEvents subscribes to the events of a job, and then publishes the job.
func (n natscli) testEvents(t *testing.T, line string) {
	c, err := client.New(n.nc)
	if err != nil {
		t.Fatal(err)
	}
	job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "watched"}
	published := false
	n.watch(t, strings.Replace(line, "JOB", job.ID, 1), func() {
		// Events are published only once.
		if published || !n.hasSubscriber(t, subject.Events(job.ID)) {
			return
		}
		published = true
		if err := c.SubmitJob(t.Context(), job, samplePage(t)); err != nil {
			t.Fatal(err)
		}
	}, regexp.MustCompile(`"event":"done"`))
}

// hasSubscriber publishes a request that nothing replies to, and reports whether a subscriber received it. Without a
// subscriber, the server sends a message to the inbox before it confirms the flush.
func (n natscli) hasSubscriber(t *testing.T, subj string) bool {
	t.Helper()
	inbox := n.nc.NewInbox()
	sub, err := n.nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	if err := n.nc.PublishRequest(subj, inbox, nil); err != nil {
		t.Fatal(err)
	}
	if err := n.nc.FlushTimeout(responseTimeout); err != nil {
		t.Fatal(err)
	}
	noResponders, _, err := sub.Pending()
	if err != nil {
		t.Fatal(err)
	}
	return noResponders == 0
}

// waitingJob returns a job of a pipeline that no worker serves.
func (n natscli) waitingJob(t *testing.T) string {
	t.Helper()
	js, err := jetstream.New(n.nc)
	if err != nil {
		t.Fatal(err)
	}
	job := subject.Job{Pipeline: "nosuch", Priority: subject.Bulk, ID: "waiting"}
	if _, err := js.Publish(t.Context(), subject.Images(job), []byte("an image")); err != nil {
		t.Fatal(err)
	}
	return job.ID
}

// TestClientsNATS_MicroStatsCountsProblems reads the output of `nats micro stats`.
func TestClientsNATS_MicroStatsCountsProblems(t *testing.T) {
	n := newNATSCLI(t, start(t, nil), samplePage(t))
	for _, line := range []string{
		"nats req --raw --no-templates --force-stdin --timeout 30s sight.v1.analyze.text < page.png",
		"nats req --raw sight.v1.analyze.cats ''",
		"nats req --raw -H Sight-Prio:bulk sight.v1.analyze.text 'no image'",
	} {
		n.run(t, line)
	}
	var stats []struct {
		Endpoints []struct {
			Name           string        `json:"name"`
			Requests       int           `json:"num_requests"`
			Errors         int           `json:"num_errors"`
			LastError      string        `json:"last_error"`
			ProcessingTime time.Duration `json:"processing_time"`
		} `json:"endpoints"`
	}
	out := n.run(t, "nats micro stats ingress --json")
	if err := json.Unmarshal([]byte(out), &stats); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, e := range stats[0].Endpoints {
		if e.Name != "analyze" {
			continue
		}
		if e.Requests != 3 {
			t.Errorf("%d requests are counted, want 3", e.Requests)
		}
		if e.Errors != 2 {
			t.Errorf("%d errors are counted, want 2", e.Errors)
		}
		for _, want := range []string{"unknown-field: ", "Sight-Prio"} {
			if !strings.Contains(e.LastError, want) {
				t.Errorf("the last error is %q, want %q in it", e.LastError, want)
			}
		}
		if e.ProcessingTime < time.Millisecond {
			t.Errorf("the processing time is %v, want at least 1 ms for a page", e.ProcessingTime)
		}
		return
	}
	t.Errorf("there is no endpoint analyze: %s", out)
}
