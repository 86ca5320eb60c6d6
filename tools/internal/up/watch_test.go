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
	cfg := setup.Config{NATS: connection.Config{URL: b.clientURL()}, Wait: 20 * time.Second, MaxStore: streams.LeastStore}
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

// publish stores a message, and returns what the publisher was told instead.
func publish(t *testing.T, js jetstream.JetStream, subj string, size int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
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
			err := publish(t, js, s, 10)
			const why = "free on the disk of .data, and 32.00 MiB stay in reserve"
			switch {
			case !errors.As(err, &api):
				t.Errorf("with %d bytes free, %s got %v, want the reason: want errors.As(err, &api)",
					step.free, s, err)
			case !strings.Contains(api.Description, why):
				t.Errorf("with %d bytes free, %s got %v, want the reason: want strings.Contains(api.Description, why)",
					step.free, s, err)
			}
		}
		for _, s := range step.stored {
			if err := publish(t, js, s, 10); err != nil {
				t.Errorf("with %d bytes free, %s was not stored: %v", step.free, s, err)
			}
		}
		if low := step.free < testReserve; (w.problem() != "") != low {
			t.Errorf("with %d bytes free, the mesh says %q", step.free, w.problem())
		}
	}
}

// TestDiskWatch_RejectsAfterRestart restarts the broker, which forgets what was
// rejected.
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
	waitFor(t, "an answer of the broker", func() bool {
		return errors.As(publish(t, js, "sight.v1.images.text.bulk.j", 10), &api)
	})
	if !strings.Contains(api.Description, "free on the disk") {
		t.Errorf("the image got %v, want the reason", api)
	}
}

// smallDisk mounts a file system of its own. The test is skipped where that is
// not allowed.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not run: a full disk needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("not run: cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount the small file system: %v", err)
		}
	})
	return dir
}

// TestDiskWatch_RestartsBrokerAfterFullDisk has a stream closed by a full disk: it
// stores again once there is space, at the same address.
func TestDiskWatch_RestartsBrokerAfterFullDisk(t *testing.T) {
	dir := smallDisk(t, "64m")
	b, js := startTestBroker(t, dir)
	url := b.clientURL()
	w := newDiskWatch(b, dir, testReserve, slog.New(slog.DiscardHandler))
	defer w.setRejection(0, "")
	first := subject.Results("text", "first")
	if err := publish(t, js, first, 1<<20); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := publish(t, js, subject.Results("text", "second"), 1<<20); err == nil {
		t.Fatal("a message was stored on a full disk")
	}
	now := time.Now()
	for range 10 { // for longer than sickFor
		w.check(now)
		now = now.Add(watchInterval)
	}
	switch {
	case b.current() == nil:
		t.Errorf("the broker was restarted while the disk was full: no b.current()")
	case w.restarts != 0:
		t.Errorf("the broker was restarted while the disk was full: restarts %v, want 0", w.restarts)
	}
	for _, want := range []string{"free on the disk of " + dir, "RESULTS", "no space left on device"} {
		if !strings.Contains(w.problem(), want) {
			t.Errorf("the mesh says %q, want %q in it", w.problem(), want)
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
		t.Errorf("the broker is at %s, want %s as before", b.clientURL(), url)
	}
	waitFor(t, "a message to be stored", func() bool {
		return publish(t, js, subject.Results("text", "third"), 1<<20) == nil
	})
	s, err := js.Stream(t.Context(), streams.Results)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetLastMsgForSubject(t.Context(), first); err != nil {
		t.Errorf("what was stored before the disk was full: %v", err)
	}
	w.check(now.Add(time.Second))
	if p := w.problem(); p != "" {
		t.Errorf("after all, the mesh says %q", p)
	}
}

func TestRun_TooLittleDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := Run(t.Context(), Config{Log: "json", Sample: "none", Data: dir, Reserve: 1 << 60}, &output{}, &output{})
	switch {
	case err == nil:
		t.Errorf("got %v: no error", err)
	case !strings.Contains(err.Error(), "and 1073741824.00 GiB stay in reserve"):
		t.Errorf(`got %v: want strings.Contains(err.Error(), "and 1073741824.00 GiB stay in reserve")`, err)
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
		says       []string
	}{
		"new, large disk":  {store{}, 100 * gib, 6 * gib, maxStore, nil},
		"new, just enough": {store{}, 7 * gib, 6 * gib, 6 * gib, nil},
		"new, too little": {store{}, 5 * gib, 6 * gib, 0, []string{
			"5.00 GiB free", "needs 7.00 GiB", "6.00 GiB are for its streams", "--max-store",
		}},
		"below the reserve": {store{streams: 9}, gib / 2, 6 * gib, 0, []string{
			"512.00 MiB free", "1.00 GiB stay in reserve", "--reserve",
		}},
		"there, little space": {store{used: gib, reserved: 6 * gib, streams: 9}, 2 * gib, 6 * gib, 6 * gib, nil},
		"there, enough space": {store{used: gib, reserved: 6 * gib, streams: 9}, 9 * gib, 6 * gib, 9 * gib, nil},
	} {
		limit, err := storeLimit(".data", tt.store, tt.free, gib, tt.want)
		switch {
		case limit != tt.limit:
			t.Errorf("%s: the limit is %d, %v; want %d: limit %v, want %v",
				name, limit, err, tt.limit, limit, tt.limit)
		case (err != nil) != (tt.says != nil):
			t.Errorf("%s: the limit is %d, %v; want %d: (err != nil) %v, want %v",
				name, limit, err, tt.limit, (err != nil), (tt.says != nil))
		}
		for _, want := range tt.says {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("%s: it says %q, want %q in it", name, err, want)
			}
		}
	}
}

