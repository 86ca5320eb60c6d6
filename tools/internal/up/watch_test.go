package up

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/connection"
	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/tools/internal/setup"
)

const testReserve = 32 << 20

// startTestBroker runs a broker with its streams under dir.
func startTestBroker(t *testing.T, dir string) (*broker, jetstream.JetStream) {
	t.Helper()
	b, err := startBroker("127.0.0.1:0", server.WebsocketOpts{}, dir, maxStore, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	cfg := setup.Config{NATS: connection.Config{URL: b.clientURL()}, Wait: testTimeout, MaxStore: streams.MinStore}
	if err := setup.Run(t.Context(), cfg, io.Discard); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(b.clientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return b, js
}

// lostAfter is how long a publisher waits for a reply that may be missing.
const lostAfter = 2 * time.Second

// publish publishes a message and returns the error.
func publish(t *testing.T, js jetstream.JetStream, subj string, size int, within time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	_, err := js.Publish(ctx, subj, make([]byte, size))
	return err
}

func TestDiskWatch_RejectsWhenDiskIsLow(t *testing.T) {
	t.Parallel()
	b, js := startTestBroker(t, t.TempDir())
	w := newDiskWatch(b, ".data", testReserve, slog.New(slog.DiscardHandler))
	defer w.setRejection(0, "")
	job := subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "01JZZZZZZZZZZZZZZZZZZZZZZZ"}
	images, crops, report := subject.Images(job), subject.Crops(job), subject.Report(job.ID)
	outcome, result := subject.ReportOutcome(job.ID, "done", 0), subject.Results(job.Pipeline, job.ID)
	for _, step := range []struct {
		free     int64
		rejected []string
		stored   []string
	}{
		{testReserve, nil, []string{images, crops, report, outcome, result}},
		{testReserve - 1, []string{images, report}, []string{crops, outcome, result}},
		{testReserve/2 - 1, []string{images, report, crops}, []string{outcome, result}},
		{testReserve - 1, []string{images, report}, []string{crops, outcome, result}},
		{testReserve, nil, []string{images, crops, report, outcome, result}},
	} {
		w.free = func(string) (int64, error) { return step.free, nil }
		w.check(time.Now())
		for _, s := range step.rejected {
			var api *jetstream.APIError
			err := publish(t, js, s, 10, testTimeout)
			const reason = "free on the disk of .data, and 32.00 MiB stay in reserve"
			if !errors.As(err, &api) || !strings.Contains(api.Description, reason) {
				t.Errorf("with %d bytes free, the error of %s is %v, want %q in it", step.free, s, err, reason)
			}
		}
		for _, s := range step.stored {
			if err := publish(t, js, s, 10, testTimeout); err != nil {
				t.Errorf("with %d bytes free, %s was not stored: %v", step.free, s, err)
			}
		}
		if low := step.free < testReserve; (w.notReadyReason() != "") != low {
			t.Errorf("with %d bytes free, the reason is %q, want a reason: %v", step.free, w.notReadyReason(), low)
		}
	}
}

// TestDiskWatch_RejectsAfterRestart restarts the broker. Messages are still rejected.
func TestDiskWatch_RejectsAfterRestart(t *testing.T) {
	t.Parallel()
	b, js := startTestBroker(t, t.TempDir())
	w := newDiskWatch(b, ".data", testReserve, slog.New(slog.DiscardHandler))
	defer w.setRejection(0, "")
	w.free = func(string) (int64, error) { return 0, nil }
	w.check(time.Now())
	w.restart()
	w.check(time.Now())
	var api *jetstream.APIError
	eventually.Succeeds(t, testTimeout, func() error {
		if err := publish(t, js, "sight.v1.images.text.bulk.j", 10, lostAfter); !errors.As(err, &api) {
			return errors.Join(errors.New("the broker has not rejected the message"), err)
		}
		return nil
	})
	if !strings.Contains(api.Description, "free on the disk") {
		t.Errorf("the error is %v, want the reason", api)
	}
}

// smallDisk mounts a small file system and returns its folder. It skips the test
// without the permission to mount.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount the small file system: %v", err)
		}
	})
	return dir
}

