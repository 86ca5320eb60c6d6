package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// frameFolder returns a folder with n frames, each with its face in another place.
func frameFolder(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := 1; i <= n; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("frame%d.png", i)), frameAt(t, 3*i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

type sentOutcome struct {
	File    string
	Status  v1.Status
	Result  *v1.Result
	Problem *v1.Problem
	Error   string
}

func decodeOutcomes(t testing.TB, data []byte) []sentOutcome {
	t.Helper()
	var out []sentOutcome
	for line := range bytes.Lines(data) {
		var s sentOutcome
		if err := json.Unmarshal(line, &s); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, s)
	}
	return out
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

func testSend(t *testing.T, m *mesh) {
	dir := frameFolder(t, 12)
	if err := os.WriteFile(filepath.Join(dir, "frame5.png"), []byte("no image"), 0o600); err != nil {
		t.Fatal(err)
	}
	drawn := t.TempDir()
	for name, to := range map[string][]string{"HTTP": {"--url", m.base()}, "NATS": {"--nats", m.nats}} {
		cmd := exec.Command(binary(t, "sightmesh"),
			append([]string{"send", dir, "--pipeline", "faces", "--ordered", "--draw", drawn}, to...)...)
		stdout, err := cmd.Output()
		if code := exitCode(err); code != 3 {
			t.Errorf("%s: exit code %d, want 3 because one image failed: %v", name, code, err)
		}
		all := decodeOutcomes(t, stdout)
		if len(all) != 12 {
			t.Fatalf("%s: %d outcomes, want 12", name, len(all))
		}
		left := 0
		for i, s := range all {
			if filepath.Base(s.File) != fmt.Sprintf("frame%d.png", i+1) {
				t.Errorf("%s: outcome %d is of %s", name, i, s.File)
			}
			if i == 4 {
				switch {
				case s.Problem == nil:
					t.Errorf("%s: a text file has no problem, want %s: %+v", name, v1.UnsupportedType, s)
				case s.Problem.Code != v1.UnsupportedType:
					t.Errorf("%s: a text file has the problem %v, want %s", name, s.Problem, v1.UnsupportedType)
				}
				continue
			}
			switch {
			case s.Status != v1.Done:
				t.Fatalf("%s: outcome %d: %+v: status %s, want done", name, i, s, s.Status)
			case len(s.Result.Regions) != 1:
				t.Fatalf("%s: outcome %d has %d regions, want 1", name, i, len(s.Result.Regions))
			case s.Result.Regions[0].Box.X < left:
				t.Fatalf("%s: outcome %d has its face at %d, want at least %d as in the frame before",
					name, i, s.Result.Regions[0].Box.X, left)
			}
			left = s.Result.Regions[0].Box.X
		}
	}
	file, err := os.ReadFile(filepath.Join(drawn, "frame12.png.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	switch _, format, err := image.Decode(bytes.NewReader(file)); {
	case err != nil:
		t.Errorf("decode the drawn image: %v", err)
	case format != "jpeg":
		t.Errorf("the drawn image is %s, want jpeg", format)
	}
}

// TestSend_ResumesAfterKill ends the sender twice before all images are sent, with
// SIGINT and with SIGKILL. In the end every image has exactly one outcome.
func TestSend_ResumesAfterKill(t *testing.T) {
	m := start(t, nil)
	const n = 80
	dir, out := frameFolder(t, n), filepath.Join(t.TempDir(), "results.ndjson")
	send := func(more ...string) *exec.Cmd {
		return exec.Command(binary(t, "sightmesh"),
			append([]string{"send", dir, "--url", m.base(), "--pipeline", "faces", "--out", out}, more...)...)
	}
	lines := func() int {
		b, err := os.ReadFile(out)
		if err != nil {
			return 0
		}
		return bytes.Count(b, []byte("\n"))
	}
	for i, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		cmd := send()
		if i > 0 {
			cmd = send("--resume")
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		before := lines()
		eventually.Succeeds(t, responseTimeout, func() error {
			if got := lines() - before; got < 20 {
				return fmt.Errorf("%d of 20 outcomes were written", got)
			}
			return nil
		})
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(cmd.Wait()); sig == syscall.SIGINT && code != 130 {
			t.Errorf("the exit code after SIGINT is %d, want 130", code)
		}
		if got := lines(); got >= n {
			t.Fatalf("all %d images were sent before the signal %v", got, sig)
		}
	}
	if text, err := send("--resume").CombinedOutput(); err != nil {
		t.Fatalf("resumed: %v\n%s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	files, jobs := map[string]int{}, map[string]int{}
	for _, s := range decodeOutcomes(t, b) {
		files[s.File]++
		jobs[s.Result.ID]++
	}
	for f, times := range files {
		if times != 1 {
			t.Errorf("%s has %d outcomes, want 1", f, times)
		}
		if !strings.HasPrefix(f, dir) {
			t.Errorf("an outcome is of %s, want a file in %s", f, dir)
		}
	}
	if len(files) != n {
		t.Errorf("%d files have outcomes, want %d", len(files), n)
	}
	if len(jobs) != n {
		t.Errorf("the outcomes are of %d jobs, want %d", len(jobs), n)
	}
}
