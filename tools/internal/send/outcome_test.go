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

// startInterrupted runs a sender, which is interrupted at 2.jpg, and returns the
// configuration that resumes it. It sends one image at a time. Images with damaged in
// their name fail.
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
		t.Fatalf("code %d, want %d", code, exit.Interrupted)
	}
	cfg.Resume = true
	return cfg
}

// TestResume_CountsEarlierFailures checks that the exit code and the list of failures of
// a resumed run include the run before.
func TestResume_CountsEarlierFailures(t *testing.T) {
	t.Parallel()
	cfg := startInterrupted(t, "1-damaged.jpg", "2.jpg", "3.jpg", "4.jpg")
	_, _, code := command(t, t.Context(), cfg)
	list, err := os.ReadFile(cfg.Failed)
	if err != nil {
		t.Fatal(err)
	}
	if code != exit.Partial {
		t.Errorf("the code of the resumed run is %d, want %d", code, exit.Partial)
	}
	if !strings.Contains(string(list), "1-damaged.jpg") {
		t.Errorf("the list of failures is %q, want 1-damaged.jpg in it", list)
	}
}

// TestCommand_PartialFailure checks the exit code when some images fail.
func TestCommand_PartialFailure(t *testing.T) {
	t.Parallel()
	cfg := startInterrupted(t, "1.jpg", "2.jpg", "9-damaged.jpg")
	if _, _, code := command(t, t.Context(), cfg); code != exit.Partial {
		t.Errorf("the code of the resumed run is %d, want %d", code, exit.Partial)
	}
}
