package send

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestResumeKnowsWhatFailedBefore: the end of a resumed run is that of the
// whole.
func TestResumeKnowsWhatFailedBefore(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, pic string, _ int) {
		switch pic {
		case "1-damaged.jpg":
			problem(w, v1.Damaged, "")
		case "2.jpg":
			interrupt()
			done(w, pic)
		default:
			done(w, pic)
		}
	})
	dir := folder(t, "1-damaged.jpg", "2.jpg", "3.jpg", "4.jpg")
	tmp := t.TempDir()
	cfg := Config{URL: m.URL, Paths: []string{dir}, Out: filepath.Join(tmp, "out.ndjson"), Failed: filepath.Join(tmp, "failed.txt"), Concurrency: "1"}
	if _, _, code := command(t, ctx, cfg); code != exitInterrupted {
		t.Fatalf("code %d", code)
	}
	cfg.Resume = true
	_, _, code := command(t, t.Context(), cfg)
	list, err := os.ReadFile(cfg.Failed)
	if err != nil {
		t.Fatal(err)
	}
	if code != exitPartial || !strings.Contains(string(list), "1-damaged.jpg") {
		t.Errorf("resumed: code %d, want %d; failed %q, want the one of before", code, exitPartial, list)
	}
}

// TestOneOfManyFailsInTheEnd: not every picture failed.
func TestOneOfManyFailsInTheEnd(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, pic string, _ int) {
		switch pic {
		case "9-damaged.jpg":
			problem(w, v1.Damaged, "")
		case "2.jpg":
			interrupt()
			done(w, pic)
		default:
			done(w, pic)
		}
	})
	dir := folder(t, "1.jpg", "2.jpg", "9-damaged.jpg")
	cfg := Config{URL: m.URL, Paths: []string{dir}, Out: filepath.Join(t.TempDir(), "out.ndjson"), Concurrency: "1"}
	if _, _, code := command(t, ctx, cfg); code != exitInterrupted {
		t.Fatalf("code %d", code)
	}
	cfg.Resume = true
	if _, _, code := command(t, t.Context(), cfg); code != exitPartial {
		t.Errorf("resumed: code %d, want %d", code, exitPartial)
	}
}