// TestDiskWatch_RestartsBrokerAfterFullDisk fills the disk until a stream is closed. Once
// there is space, the broker restarts on the same address and the stream stores messages.
func TestDiskWatch_RestartsBrokerAfterFullDisk(t *testing.T) {
	dir := smallDisk(t, "64m")
	b, js := startTestBroker(t, dir)
	url := b.clientURL()
	w := newDiskWatch(b, dir, testReserve, slog.New(slog.DiscardHandler))
	defer w.setRejection(0, "")
	first := subject.Results("text", "first")
	if err := publish(t, js, first, 1<<20, testTimeout); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := publish(t, js, subject.Results("text", "second"), 1<<20, lostAfter); err == nil {
		t.Fatal("a message was stored on a full disk")
	}
	now := time.Now()
	for range 10 { // longer than sickFor
		w.check(now)
		now = now.Add(watchInterval)
	}
	switch {
	case b.current() == nil:
		t.Error("the broker does not run while the disk is full")
	case w.restarts != 0:
		t.Errorf("%d restarts while the disk is full, want 0", w.restarts)
	}
	for _, want := range []string{"free on the disk of " + dir, "RESULTS", "no space left on device"} {
		if !strings.Contains(w.notReadyReason(), want) {
			t.Errorf("the reason is %q, want %q in it", w.notReadyReason(), want)
		}
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	w.check(now)
	if w.restarts != 1 {
		t.Errorf("%d restarts, want 1", w.restarts)
	}
	if b.clientURL() != url {
		t.Errorf("the URL of the broker is %s, want %s as before", b.clientURL(), url)
	}
	eventually.Succeeds(t, testTimeout, func() error {
		return publish(t, js, subject.Results("text", "third"), 1<<20, lostAfter)
	})
	s, err := js.Stream(t.Context(), streams.Results)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetLastMsgForSubject(t.Context(), first); err != nil {
		t.Errorf("read the message that was stored before the disk was full: %v", err)
	}
	w.check(now.Add(time.Second))
	if p := w.notReadyReason(); p != "" {
		t.Errorf("the reason after the restart is %q, want none", p)
	}
}

func TestRun_TooLittleDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := Run(t.Context(), Config{Log: "json", Sample: "none", Data: dir, Reserve: 1 << 60}, &output{}, &output{})
	if want := "and 1073741824.00 GiB stay in reserve"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want %q in it", err, want)
	}
	if _, err := os.Stat(storeDir(dir)); err == nil {
		t.Error("the broker was started")
	}
}

func TestStoreLimit(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for name, tt := range map[string]struct {
		store      store
		free, want int64
		limit      int64
		errors     []string // parts of the error
	}{
		"new, large disk":  {store{}, 100 * gib, 6 * gib, maxStore, nil},
		"new, just enough": {store{}, 7 * gib, 6 * gib, 6 * gib, nil},
		"new, too little": {store{}, 5 * gib, 6 * gib, 0, []string{
			"5.00 GiB free", "needs 7.00 GiB", "6.00 GiB are for its streams", "--max-store",
		}},
		"below the reserve": {store{streams: 9}, gib / 2, 6 * gib, 0, []string{
			"512.00 MiB free", "1.00 GiB stay in reserve", "--reserve",
		}},
		"existing, little space": {store{used: gib, reserved: 6 * gib, streams: 9}, 2 * gib, 6 * gib, 6 * gib, nil},
		"existing, enough space": {store{used: gib, reserved: 6 * gib, streams: 9}, 9 * gib, 6 * gib, 9 * gib, nil},
	} {
		limit, err := storeLimit(".data", tt.store, tt.free, gib, tt.want)
		if limit != tt.limit {
			t.Errorf("%s: the limit is %d, want %d", name, limit, tt.limit)
		}
		if tt.errors == nil && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range tt.errors {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("%s: the error is %v, want %q in it", name, err, want)
			}
		}
	}
}

// TestReadStore reads the folder of a broker that was stopped.
func TestReadStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	switch s, err := readStore(storeDir(dir)); {
	case err != nil:
		t.Errorf("without a store: %v", err)
	case s != (store{}):
		t.Errorf("without a store: %+v, want zero", s)
	}
	b, js := startTestBroker(t, dir)
	if err := publish(t, js, subject.Results("text", "j"), 1<<20, testTimeout); err != nil {
		t.Fatal(err)
	}
	b.stop()
	s, err := readStore(storeDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	if want := len(streams.Streams(streams.Config{})); s.streams != want {
		t.Errorf("%d streams, want %d", s.streams, want)
	}
	if s.reserved > streams.MinStore || s.reserved < streams.MinStore-100 {
		t.Errorf("%d bytes are reserved, want %d", s.reserved, streams.MinStore)
	}
	if s.used < 1<<20 {
		t.Errorf("%d bytes are used, want at least 1 MiB of the message", s.used)
	}
}

