package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/connection"
	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
)

func stream(t *testing.T, js jetstream.JetStream, name string) jetstream.StreamConfig {
	t.Helper()
	s := withLeader(t, func() (jetstream.Stream, error) { return js.Stream(t.Context(), name) })
	return s.CachedInfo().Config
}

// withLeader repeats a request while a cluster elects a leader of its stream or
// consumer.
func withLeader[T any](t *testing.T, request func() (T, error)) (got T) {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		var err error
		got, err = request()
		var api *jetstream.APIError
		if err != nil && (!errors.As(err, &api) || api.Code != http.StatusServiceUnavailable) {
			t.Fatal(err)
		}
		return err
	})
	return got
}

// TestRun_KeepsUnnamedSettings runs the set-up with ages, changes a limit as operators do,
// and runs the set-up again without these settings.
func TestRun_KeepsUnnamedSettings(t *testing.T) {
	t.Parallel()
	cfg := Config{
		NATS: connection.Config{URL: startServer(t).ClientURL()}, Storage: "file", Wait: testTimeout, Replicas: 1,
		ResultsAge: 3 * time.Hour, ReportsAge: 48 * time.Hour,
	}
	if err := Run(t.Context(), cfg, io.Discard); err != nil {
		t.Fatal(err)
	}
	js := connect(t, cfg.NATS.URL)
	tuned := stream(t, js, streams.Images)
	tuned.MaxBytes, tuned.MaxMsgs = 1<<30, 5000
	if _, err := js.UpdateStream(t.Context(), tuned); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), Config{NATS: cfg.NATS, Wait: testTimeout}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := stream(t, js, streams.Results).MaxAge; got != cfg.ResultsAge {
		t.Errorf("results are kept for %v, want %v as before", got, cfg.ResultsAge)
	}
	if got := stream(t, js, streams.Reports).MaxAge; got != cfg.ReportsAge {
		t.Errorf("reports are kept for %v, want %v as before", got, cfg.ReportsAge)
	}
	if got := stream(t, js, streams.Images).MaxBytes; got != tuned.MaxBytes {
		t.Errorf("the limit of IMAGES is %d bytes, want %d as the operator set", got, tuned.MaxBytes)
	}
	if got := stream(t, js, streams.Images).MaxMsgs; got != tuned.MaxMsgs {
		t.Errorf("the limit of IMAGES is %d messages, want %d as the operator set", got, tuned.MaxMsgs)
	}
}

// runRejected runs a set-up that may wait for an hour and must fail, and returns its error.
func runRejected(t *testing.T, cfg Config) string {
	t.Helper()
	cfg.Wait = time.Hour
	done := make(chan error, 1)
	go func() { done <- Run(t.Context(), cfg, &bytes.Buffer{}) }()
	select {
	case err := <-done:
		if err == nil {
			t.Fatal("the set-up succeeded, want an error")
		}
		return err.Error()
	case <-time.After(testTimeout):
		t.Fatalf("the set-up still waits after %v", testTimeout)
		return ""
	}
}

func serverWith(t *testing.T, change func(*server.Options)) string {
	t.Helper()
	o := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(),
		JetStreamMaxStore: 16 << 30, JetStreamMaxMemory: 16 << 30,
		MaxPayload: streams.MaxMessage + streams.HeaderAllowance, NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
	}
	change(o)
	return runServer(t, o).ClientURL()
}

