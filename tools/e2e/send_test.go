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
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// frameFolder has n frames, each with its face at another place.
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

type sent struct {
	File    string
	Status  v1.Status
	Result  *v1.Result
	Problem *v1.Problem
	Error   string
}

func outcomes(t testing.TB, data []byte) []sent {
	t.Helper()
	var out []sent
	for line := range bytes.Lines(data) {
		var s sent
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
		cmd := exec.Command(binary(t, "sightmesh"), append([]string{"send", dir, "--pipeline", "faces", "--ordered", "--draw", drawn}, to...)...)
		stdout, err := cmd.Output()
		if code := exitCode(err); code != 3 {
			t.Errorf("%s: exit code %d, want 3 for one image that failed: %v", name, code, err)
		}
		all := outcomes(t, stdout)
		if len(all) != 12 {
			t.Fatalf("%s: %d outcomes", name, len(all))
		}
		left := 0
		for i, s := range all {
			if filepath.Base(s.File) != fmt.Sprintf("frame%d.png", i+1) {
				t.Errorf("%s: outcome %d is of %s", name, i, s.File)
			}
			if i == 4 {
				switch {
				case s.Problem == nil:
					t.Errorf("%s: what is no image: %+v: no problem", name, s)
				case s.Problem.Code != v1.UnsupportedType:
					t.Errorf("%s: what is no image: %+v: Problem.Code %v, want unsupported-type",
						name, s, s.Problem.Code)
				}
				continue
			}
			switch {
			case s.Status != v1.Done:
				t.Fatalf("%s: outcome %d: %+v: status %v, want done", name, i, s, s.Status)
			case len(s.Result.Regions) != 1:
				t.Fatalf("%s: outcome %d: %+v: %d Result.Regions, want 1", name, i, s, len(s.Result.Regions))
			case s.Result.Regions[0].Box.X < left:
				t.Fatalf("%s: outcome %d: %+v: Result.Regions[0].Box.X %v, want at least left",
					name, i, s, s.Result.Regions[0].Box.X)
			}
			left = s.Result.Regions[0].Box.X
		}
	}
	pic, err := os.ReadFile(filepath.Join(drawn, "frame12.png.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	switch _, kind, err := image.Decode(bytes.NewReader(pic)); {
	case err != nil:
		t.Errorf("the drawn image: %s, %v", kind, err)
	case kind != "jpeg":
		t.Errorf(`the drawn image: %s, %v: kind %q, want "jpeg"`, kind, err, kind)
	}
}

// TestSend_ResumesAfterKill kills the sender in the middle, once softly and
// once hard; every image is there once in the end.
func TestSend_ResumesAfterKill(t *testing.T) {
	m := start(t, nil)
	const n = 80
	dir, out := frameFolder(t, n), filepath.Join(t.TempDir(), "results.ndjson")
	send := func(more ...string) *exec.Cmd {
		return exec.Command(binary(t, "sightmesh"), append([]string{"send", dir, "--url", m.base(), "--pipeline", "faces", "--out", out}, more...)...)
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
		for deadline := time.Now().Add(timeoutAnswer); lines() < before+20 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(cmd.Wait()); sig == syscall.SIGINT && code != 130 {
			t.Errorf("interrupted: exit code %d", code)
		}
		if got := lines(); got >= n {
			t.Fatalf("all of %d were sent before signal %v", got, sig)
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
	for _, s := range outcomes(t, b) {
		files[s.File]++
		jobs[s.Result.ID]++
	}
	for f, times := range files {
		switch {
		case times != 1:
			t.Errorf("%s has %d outcomes: times %v, want 1", f, times, times)
		case !strings.HasPrefix(f, dir):
			t.Errorf("%s has %d outcomes: want strings.HasPrefix(f, dir)", f, times)
		}
	}
	switch {
	case len(files) != n:
		t.Errorf("%d files and %d jobs, want %d: %d files, want %v", len(files), len(jobs), n, len(files), n)
	case len(jobs) != n:
		t.Errorf("%d files and %d jobs, want %d: %d jobs, want %v", len(files), len(jobs), n, len(jobs), n)
	}
}
