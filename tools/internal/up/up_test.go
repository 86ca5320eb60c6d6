package up

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/eventually"
)

// TestMain also makes the test binary a service that up starts, when it has the name of
// a service or the argument "service", and a parent to be killed, with the argument
// "parent".
func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); {
	case slices.Contains(services, name):
		fakeService(append([]string{os.Getenv("FAKE_MODE")}, os.Args[1:]...))
		return
	case len(os.Args) > 1 && os.Args[1] == "service":
		fakeService(os.Args[2:])
		return
	case len(os.Args) > 1 && os.Args[1] == "parent":
		out := newPrinter(os.Stdout, true)
		newChild("detect", []string{os.Args[0], "service", "works"}, nil, slog.New(slog.DiscardHandler), out).run()
		return
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// fakeService logs its listen addresses, is ready unless the mode says otherwise, and
// ends with SIGTERM.
func fakeService(args []string) {
	mode, addr := args[0], "127.0.0.1:0"
	for i, a := range args {
		if a == "--http" {
			addr = args[i+1]
		}
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	for _, name := range []string{"admin", "http"} {
		l, err := net.Listen("tcp", map[string]string{"admin": "127.0.0.1:0", "http": addr}[name])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if mode == "never ready" {
				http.Error(w, "not ready: loading models", http.StatusServiceUnavailable)
			}
		}))
		slog.New(slog.NewJSONHandler(os.Stderr, nil)).Info("listening", "name", name, "addr", l.Addr().String(), "pid",
			os.Getpid())
	}
	if mode == "dies" {
		fmt.Fprintln(os.Stderr, "these are my last words")
		os.Exit(7)
	}
	<-term
	fmt.Fprintln(os.Stderr, "asked to end")
	if mode == "stubborn" {
		select {}
	}
}

type output struct {
	mu sync.Mutex
	bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Buffer.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Buffer.String()
}

func startChild(t *testing.T, mode string) (*child, *output) {
	t.Helper()
	out := &output{}
	p := newPrinter(out, true)
	c := newChild("detect", []string{os.Args[0], "service", mode}, nil, slog.New(slog.NewJSONHandler(p, nil)), p)
	go c.run()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		c.stop(ctx)
	})
	return c, out
}

// testTimeout limits waits that only a test that hangs reaches.
const testTimeout = time.Minute

func childPID(c *child) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		return 0
	}
	return c.cmd.Process.Pid
}

func TestChild_RestartsOnSameAddress(t *testing.T) {
	c, _ := startChild(t, "works")
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := c.awaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	addr, err := c.awaitAddress(ctx, "http")
	if err != nil {
		t.Fatal(err)
	}
	before := childPID(c)
	syscall.Kill(before, syscall.SIGKILL)
	eventually.Succeeds(t, testTimeout, func() error {
		if p := childPID(c); p == 0 || p == before {
			return fmt.Errorf("the process is %d, want another one than %d", p, before)
		}
		return nil
	})
	switch after, err := c.awaitAddress(ctx, "http"); {
	case err != nil:
		t.Error(err)
	case after != addr:
		t.Errorf("the address after the restart is %s, want %s", after, addr)
	}
	if err := c.awaitReady(ctx); err != nil {
		t.Error(err)
	}
}

func TestChild_LogsWhyItIsNotReady(t *testing.T) {
	c, out := startChild(t, "never ready")
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.awaitReady(ctx) }()
	awaitOutput(t, out, `"reason":"detect: not ready: loading models"`)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v", err, context.Canceled)
	}
}