// TestRun_ReportsMissingServerFeatures runs the set-up on unsuitable servers. Run returns
// the error without waiting.
func TestRun_ReportsMissingServerFeatures(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		options func(*server.Options)
		cfg     Config
		want    []string
	}{
		"max_payload": {
			func(o *server.Options) { o.MaxPayload = 1 << 20 }, Config{Storage: "file"},
			[]string{"1048576", "8454144", "max_payload"},
		},
		"no JetStream": {
			func(o *server.Options) { o.JetStream = false }, Config{Storage: "file"},
			[]string{"JetStream is not enabled", "jetstream {", "max_file_store: 6400MiB"},
		},
		"too little disk": {
			func(o *server.Options) { o.JetStreamMaxStore = 5 << 29 }, Config{Storage: "file"},
			[]string{"less than 3.00 GiB", "2.00 GiB are reserved", "6.25 GiB", "max_file_store to 6400MiB"},
		},
		"too little memory": {
			func(o *server.Options) { o.JetStreamMaxMemory = 256 << 20 }, Config{Storage: "memory"},
			[]string{"less than 2.00 GiB", "6.25 GiB", "max_memory_store to 6400MiB"},
		},
		"no cluster": {
			func(*server.Options) {}, Config{Storage: "file", Replicas: 3},
			[]string{"3 replicas need a cluster", "--replicas 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.cfg.NATS.URL = serverWith(t, tt.options)
			checkContains(t, runRejected(t, tt.cfg), tt.want...)
		})
	}
}

// checkContains checks that an error message has all the parts.
func checkContains(t *testing.T, message string, parts ...string) {
	t.Helper()
	for _, want := range parts {
		if !strings.Contains(message, want) {
			t.Errorf("the error is %q, want %q in it", message, want)
		}
	}
}

