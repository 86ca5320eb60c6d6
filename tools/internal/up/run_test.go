package up

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/tools/internal/setup"
)

// services in the order in which they are to stop.
var services = []string{"ingress", "detect", "classify", "results"}

// startUp runs up with fake services until the returned function is called,
// which gives its error.
func startUp(t *testing.T, mode string) (stdout, stderr *output, stop func() error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir()
	for _, s := range services {
		if err := os.Symlink(self, filepath.Join(path, s)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", path)
	t.Setenv("FAKE_MODE", mode)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // or each of them takes a second to exit
	stdout, stderr = &output{}, &output{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{
			HTTP: "127.0.0.1:0", NATS: "127.0.0.1:0", Data: t.TempDir(), Lanes: 1, Sample: "none", Log: "text", Grace: 20 * time.Second,
			Reserve: 1 << 20, Setup: setup.Config{MaxStore: streams.LeastStore},
		}, stdout, stderr)
	}()
	return stdout, stderr, func() error {
		cancel()
		return <-done
	}
}

func TestRun_StopOrder(t *testing.T) {
	stdout, stderr, stop := startUp(t, "works")
	waitFor(t, "the mesh to be ready", func() bool { return strings.Contains(stdout.String(), "\n") })
	ready := regexp.MustCompile(`^ready http=http://127\.0\.0\.1:\d+ nats=(nats://127\.0\.0\.1:\d+)\n$`).FindStringSubmatch(stdout.String())
	if ready == nil {
		t.Fatalf("it said %q", stdout)
	}
	nc, err := nats.Connect(ready[1])
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
	var order []string
	for line := range strings.Lines(stderr.String()) {
		if strings.HasSuffix(line, " asked to end\n") {
			order = append(order, strings.Fields(line)[0])
		}
	}
	if !slices.Equal(order, services) {
		t.Errorf("stopped in the order %v, want %v", order, services)
	}
	if _, err := nats.Connect(ready[1]); err == nil {
		t.Error("NATS is still there")
	}
}

func TestRun_InterruptWhileStarting(t *testing.T) {
	for name, comeUp := range map[string]bool{"at once": false, "while services come up": true} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, stop := startUp(t, "never ready")
			if comeUp {
				waitFor(t, "the services", func() bool { return strings.Count(stderr.String(), "name=http") == len(services) })
			}
			if err := stop(); err != nil {
				t.Errorf("got %v", err)
			}
			if s := stdout.String(); s != "" {
				t.Errorf("it said %q", s)
			}
		})
	}
}

func TestRun_NamesMissingBinary(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	cfg := Config{Data: t.TempDir(), Sample: "none", Log: "json", Setup: setup.Config{MaxStore: streams.LeastStore}}
	err := Run(t.Context(), cfg, &output{}, &output{})
	switch {
	case err == nil:
		t.Errorf("got %v: no error", err)
	case !strings.Contains(err.Error(), "find service ingress"):
		t.Errorf(`got %v: want strings.Contains(err.Error(), "find service ingress")`, err)
	}
}

func TestRun_JaegerMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := Run(t.Context(), Config{Data: t.TempDir(), Sample: "none", Log: "json", Jaeger: true}, &output{}, &output{})
	switch {
	case err == nil:
		t.Errorf("got %v, want an error that names make jaeger: no error", err)
	case !strings.Contains(err.Error(), "make jaeger"):
		t.Errorf(`got %v, want an error that names make jaeger: want strings.Contains(err.Error(), "make jaeger")`,
			err)
	}
}

// TestRun_ChildrenStopWithParent kills up as the kernel would when memory runs out.
func TestRun_ChildrenStopWithParent(t *testing.T) {
	t.Parallel()
	up := exec.Command(os.Args[0], "parent")
	stdout, err := up.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	var listening struct{ Name, Addr string }
	for lines := bufio.NewScanner(stdout); listening.Name != "http" && lines.Scan(); {
		if err := json.Unmarshal(lines.Bytes(), &listening); err != nil {
			t.Errorf("the service said %s", lines.Bytes())
		}
	}
	alive := func() bool {
		c, err := net.Dial("tcp", listening.Addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if !alive() {
		t.Errorf("the service does not listen on %s", listening.Addr)
	}
	if err := up.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	up.Wait() // says that it was killed
	waitFor(t, "the end of the service", func() bool { return !alive() })
}