func TestRun_FolderInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lock, err := lockFolder(dir, "127.0.0.1:8080", "127.0.0.1:4222")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Log: "json", Data: dir}
	const other = " (--data sets another folder)"
	want := fmt.Sprintf("folder %s is in use by process %d (http=127.0.0.1:8080 nats=127.0.0.1:4222)"+other,
		dir, os.Getpid())
	if err := Run(t.Context(), cfg, &output{}, &output{}); err == nil || err.Error() != want {
		t.Errorf("the error of Run is %v, want %s", err, want)
	}
	if err := lock.writeOwner("[::1]:1", "[::1]:2"); err != nil { // a shorter line
		t.Fatal(err)
	}
	want = fmt.Sprintf("folder %s is in use by process %d (http=[::1]:1 nats=[::1]:2)"+other, dir, os.Getpid())
	if _, err := lockFolder(dir, "", ""); err == nil || err.Error() != want {
		t.Errorf("the error of lockFolder is %v, want %s", err, want)
	}
	checkOnlyLock(t, dir)
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	// A process that another test starts has a copy of the lock file until its exec.
	eventually.Succeeds(t, testTimeout, func() error {
		lock, err = lockFolder(dir, "", "")
		return err
	})
	lock.Close()
}

// checkOnlyLock checks that a data folder has no file but the lock.
func checkOnlyLock(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 {
		t.Errorf("the folder has the files %q, want only the lock", files)
	}
}

// TestRun_PortInUse starts on a port of another process. Run stores nothing.
func TestRun_PortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for flag, set := range map[string]func(*Config){
		"--http":  func(c *Config) { c.HTTP = l.Addr().String() },
		"--nats":  func(c *Config) { c.NATS = l.Addr().String() },
		"--admin": func(c *Config) { c.Admin = l.Addr().String() },
	} {
		cfg := Config{Log: "json", Data: t.TempDir()}
		set(&cfg)
		err := Run(t.Context(), cfg, &output{}, &output{})
		for _, want := range []string{"address already in use", flag} {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("%s: the error is %v, want %q in it", flag, err, want)
			}
		}
		checkOnlyLock(t, cfg.Data)
	}
}

// TestAdmin_ReportsWhyNotReady checks the responses of /readyz.
func TestAdmin_ReportsWhyNotReady(t *testing.T) {
	t.Parallel()
	a, err := startAdmin("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no connection to NATS", http.StatusServiceUnavailable)
	}))
	defer service.Close()
	check := func(when string, wantStatus int, wantBody string) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // probeClient has a time limit
		res, err := client.Get("http://" + a.addr + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != wantStatus {
			t.Errorf("%s: the status is %d, want %d", when, res.StatusCode, wantStatus)
		}
		if string(b) != wantBody {
			t.Errorf("%s: the body is %q, want %q", when, b, wantBody)
		}
	}
	check("while it starts", http.StatusServiceUnavailable, "not ready: starting\n")
	c := newChild("ingress", nil, nil, nil, nil)
	reason := "the disk is full"
	a.setSources(func() string { return reason }, []*child{c})
	check("without a service", http.StatusServiceUnavailable,
		"not ready: the disk is full\nnot ready: ingress is starting\n")
	c.addr["admin"] = service.Listener.Addr().String()
	reason = ""
	check("with a service that is not ready", http.StatusServiceUnavailable,
		"not ready: ingress: no connection to NATS\n")
	a.setSources(func() string { return "" }, nil)
	check("when all are ready", http.StatusOK, "ready\n")
}

// TestRejections_ReplyLikeAStream checks that the reply to a publisher has the form of an
// error of a stream.
func TestRejections_ReplyLikeAStream(t *testing.T) {
	t.Parallel()
	r := &rejections{}
	r.setReason(`a "reason"`)
	var reply struct {
		Error jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(r.reply, &reply); err != nil {
		t.Fatal(err)
	}
	if reply.Error.Code != http.StatusServiceUnavailable {
		t.Errorf("the code is %d, want 503", reply.Error.Code)
	}
	if reply.Error.Description != `a "reason"` {
		t.Errorf("the description is %q, want the reason", reply.Error.Description)
	}
}