// TestRun_LoweringNeedsForce runs the set-up with smaller values than before.
func TestRun_LoweringNeedsForce(t *testing.T) {
	t.Parallel()
	cfg := Config{NATS: connection.Config{URL: startServer(t).ClientURL()}, Wait: testTimeout,
		ResultsAge: 3 * time.Hour, ReportsAge: 48 * time.Hour}
	if err := Run(t.Context(), cfg, io.Discard); err != nil {
		t.Fatal(err)
	}
	js := connect(t, cfg.NATS.URL)
	less := Config{NATS: cfg.NATS, ResultsAge: time.Hour, ReportsAge: 24 * time.Hour}
	checkContains(t, runRejected(t, less),
		"RESULTS: age from 3h0m0s to 1h0m0s", "REPORTS: age from 48h0m0s to 24h0m0s", "--force")
	if got := stream(t, js, streams.Results).MaxAge; got != cfg.ResultsAge {
		t.Errorf("results are kept for %v after the error, want %v", got, cfg.ResultsAge)
	}
	less.Force, less.Wait = true, testTimeout
	if err := Run(t.Context(), less, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := stream(t, js, streams.Results).MaxAge; got != less.ResultsAge {
		t.Errorf("with force results are kept for %v, want %v", got, less.ResultsAge)
	}
}

// TestRun_MaxStoreBelowContentNeedsForce lowers the limit of a stream below its content,
// which deletes its oldest messages.
func TestRun_MaxStoreBelowContentNeedsForce(t *testing.T) {
	t.Parallel()
	cfg := Config{NATS: connection.Config{URL: startServer(t).ClientURL()}, Storage: "memory", Wait: testTimeout}
	if err := Run(t.Context(), cfg, io.Discard); err != nil {
		t.Fatal(err)
	}
	js := connect(t, cfg.NATS.URL)
	for _, job := range []string{"a", "b"} {
		if _, err := js.Publish(t.Context(), subject.CallbackState(job), make([]byte, 8<<20)); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Storage, cfg.MaxStore = "", 256<<20
	checkContains(t, runRejected(t, cfg), "JOBS: the limit of 5.12 MiB is less than its size of 16.00 MiB")
	cfg.Force = true
	if err := Run(t.Context(), cfg, io.Discard); err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, s := range streams.Streams(streams.Config{}) {
		sum += stream(t, js, s.Name).MaxBytes
	}
	if sum > cfg.MaxStore || sum < cfg.MaxStore*99/100 {
		t.Errorf("the limits of the streams are %d bytes together, want %d", sum, cfg.MaxStore)
	}
	// The next set-up keeps the limit.
	if err := Run(t.Context(), Config{NATS: cfg.NATS, Wait: testTimeout}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := stream(t, js, streams.Images).MaxBytes; got > cfg.MaxStore {
		t.Errorf("the limit of IMAGES is %d bytes, want at most %d", got, cfg.MaxStore)
	}
}

// TestRun_KeepsStorage runs the set-up again without a storage, and with another storage.
func TestRun_KeepsStorage(t *testing.T) {
	t.Parallel()
	cfg := Config{NATS: connection.Config{URL: startServer(t).ClientURL()}, Storage: "memory", Wait: testTimeout}
	if err := Run(t.Context(), cfg, io.Discard); err != nil {
		t.Fatal(err)
	}
	js := connect(t, cfg.NATS.URL)
	// A stream that an older version did not have is created like the others.
	if err := js.DeleteStream(t.Context(), streams.Fetches); err != nil {
		t.Fatal(err)
	}
	cfg.Storage = ""
	if err := Run(t.Context(), cfg, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := stream(t, js, streams.Fetches).Storage; got != jetstream.MemoryStorage {
		t.Errorf("the new stream is stored in %v, want memory as the others", got)
	}
	cfg.Storage = "file"
	checkContains(t, runRejected(t, cfg), "stored in memory", "--storage")
}

// TestRun_KeepsReplicas runs the set-up on a cluster with three replicas, and again
// without a number of replicas.
func TestRun_KeepsReplicas(t *testing.T) {
	t.Parallel()
	cfg := Config{NATS: connection.Config{URL: startCluster(t)}, Replicas: 3, Storage: "memory", Wait: time.Minute}
	if err := Run(t.Context(), cfg, io.Discard); err != nil {
		t.Fatal(err)
	}
	js := connect(t, cfg.NATS.URL)
	checkReplicas := func(want int) {
		t.Helper()
		n := map[int]int{} // number of streams and consumers, by their replicas
		for _, s := range streams.Streams(streams.Config{}) {
			n[stream(t, js, s.Name).Replicas]++
		}
		for _, c := range streams.Consumers(streams.Config{}) {
			found := withLeader(t, func() (jetstream.Consumer, error) {
				return js.Consumer(t.Context(), c.Stream, c.Config.Durable)
			})
			n[found.CachedInfo().Config.Replicas]++
		}
		if len(n) != 1 || n[want] == 0 {
			t.Errorf("streams and consumers by their replicas are %v, want all with %d", n, want)
		}
	}
	if err := js.DeleteStream(t.Context(), streams.Fetches); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), Config{NATS: cfg.NATS, Wait: time.Minute}, io.Discard); err != nil {
		t.Fatal(err)
	}
	checkReplicas(3)
	cfg.Replicas = 1
	checkContains(t, runRejected(t, cfg), "IMAGES", "replicas from 3 to 1", "--force")
	checkReplicas(3)
	cfg.Force = true
	if err := Run(t.Context(), cfg, io.Discard); err != nil {
		t.Fatal(err)
	}
	checkReplicas(1)
}

// startCluster runs three servers and returns their URLs.
func startCluster(t *testing.T) string {
	t.Helper()
	routes := freeRoutes(t)
	var urls []string
	for i, route := range routes {
		addr, err := net.ResolveTCPAddr("tcp", route.Host)
		if err != nil {
			t.Fatal(err)
		}
		s := runServer(t, &server.Options{
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: server.RANDOM_PORT,
			Cluster: server.ClusterOpts{Name: "c", Host: addr.IP.String(), Port: addr.Port}, Routes: routes,
			JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 64 << 30, JetStreamMaxMemory: 64 << 30,
			MaxPayload: streams.MaxMessage + streams.HeaderAllowance, NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
		})
		urls = append(urls, s.ClientURL())
	}
	return strings.Join(urls, ",")
}

// unusedHost returns an address of the loopback network that other processes are unlikely to use, so that a port that
// was free once stays free: on 127.0.0.1 the system assigns ports to outgoing connections.
func unusedHost() string {
	return net.IPv4(127, byte(1+rand.N(254)), byte(rand.N(255)), byte(1+rand.N(254))).String()
}

// freeRoutes returns three different routes with free ports.
func freeRoutes(t *testing.T) []*url.URL {
	t.Helper()
	host := unusedHost()
	var routes []*url.URL
	for range 3 {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // not before all are found, so that they differ
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: l.Addr().String()})
	}
	return routes
}
