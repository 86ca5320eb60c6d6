package send

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// startInterrupted runs a sender over images, one at a time, that is interrupted
// at 2.jpg, and gives what resumes it. Those named damaged fail.
func startInterrupted(t *testing.T, images ...string) Config {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, image string, _ int) {
		if strings.Contains(image, "damaged") {
			problem(w, v1.Damaged, "")
			return
		}
		if image == "2.jpg" {
			interrupt()
		}
		done(w, image)
	})
	tmp := t.TempDir()
	cfg := Config{
		URL: m.URL, Paths: []string{folder(t, images...)}, Concurrency: "1",
		Out: filepath.Join(tmp, "out.ndjson"), Failed: filepath.Join(tmp, "failed.txt"),
	}
	if _, _, code := command(t, ctx, cfg); code != exit.Interrupted {
		t.Fatalf("code %d", code)
	}
	cfg.Resume = true
	return cfg
}

// TestResume_CountsEarlierFailures: the end of a resumed run is that of the
// whole.
func TestResume_CountsEarlierFailures(t *testing.T) {
	t.Parallel()
	cfg := startInterrupted(t, "1-damaged.jpg", "2.jpg", "3.jpg", "4.jpg")
	_, _, code := command(t, t.Context(), cfg)
	list, err := os.ReadFile(cfg.Failed)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case code != exit.Partial:
		t.Errorf("resumed: code %d, want %d; failed %q, want the one of before: code %v, want %v",
			code, exit.Partial, list, code, exit.Partial)
	case !strings.Contains(string(list), "1-damaged.jpg"):
		t.Errorf(`resumed: code %d, want %d; failed %q, want the one of before: want strings.Contains(string(list), "1-damaged.jpg")`,
			code, exit.Partial, list)
	}
}

// TestCommand_PartialFailure: not every image failed.
func TestCommand_PartialFailure(t *testing.T) {
	t.Parallel()
	if _, _, code := command(t, t.Context(), startInterrupted(t, "1.jpg", "2.jpg", "9-damaged.jpg")); code != exit.Partial {
		t.Errorf("resumed: code %d, want %d", code, exit.Partial)
	}
}