func TestChild_RestartDelayGrows(t *testing.T) {
	_, out := startChild(t, "dies")
	eventually.Succeeds(t, testTimeout, func() error {
		if n := strings.Count(out.String(), "service died"); n < 3 {
			return fmt.Errorf("the service has died %d times, want 3", n)
		}
		return nil
	})
	for _, want := range []string{"these are my last words", "exit status 7"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	// Records of its log, such as listening, were printed before.
	if want := `"output":"these are my last words"`; !strings.Contains(out.String(), want) {
		t.Errorf("no %s in\n%s", want, out)
	}
	for i, d := range loggedRestartDelays(t, out)[:3] {
		if want := restartBackoff[i]; d < want || d > want+want/4 {
			t.Errorf("delay %d is %v, want %v and at most a quarter more", i+1, d, want)
		}
	}
}

var delayOfRestart = regexp.MustCompile(`"delay":"([^"]+)"`)

// loggedRestartDelays returns the delays in the log lines about restarts.
func loggedRestartDelays(t *testing.T, out fmt.Stringer) []time.Duration {
	t.Helper()
	var all []time.Duration
	for _, m := range delayOfRestart.FindAllStringSubmatch(out.String(), -1) {
		d, err := time.ParseDuration(m[1])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

func TestChild_KilledAfterGrace(t *testing.T) {
	c, out := startChild(t, "stubborn")
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := c.awaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	p := childPID(c)
	grace, endGrace := context.WithCancel(context.Background())
	defer endGrace()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.stop(grace)
	}()
	awaitOutput(t, out, "asked to end")
	if err := syscall.Kill(p, 0); err != nil {
		t.Errorf("process %d during its grace: %v, want that it runs", p, err)
	}
	endGrace()
	<-stopped
	if err := syscall.Kill(p, 0); err == nil {
		t.Errorf("process %d still runs", p)
	}
	for _, want := range []string{"service did not end in time", "signal: killed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
}

// awaitOutput waits until the output contains want.
func awaitOutput(t *testing.T, out *output, want string) {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		if !strings.Contains(out.String(), want) {
			return fmt.Errorf("no %s in\n%s", want, out)
		}
		return nil
	})
}

func TestChild_StopWhileWaitingToRestart(t *testing.T) {
	c, out := startChild(t, "dies")
	eventually.Succeeds(t, testTimeout, func() error {
		if n := len(loggedRestartDelays(t, out)); n < 4 {
			return fmt.Errorf("%d restart delays are logged, want 4, of which the last is long", n)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	c.stop(ctx)
	if ctx.Err() != nil {
		t.Errorf("the child did not stop within %v", testTimeout)
	}
}

func TestBroker_StartError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log := slog.New(slog.DiscardHandler)
	_, err = startBroker(l.Addr().String(), server.WebsocketOpts{}, t.TempDir(), maxStore, log)
	if want := "address already in use"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error of a port in use is %v, want %q in it", err, want)
	}
	if _, err := startBroker("nowhere", server.WebsocketOpts{}, t.TempDir(), maxStore, log); err == nil {
		t.Error("an address without a port: no error")
	}
}

// TestBroker_Warnings: the warning about MaxPayload, which every start causes, is not logged. Others are.
func TestBroker_Warnings(t *testing.T) {
	out := &output{}
	b, err := startBroker("127.0.0.1:0", server.WebsocketOpts{}, t.TempDir(), maxStore,
		slog.New(slog.NewJSONHandler(out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	b.stop()
	const payloads = "Maximum payloads over"
	if logged := out.String(); strings.Contains(logged, payloads) {
		t.Errorf("a start logs\n%s, want no %q in it", logged, payloads)
	}
	out = &output{}
	l := &brokerLog{log: slog.New(slog.NewJSONHandler(out, nil))} // logs level INFO and above
	l.Warnf(payloads+" %v are generally discouraged", "8.00 MB")
	if logged := out.String(); logged != "" {
		t.Errorf("the warning about MaxPayload logs\n%s, want nothing", logged)
	}
	l.Warnf("the disk is %s", "slow")
	if logged, want := out.String(), `"level":"WARN","msg":"the disk is slow"`; !strings.Contains(logged, want) {
		t.Errorf("a warning is logged as %q, want %s in it", logged, want)
	}
}

func TestNewSample(t *testing.T) {
	dir := t.TempDir()
	page, err := newSample("", filepath.Join(dir, "new"), []string{"faces", "text"})
	if err != nil {
		t.Fatal(err)
	}
	switch onDisk, err := os.ReadFile(page.file); {
	case err != nil:
		t.Error(err)
	case len(onDisk) == 0:
		t.Errorf("%s is empty", page.file)
	case !bytes.Equal(onDisk, page.data):
		t.Errorf("%s differs from the page", page.file)
	}
	if page.pipeline != "text" {
		t.Errorf("the pipeline of the page is %q, want text", page.pipeline)
	}
	none, err := newSample("none", dir, []string{"text"})
	switch {
	case err != nil:
		t.Errorf("none: %v", err)
	case none.data != nil:
		t.Errorf("none: %d bytes, want no image", len(none.data))
	case none.skipped != "":
		t.Errorf("none: skipped because %q, want no reason", none.skipped)
	}
	own, err := newSample(page.file, dir, []string{"colour", "faces"})
	switch {
	case err != nil:
		t.Errorf("a file: %v", err)
	case own.pipeline != "colour":
		t.Errorf("the pipeline of a file is %q, want colour, the first one", own.pipeline)
	}
	skipped, err := newSample("", filepath.Join(dir, "skipped"), []string{"colour"})
	switch {
	case err != nil:
		t.Errorf("without a pipeline text: %v", err)
	case skipped.data != nil:
		t.Errorf("without a pipeline text: %d bytes, want no image", len(skipped.data))
	case skipped.skipped == "":
		t.Error("without a pipeline text: no reason")
	}
	if _, err := newSample(filepath.Join(dir, "absent"), dir, []string{"text"}); err == nil {
		t.Error("a missing file: no error")
	}
}

func TestRun_RejectsInvalidConfigs(t *testing.T) {
	for want, cfg := range map[string]Config{
		`log: "xml", want text or json`: {Log: "xml", Sample: "none"},
		"/no/such/file": {
			Log: "json", Sample: "none", NATS: "127.0.0.1:0", Data: t.TempDir(), Pipelines: "/no/such/file",
		},
	} {
		if err := Run(t.Context(), cfg, &output{}, &output{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q in it", err, want)
		}
	}
}
