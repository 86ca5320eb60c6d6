package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/eventually"
)

// sending describes a run of the sender and the state in which it gets a signal.
type sending struct {
	args  []string
	stdin *os.File
	// blockedStdout and blockedStderr make the output a full pipe without a reader.
	blockedStdout, blockedStderr bool
	// reached waits until the sender, with the process ID pid, is in the state.
	reached func(pid int, stderr *lines)
}

// awaitBlockedStdout waits until a thread of a process waits in write(2) to its standard output.
func awaitBlockedStdout(t *testing.T, pid int) {
	t.Helper()
	want := fmt.Sprintf("%d 0x1 ", syscall.SYS_WRITE)
	eventually.Succeeds(t, responseTimeout, func() error {
		calls, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
		if err != nil {
			return err
		}
		for _, file := range calls {
			if call, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(call), want) {
				return nil
			}
		}
		return fmt.Errorf("none of %d threads writes to standard output", len(calls))
	})
}

// fullPipe returns the write end of a full pipe.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	conn, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var writeErr error
	if err := conn.Write(func(fd uintptr) bool {
		for writeErr == nil {
			_, writeErr = syscall.Write(int(fd), []byte{0})
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(writeErr, syscall.EAGAIN) { // the pipe is full
		t.Fatalf("fill a pipe: %v", writeErr)
	}
	return w
}

func makeFIFO(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSend_SignalEndsEveryState tests the row "sightmesh send" of shared/cases. In
// every state a signal ends the sender within ten seconds, with the documented exit
// code. The test waits longer, because the machine may be busy.
func TestSend_SignalEndsEveryState(t *testing.T) {
	for state, prepare := range map[string]func(t *testing.T) sending{
		"open of a FIFO without a writer": func(t *testing.T) sending {
			url, asked := serveImages(t, writeResult)
			pipe := makeFIFO(t, t.TempDir(), "pipe")
			image := filepath.Join(frameFolder(t, 1), "frame1.png")
			return sending{args: []string{pipe, image, "--url", url, "--concurrency", "2"},
				reached: func(int, *lines) { <-asked }}
		},
		"read of a FIFO": func(t *testing.T) sending {
			pipe := makeFIFO(t, t.TempDir(), "pipe")
			return sending{args: []string{pipe}, reached: func(int, *lines) {
				w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // returns when the sender has opened the pipe
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { w.Close() })
			}}
		},
		"read of the list on standard input": func(t *testing.T) sending {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.Close() })
			return sending{args: []string{"-"}, stdin: r, reached: func(int, *lines) {
				if _, err := w.Write(bytes.Repeat([]byte("\n"), 256<<10)); err != nil { // more than a pipe holds
					t.Fatal(err)
				}
			}}
		},
		"wait for a reply": func(t *testing.T) sending {
			url, asked := serveImages(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			return sending{args: []string{frameFolder(t, 4), "--url", url}, reached: func(int, *lines) { <-asked }}
		},
		"wait for the next attempt": func(t *testing.T) sending {
			url, _ := serveImages(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "3600")
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			return sending{args: []string{frameFolder(t, 4), "--url", url}, reached: func(_ int, stderr *lines) {
				if _, ok := stderr.search(regexp.MustCompile(`^retrying `), responseTimeout); !ok {
					t.Fatal("the sender does not retry")
				}
			}}
		},
		"blocked standard output": func(t *testing.T) sending {
			url, _ := serveImages(t, writeResult)
			return sending{args: []string{frameFolder(t, 4), "--url", url}, blockedStdout: true,
				reached: func(pid int, _ *lines) { awaitBlockedStdout(t, pid) }}
		},
		"both outputs blocked": func(t *testing.T) sending {
			url, _ := serveImages(t, writeResult)
			return sending{args: []string{frameFolder(t, 4), "--url", url}, blockedStdout: true, blockedStderr: true,
				reached: func(pid int, _ *lines) { awaitBlockedStdout(t, pid) }}
		},
	} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(fmt.Sprint(state, ", ", sig), func(t *testing.T) {
				t.Parallel()
				s := prepare(t)
				cmd := exec.Command(binary(t, "sightmesh"), append([]string{"send"}, s.args...)...)
				stderr := newLines()
				cmd.Stderr = stderr.writer()
				if s.stdin != nil {
					cmd.Stdin = s.stdin
				}
				if s.blockedStdout {
					cmd.Stdout = fullPipe(t)
				}
				if s.blockedStderr {
					cmd.Stderr = fullPipe(t)
				}
				p, err := startProcess(cmd)
				if err != nil {
					t.Fatal(err)
				}
				s.reached(cmd.Process.Pid, stderr)
				begin := time.Now()
				p.signal(t, sig)
				select {
				case <-p.done:
				case <-time.After(responseTimeout):
					p.kill(t)
					t.Fatalf("the sender did not end after %v", sig)
				}
				t.Logf("ended after %v: %s", time.Since(begin), stderr)
				if code := exitCode(p.err); code != 130 {
					t.Errorf("exit code %d, want 130", code)
				}
			})
		}
	}
}
