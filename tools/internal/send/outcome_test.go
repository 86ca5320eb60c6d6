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

// interrupted runs a sender over pictures, one at a time, that is interrupted
// at 2.jpg, and gives what resumes it. Those named damaged fail.
func interrupted(t *testing.T, pictures ...string) Config {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, pic string, _ int) {
		if strings.Contains(pic, "damaged") {
			problem(w, v1.Damaged, "")
			return
		}
		if pic == "2.jpg" {
			interrupt()
		}
		done(w, pic)
	})
	tmp := t.TempDir()
	cfg := Config{
		URL: m.URL, Paths: []string{folder(t, pictures...)}, Concurrency: "1",
		Out: filepath.Join(tmp, "out.ndjson"), Failed: filepath.Join(tmp, "failed.txt"),
	}
	if _, _, code := command(t, ctx, cfg); code != exit.Interrupted {
		t.Fatalf("code %d", code)
	}
	cfg.Resume = true
	return cfg
}

// TestResumeKnowsWhatFailedBefore: the end of a resumed run is that of the
// whole.
func TestResumeKnowsWhatFailedBefore(t *testing.T) {
	t.Parallel()
	cfg := interrupted(t, "1-damaged.jpg", "2.jpg", "3.jpg", "4.jpg")
	_, _, code := command(t, t.Context(), cfg)
	list, err := os.ReadFile(cfg.Failed)
	if err != nil {
		t.Fatal(err)
	}
	if code != exit.Partial || !strings.Contains(string(list), "1-damaged.jpg") {
		t.Errorf("resumed: code %d, want %d; failed %q, want the one of before", code, exit.Partial, list)
	}
}

// TestOneOfManyFailsInTheEnd: not every picture failed.
func TestOneOfManyFailsInTheEnd(t *testing.T) {
	t.Parallel()
	if _, _, code := command(t, t.Context(), interrupted(t, "1.jpg", "2.jpg", "9-damaged.jpg")); code != exit.Partial {
		t.Errorf("resumed: code %d, want %d", code, exit.Partial)
	}
}
