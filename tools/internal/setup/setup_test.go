package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/connection"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testTimeout = time.Minute // only for tests that would hang

// startServer runs a server with JetStream on a free port.
func startServer(t *testing.T) *server.Server {
	t.Helper()
	return runServer(t, &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 16 << 30,
		JetStreamMaxMemory: 16 << 30, MaxPayload: streams.MaxMessage + streams.HeaderAllowance,
		NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
	})
}

// runServer runs a server until the end of the test.
func runServer(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(testTimeout) {
		t.Fatal("NATS server is not ready for connections")
	}
	return s
}

func connect(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// consumers returns the names of the consumers of IMAGES, and the storage of the stream.
func consumers(t *testing.T, url string) (map[string]bool, jetstream.StorageType) {
	t.Helper()
	js := connect(t, url)
	s, err := js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	names := s.ConsumerNames(t.Context())
	for name := range names.Name() {
		found[name] = true
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
	return found, s.CachedInfo().Config.Storage
}

func writePipelines(t *testing.T, names ...string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("pipelines:\n")
	for _, n := range names {
		fmt.Fprintf(&b, "  - name: %s\n    detect: {kind: text-lines}\n", n)
	}
	path := filepath.Join(t.TempDir(), "pipelines.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRun_Twice runs the set-up again, first without a change, and then with other
// pipelines.
func TestRun_Twice(t *testing.T) {
	t.Parallel()
	url := startServer(t).ClientURL()
	cfg := Config{NATS: connection.Config{URL: url}, Replicas: 1, Storage: "file", Wait: testTimeout}
	run := func(pipelines string) string {
		t.Helper()
		cfg.Pipelines = pipelines
		var out bytes.Buffer
		if err := Run(t.Context(), cfg, &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	const want = "set up 9 streams and 31 consumers for pipelines [text text-best text-tesseract faces objects codes]\n"
	for _, when := range []string{"first", "second"} {
		if got := run(""); got != want {
			t.Errorf("the %s set-up prints %q, want %q", when, got, want)
		}
	}
	before, storage := consumers(t, url)
	if len(before) != 12 {
		t.Errorf("IMAGES has the consumers %v, want 12: for six pipelines and two priorities", before)
	}
	if storage != jetstream.FileStorage {
		t.Errorf("the storage is %v, want %v", storage, jetstream.FileStorage)
	}
	run(writePipelines(t, "marks"))
	after, _ := consumers(t, url)
	for _, prio := range subject.Priorities() {
		before[streams.WorkConsumer(subject.Detect, "marks", prio)] = true
	}
	if fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the consumers with another pipeline are %v, want %v", after, before)
	}
}

func TestRun_StorageInMemory(t *testing.T) {
	t.Parallel()
	url := startServer(t).ClientURL()
	if err := Run(t.Context(), Config{NATS: connection.Config{URL: url}, Replicas: 1, Storage: "memory",
		Wait: testTimeout}, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	if _, storage := consumers(t, url); storage != jetstream.MemoryStorage {
		t.Errorf("the storage is %v, want %v", storage, jetstream.MemoryStorage)
	}
}

func TestRun_WaitsForServer(t *testing.T) {
	t.Parallel()
	host := unusedHost()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		done <- Run(t.Context(), Config{NATS: connection.Config{URL: "nats://" + l.Addr().String()}, Replicas: 1,
			Storage: "file", Wait: testTimeout}, &bytes.Buffer{})
	}()
	// The set-up connects while no NATS server runs.
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	l.Close()
	serverWith(t, func(o *server.Options) { o.Host, o.Port = host, l.Addr().(*net.TCPAddr).Port })
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRun_Errors(t *testing.T) {
	t.Parallel()
	url := startServer(t).ClientURL()
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"storage": {Config{Storage: "tape", Wait: time.Hour}, `storage: "tape", want file or memory`},
		"pipelines": {Config{Storage: "file", Replicas: 1, Pipelines: "/nowhere/p.yaml", Wait: time.Hour},
			"/nowhere/p.yaml"},
		"replicas": {Config{NATS: connection.Config{URL: url}, Storage: "file", Replicas: 2, Wait: time.Hour},
			`replicas: 2, want 1, 3 or 5`},
		"too many replicas": {Config{NATS: connection.Config{URL: url}, Storage: "file", Replicas: 3,
			Wait: 3 * time.Second}, "replicas > 1 not supported in non-clustered mode"},
		"no server": {Config{NATS: connection.Config{URL: "nats://127.0.0.1:1"}, Storage: "file", Replicas: 1,
			Wait: 100 * time.Millisecond}, "connect to NATS at nats://127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			defer cancel()
			checkContains(t, fmt.Sprint(Run(ctx, tt.cfg, &bytes.Buffer{})), tt.want)
			if ctx.Err() != nil {
				t.Errorf("Run returned only after %v", testTimeout)
			}
		})
	}
}

// TestRun_Credentials runs the set-up on a server with a password, first without the
// password.
func TestRun_Credentials(t *testing.T) {
	t.Parallel()
	url := serverWith(t, func(o *server.Options) { o.Username, o.Password = "mesh", "s3cret" })
	var out bytes.Buffer
	cfg := Config{NATS: connection.Config{URL: url}, Wait: 100 * time.Millisecond}
	if err := Run(t.Context(), cfg, &out); err == nil {
		t.Fatal("set-up without a password: no error")
	}
	for _, want := range []string{"waiting:", url, "Authorization Violation"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("without a password the output is %q, want %q in it", out.String(), want)
		}
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.NATS.User, cfg.NATS.PasswordFile, cfg.Wait = "mesh", file, testTimeout
	if err := Run(t.Context(), cfg, io.Discard); err != nil {
		t.Errorf("with the password: %v", err)
	}
	cfg.NATS.PasswordFile, cfg.Wait = "/nowhere/password", time.Hour
	checkContains(t, runRejected(t, cfg), "--nats-password-file")
}

func TestRun_StopsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Run(ctx, Config{NATS: connection.Config{URL: startServer(t).ClientURL()}, Storage: "file", Replicas: 1,
		Wait: time.Hour}, &bytes.Buffer{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v", err, context.Canceled)
	}
}

func TestRun_AgesAndSink(t *testing.T) {
	t.Parallel()
	cfg := Config{NATS: connection.Config{URL: startServer(t).ClientURL()}, Replicas: 1, Storage: "file",
		Wait: testTimeout, ResultsAge: time.Minute}
	checkContains(t, fmt.Sprint(Run(t.Context(), cfg, io.Discard)), "results-age")
	cfg.ResultsAge, cfg.ReportsAge, cfg.Sink = 3*time.Hour, 48*time.Hour, true
	if err := Run(t.Context(), cfg, io.Discard); err != nil {
		t.Fatal(err)
	}
	js := connect(t, cfg.NATS.URL)
	for name, want := range map[string]time.Duration{streams.Results: cfg.ResultsAge, streams.Reports: cfg.ReportsAge} {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.CachedInfo().Config.MaxAge; got != want {
			t.Errorf("%s keeps messages for %v, want %v", name, got, want)
		}
	}
	if _, err := js.Consumer(t.Context(), streams.Results, streams.SinkConsumer); err != nil {
		t.Error(err)
	}
}