// TestReadStore reads what a broker has left.
func TestReadStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	switch s, err := readStore(storeDir(dir)); {
	case err != nil:
		t.Errorf("without a store: %v, %v", s, err)
	case s != (store{}):
		t.Errorf("without a store: %v, %v: s %v, want %v", s, err, s, (store{}))
	}
	b, js := startTestBroker(t, dir)
	if err := publish(t, js, subject.Results("text", "j"), 1<<20); err != nil {
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
	if s.reserved > streams.LeastStore || s.reserved < streams.LeastStore-100 {
		t.Errorf("%d bytes are reserved, want %d", s.reserved, streams.LeastStore)
	}
	if s.used < 1<<20 {
		t.Errorf("%d bytes are used, want those of the message", s.used)
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
	want := fmt.Sprintf("folder %s is in use by process %d (http=127.0.0.1:8080 nats=127.0.0.1:4222)", dir, os.Getpid())
	switch err := Run(t.Context(), cfg, &output{}, &output{}); {
	case err == nil:
		t.Errorf("got %v, want %s: no error", err, want)
	case err.Error() != want:
		t.Errorf("got %v, want %s: err.Error() %v, want %v", err, want, err.Error(), want)
	}
	if err := lock.write("[::1]:1", "[::1]:2"); err != nil { // a shorter line
		t.Fatal(err)
	}
	want = fmt.Sprintf("folder %s is in use by process %d (http=[::1]:1 nats=[::1]:2)", dir, os.Getpid())
	switch _, err := lockFolder(dir, "", ""); {
	case err == nil:
		t.Errorf("got %v, want %s: no error", err, want)
	case err.Error() != want:
		t.Errorf("got %v, want %s: err.Error() %v, want %v", err, want, err.Error(), want)
	}
	switch files, err := filepath.Glob(filepath.Join(dir, "*")); {
	case err != nil:
		t.Errorf("the folder has %v, %v; want the lock alone", files, err)
	case len(files) != 1:
		t.Errorf("the folder has %v, %v; want the lock alone: %d files, want 1", files, err, len(files))
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	lock, err = lockFolder(dir, "", "")
	if err != nil {
		t.Fatalf("a released folder: %v", err)
	}
	lock.Close()
}

// TestRun_PortInUse starts on ports of another process: nothing is stored.
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
		switch {
		case err == nil:
			t.Errorf("%s: got %v: no error", flag, err)
		case !strings.Contains(err.Error(), "address already in use"):
			t.Errorf(`%s: got %v: want strings.Contains(err.Error(), "address already in use")`, flag, err)
		case !strings.Contains(err.Error(), flag):
			t.Errorf("%s: got %v: want strings.Contains(err.Error(), flag)", flag, err)
		}
		switch files, err := filepath.Glob(filepath.Join(cfg.Data, "*")); {
		case err != nil:
			t.Errorf("%s: the folder has %v, %v; want the lock alone", flag, files, err)
		case len(files) != 1:
			t.Errorf("%s: the folder has %v, %v; want the lock alone: %d files, want 1", flag, files, err, len(files))
		}
	}
}

// TestAdmin_ReportsWhyNotReady asks the probes of the mesh.
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
	told := func() (int, string) {
		t.Helper()
		res, err := probeClient.Get("http://" + a.addr + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	switch status, body := told(); {
	case status != http.StatusServiceUnavailable:
		t.Errorf("while it starts: %d %s: status %v, want 503", status, body, status)
	case body != "not ready: starting\n":
		t.Errorf(`while it starts: %d %s: body %q, want "not ready: starting\n"`, status, body, body)
	}
	c := newChild("ingress", nil, nil, nil, nil)
	problem := "the disk is full"
	a.set(func() string { return problem }, []*child{c})
	const both = "not ready: the disk is full\nnot ready: ingress is starting\n"
	switch status, body := told(); {
	case status != http.StatusServiceUnavailable:
		t.Errorf("without a service: %d %s: status %v, want 503", status, body, status)
	case body != both:
		t.Errorf("without a service: %d %s: body %v, want %v", status, body, body, both)
	}
	c.addr["admin"] = service.Listener.Addr().String()
	problem = ""
	const service503 = "not ready: ingress: no connection to NATS\n"
	switch status, body := told(); {
	case status != http.StatusServiceUnavailable:
		t.Errorf("with a service that is not ready: %d %s: status %v, want 503", status, body, status)
	case body != service503:
		t.Errorf("with a service that is not ready: %d %s: body %v, want %v", status, body, body, service503)
	}
	a.set(func() string { return "" }, nil)
	switch status, body := told(); {
	case status != http.StatusOK:
		t.Errorf("at the end: %d %s: status %v, want 200", status, body, status)
	case body != "ready\n":
		t.Errorf(`at the end: %d %s: body %q, want "ready\n"`, status, body, body)
	}
}

// TestRejections_ReplyLikeAStream checks the form of what a publisher gets.
func TestRejections_ReplyLikeAStream(t *testing.T) {
	t.Parallel()
	r := &rejections{}
	r.set(`a "reason"`)
	var answer struct {
		Error jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(r.answer, &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Error.Code != http.StatusServiceUnavailable {
		t.Errorf("the code is %d, want 503", answer.Error.Code)
	}
	if answer.Error.Description != `a "reason"` {
		t.Errorf("the description is %q", answer.Error.Description)
	}
}
