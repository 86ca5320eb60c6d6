package up

import (
	"bytes"
	"context"
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
)

// The test binary is also a service that up could start, by the name of one
// or told so, and an up that could be killed.
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
		goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// fakeService says where it listens, is ready, and does what it is told.
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
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		slog.New(slog.NewJSONHandler(os.Stderr, nil)).Info("listening", "name", name, "addr", l.Addr().String(), "pid", os.Getpid())
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
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		c.stop(ctx)
	})
	return c, out
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

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
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.ready(ctx); err != nil {
		t.Fatal(err)
	}
	where, err := c.address(ctx, "http")
	if err != nil {
		t.Fatal(err)
	}
	before := childPID(c)
	syscall.Kill(before, syscall.SIGKILL)
	waitFor(t, "another process", func() bool { p := childPID(c); return p != 0 && p != before })
	switch again, err := c.address(ctx, "http"); {
	case err != nil:
		t.Errorf("it came back at %s, %v, want %s", again, err, where)
	case again != where:
		t.Errorf("it came back at %s, %v, want %s: again %v, want %v", again, err, where, again, where)
	}
	if err := c.ready(ctx); err != nil {
		t.Error(err)
	}
}

func TestChild_RestartDelayGrows(t *testing.T) {
	_, out := startChild(t, "dies")
	waitFor(t, "three deaths", func() bool { return strings.Count(out.String(), "service died") >= 3 })
	for _, want := range []string{"these are my last words", "exit status 7"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	for i, d := range loggedRestartDelays(t, out)[:3] {
		if want := restartBackoff[i]; d < want || d > want+want/4 {
			t.Errorf("delay %d is %v, want %v and up to a quarter more", i+1, d, want)
		}
	}
}

var delayOfRestart = regexp.MustCompile(`"delay":"([^"]+)"`)

// loggedRestartDelays lists those that were logged before a child was started again.
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
	c, _ := startChild(t, "stubborn")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.ready(ctx); err != nil {
		t.Fatal(err)
	}
	p := childPID(c)
	short, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	c.stop(short)
	if err := syscall.Kill(p, 0); err == nil {
		t.Errorf("process %d lives on", p)
	}
}

func TestChild_StopWhileWaitingToRestart(t *testing.T) {
	c, out := startChild(t, "dies")
	waitFor(t, "a long pause", func() bool { return len(loggedRestartDelays(t, out)) >= 4 })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c.stop(ctx)
	if ctx.Err() != nil {
		t.Error("it did not stop")
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
	switch {
	case err == nil:
		t.Errorf("a taken port: %v: no error", err)
	case !strings.Contains(err.Error(), "address already in use"):
		t.Errorf(`a taken port: %v: want strings.Contains(err.Error(), "address already in use")`, err)
	}
	if _, err := startBroker("nowhere", server.WebsocketOpts{}, t.TempDir(), maxStore, log); err == nil {
		t.Error("an address without port was taken")
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
		t.Errorf("the page is not in %s: %v", page.file, err)
	case len(onDisk) == 0:
		t.Errorf("the page is not in %s: %v: no onDisk", page.file, err)
	case !bytes.Equal(onDisk, page.data):
		t.Errorf("the page is not in %s: %v: want bytes.Equal(onDisk, page.data)", page.file, err)
	}
	if page.pipeline != "text" {
		t.Errorf("the page goes to %q, want text", page.pipeline)
	}
	none, err := newSample("none", dir, []string{"text"})
	switch {
	case err != nil:
		t.Errorf("none: %d bytes, skipped %q, %v", len(none.data), none.skipped, err)
	case none.data != nil:
		t.Errorf("none: %d bytes, skipped %q, %v: none.data %v, want nil",
			len(none.data), none.skipped, err, none.data)
	case none.skipped != "":
		t.Errorf(`none: %d bytes, skipped %q, %v: none.skipped %q, want ""`,
			len(none.data), none.skipped, err, none.skipped)
	}
	own, err := newSample(page.file, dir, []string{"colour", "faces"})
	switch {
	case err != nil:
		t.Errorf("an image of one's own goes to %q, want the first pipeline: %v", own.pipeline, err)
	case own.pipeline != "colour":
		t.Errorf(`an image of one's own goes to %q, want the first pipeline: %v: own.pipeline %q, want "colour"`,
			own.pipeline, err, own.pipeline)
	}
	skipped, err := newSample("", filepath.Join(dir, "skipped"), []string{"colour"})
	switch {
	case err != nil:
		t.Errorf("without text: %d bytes, skipped %q, %v", len(skipped.data), skipped.skipped, err)
	case skipped.data != nil:
		t.Errorf("without text: %d bytes, skipped %q, %v: skipped.data %v, want nil",
			len(skipped.data), skipped.skipped, err, skipped.data)
	case skipped.skipped == "":
		t.Errorf("without text: %d bytes, skipped %q, %v: no skipped.skipped",
			len(skipped.data), skipped.skipped, err)
	}
	if _, err := newSample(filepath.Join(dir, "absent"), dir, []string{"text"}); err == nil {
		t.Error("an absent file was read")
	}
}

func TestConfig_Validate(t *testing.T) {
	for name, cfg := range map[string]Config{
		"log":       {Log: "xml", Sample: "none"},
		"pipelines": {Log: "json", Sample: "none", NATS: "127.0.0.1:0", Data: t.TempDir(), Pipelines: "/no/such/file"},
	} {
		if err := Run(t.Context(), cfg, &output{}, &output{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
