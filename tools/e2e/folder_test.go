package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// secondUp runs another `sightmesh up` and returns its exit code and its standard
// error. When it becomes ready, which is an error, it is killed.
func secondUp(t testing.TB, args ...string) (code int, stderr string) {
	t.Helper()
	cmd := exec.Command(binary(t, "sightmesh"), append([]string{"up", "--log", "json", "--lanes", "1"}, args...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timeout := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer timeout.Stop()
	line := make([]byte, 5)
	if n, _ := io.ReadFull(stdout, line); n > 0 {
		cmd.Process.Kill()
		out.WriteString("killed because it printed " + string(line))
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// TestUp_FolderInUse starts a second mesh on the folder of a running mesh, on the same
// ports and on other ports.
func TestUp_FolderInUse(t *testing.T) {
	data := t.TempDir()
	m := start(t, nil, "--data", data)
	page := samplePage(t)
	m.postDone(t, "?pipeline=text", page)
	httpAddr, natsAddr := strings.TrimPrefix(m.http[0], "http://"), strings.TrimPrefix(m.nats, "nats://")
	want := fmt.Sprintf("folder %s is in use by process %d (http=%s nats=%s)", data,
		m.runner.(*upRunner).up.cmd.Process.Pid, httpAddr, natsAddr)
	for name, args := range map[string][]string{
		"same ports":  {"--data", data, "--http", httpAddr, "--nats", natsAddr},
		"other ports": {"--data", data, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stderr := secondUp(t, args...)
			if code != 1 {
				t.Errorf("the exit code of the second mesh is %d, want 1", code)
			}
			if !strings.Contains(stderr, want) {
				t.Errorf("the standard error of the second mesh is\n%s\nwant %q in it", stderr, want)
			}
			if _, err := os.Stat(filepath.Join(data, "sample.png")); err == nil {
				t.Error("the second mesh wrote its sample into the folder")
			}
			if a := m.post(t, "?pipeline=text", page); a.result.Status != v1.Done {
				t.Errorf("the first mesh no longer processes images: %v", a)
			}
		})
	}
}

// TestUp_FolderOfKilledUp starts a mesh on the folder of a mesh that was killed.
func TestUp_FolderOfKilledUp(t *testing.T) {
	data := t.TempDir()
	m := start(t, nil, "--data", data)
	m.kill(t)
	m = start(t, nil, "--data", data)
	m.postDone(t, "?pipeline=text", samplePage(t))
}

// mountSmallDisk mounts a small file system and returns its folder. It skips the test
// without the permission to mount.
func mountSmallDisk(t testing.TB, size string) string {
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

// fillDisk fills a disk with one file, and returns its path.
func fillDisk(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); ; {
		_, err := f.Write(chunk)
		switch {
		case errors.Is(err, syscall.ENOSPC):
			return path
		case err != nil:
			t.Fatal(err)
		}
	}
}

// TestUp_FullDisk fills the disk until a write error closes a stream, and then frees
// the disk. The mesh reports that it is not ready, with the reason, and recovers
// without a manual restart.
func TestUp_FullDisk(t *testing.T) {
	data := mountSmallDisk(t, "400m")
	m := start(t, nil, append([]string{"--data", data}, smallDiskFlags...)...)
	page := samplePage(t)
	m.postDone(t, "?pipeline=text", page)

	filler := fillDisk(t, data)
	js, err := jetstream.New(m.connect(t))
	if err != nil {
		t.Fatal(err)
	}
	eventually.Succeeds(t, responseTimeout, func() error {
		_, err := js.Publish(t.Context(), subject.Results("text", "01JZZZZZZZZZZZZZZZZZZZZZZZ"), make([]byte, 1<<20))
		if err == nil {
			return errors.New("a message was stored on a full disk")
		}
		return nil
	})
	eventually.Succeeds(t, responseTimeout, func() error {
		if a := m.post(t, "?pipeline=text", page); a.status != http.StatusServiceUnavailable {
			return fmt.Errorf("POST on a full disk: %v, want 503", a)
		}
		return nil
	})
	admin := m.admin(t, "up")
	eventually.Succeeds(t, responseTimeout, func() error {
		status, body := readyz(t, admin)
		if status != http.StatusServiceUnavailable {
			return fmt.Errorf("readyz on a full disk: %d %s, want 503", status, body)
		}
		if want := "free on the disk of " + data; !strings.Contains(body, want) {
			return fmt.Errorf("readyz on a full disk has the reason %s, want %q in it", body, want)
		}
		return nil
	})

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.stderr.search(regexp.MustCompile(`"msg":"restarting the NATS server"`), responseTimeout); !ok {
		t.Fatalf("up does not restart the NATS server:\n%s", m.stderr)
	}
	eventually.Succeeds(t, responseTimeout, func() error {
		if a := m.post(t, "?pipeline=text", page); a.result.Status != v1.Done {
			return fmt.Errorf("POST after the disk has space again: %v, want a result", a)
		}
		return nil
	})
	eventually.Succeeds(t, responseTimeout, func() error {
		if status, body := readyz(t, admin); status != http.StatusOK {
			return fmt.Errorf("readyz after the disk has space again: %d %s, want 200", status, body)
		}
		return nil
	})
}

// readyz requests /readyz of an admin server.
func readyz(t testing.TB, admin string) (status int, body string) {
	t.Helper()
	res, err := http.Get(admin + "/readyz")
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

// smallDiskFlags are the flags with which a mesh starts on a disk of 400 MiB.
var smallDiskFlags = []string{"--max-store", "256MiB", "--reserve", "32MiB"}
