package up

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/tools/internal/setup"
)

// services are the names of the services, in the order in which they stop.
var services = []string{"ingress", "detect", "classify", "results"}

// startUp runs up with fake services. stop ends it and returns its error.
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
	t.Setenv("GORACE", "atexit_sleep_ms=0") // otherwise each service takes a second to exit
	stdout, stderr = &output{}, &output{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{
			HTTP: "127.0.0.1:0", NATS: "127.0.0.1:0", Data: t.TempDir(), Lanes: 1, Sample: "none", Log: "text",
			Grace: testTimeout, Reserve: 1 << 20, Setup: setup.Config{MaxStore: streams.MinStore},
		}, stdout, stderr)
	}()
	return stdout, stderr, func() error {
		cancel()
		return <-done
	}
}

func TestRun_StopOrder(t *testing.T) {
	stdout, stderr, stop := startUp(t, "works")
	eventually.Succeeds(t, testTimeout, func() error {
		if !strings.Contains(stdout.String(), "\n") {
			return fmt.Errorf("the mesh is not ready, and has printed\n%s", stderr)
		}
		return nil
	})
	line := regexp.MustCompile(`^ready http=http://127\.0\.0\.1:\d+ nats=(nats://127\.0\.0\.1:\d+)\n$`)
	ready := line.FindStringSubmatch(stdout.String())
	if ready == nil {
		t.Fatalf("the standard output is %q, want the line ready", stdout)
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
		t.Errorf("the services stopped in the order %v, want %v", order, services)
	}
	if _, err := nats.Connect(ready[1]); err == nil {
		t.Error("NATS still runs")
	}
}

func TestRun_InterruptWhileStarting(t *testing.T) {
	for name, awaitServices := range map[string]bool{"immediately": false, "while services start": true} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, stop := startUp(t, "never ready")
			if awaitServices {
				eventually.Succeeds(t, testTimeout, func() error {
					if n := strings.Count(stderr.String(), "name=http"); n != len(services) {
						return fmt.Errorf("%d services listen, want %d", n, len(services))
					}
					return nil
				})
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if s := stdout.String(); s != "" {
				t.Errorf("the standard output is %q, want nothing", s)
			}
		})
	}
}

func TestRun_NamesMissingBinary(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	cfg := Config{Data: t.TempDir(), Sample: "none", Log: "json", Setup: setup.Config{MaxStore: streams.MinStore}}
	err := Run(t.Context(), cfg, &output{}, &output{})
	if want := "find service ingress"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want %q in it", err, want)
	}
}

func TestRun_JaegerMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := Run(t.Context(), Config{Data: t.TempDir(), Sample: "none", Log: "json", Jaeger: true}, &output{}, &output{})
	if want := "make jaeger"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want %q in it", err, want)
	}
}

// TestRun_ChildrenStopWithParent kills up, as the kernel does when memory runs out. Its
// services end as well.
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
			t.Errorf("the service logged %s: %v", lines.Bytes(), err)
		}
	}
	listens := func() bool {
		c, err := net.Dial("tcp", listening.Addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if !listens() {
		t.Errorf("the service does not listen on %s", listening.Addr)
	}
	if err := up.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	up.Wait() // the error says that the process was killed
	eventually.Succeeds(t, testTimeout, func() error {
		if listens() {
			return fmt.Errorf("the service still listens on %s", listening.Addr)
		}
		return nil
	})
}
