package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/lane"
)

// TestLaneTry_RunsTheBuiltInLaneOfAPipeline runs the lane program of detect without a mesh.
func TestLaneTry_RunsTheBuiltInLaneOfAPipeline(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"page.png": string(samplePage(t))})
	stdout, stderr, code := sightmesh(t, nil, "lane", "try", "--pipeline", "text-tesseract",
		filepath.Join(dir, "page.png"))
	if code != 0 {
		t.Fatalf("exit status %d, want 0:\n%s", code, stderr)
	}
	var found lane.Detected
	if err := json.Unmarshal([]byte(stdout), &found); err != nil {
		t.Fatal(err)
	}
	if len(found.Regions) == 0 {
		t.Errorf("no region on the page:\n%s", stdout)
	}
	if len(found.Crops) != len(found.Regions) {
		t.Errorf("%d crops for %d regions, want one for each: the pipeline has classify", len(found.Crops),
			len(found.Regions))
	}
	if !strings.Contains(stderr, "ready after ") {
		t.Errorf("standard error has no times:\n%s", stderr)
	}
}
