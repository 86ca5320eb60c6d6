package e2e

import (
	"bytes"
	"image"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// caseFile reads a file of ../shared/cases. It skips the test when there is no such
// file.
func caseFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), "..", "shared", "cases", name))
	if err != nil {
		t.Skipf("no list of cases: %v", err)
	}
	return b
}

// TestDrawn_MatchesResult checks that an image is drawn as the decoder of the pipeline
// has read it. It tests the rows mjpeg_no_dht.jpg, cut_80.jpg and tiff_g4.tif of
// shared/cases.
func TestDrawn_MatchesResult(t *testing.T) {
	m := start(t, nil)
	for _, name := range []string{"mjpeg_no_dht.jpg", "cut_80.jpg", "tiff_g4.tif"} {
		t.Run(name, func(t *testing.T) {
			a := m.post(t, "?pipeline=text", caseFile(t, name), "Accept", "image/png")
			if a.status != http.StatusOK {
				t.Fatalf("got %v, want a drawn image", a)
			}
			img, _, err := image.Decode(bytes.NewReader(a.body))
			if err != nil {
				t.Fatal(err)
			}
			result := m.get(t, a.header.Get("Content-Location")).result
			if result.Image == nil {
				t.Fatalf("the result has no image: %+v", result)
			}
			if size := img.Bounds().Size(); size != image.Pt(result.Image.Width, result.Image.Height) {
				t.Errorf("the size is %v, want %d x %d as in the result", size, result.Image.Width, result.Image.Height)
			}
			if r, g, b, _ := img.At(0, 0).RGBA(); min(r, g, b)>>8 < 200 {
				t.Errorf("the corner of the page is %v, want the light paper: every channel at least 200", img.At(0, 0))
			}
		})
	}
}

// TestDrawn_NoWorker checks that a job is done also when no lane draws. The problem
// has the address of the result.
func TestDrawn_NoWorker(t *testing.T) {
	m := start(t, []string{"SIGHTMESH_DRAW_LANES=0"})
	a := m.post(t, "?pipeline=text", samplePage(t), "Accept", "image/jpeg")
	checkProblem(t, a, v1.NoWorker)
	if a.problem.Job == "" {
		t.Fatalf("the problem has no job: %v", a)
	}
	want := "/v1/images/" + a.problem.Job
	if got := a.header.Get("Content-Location"); got != want {
		t.Errorf("Content-Location is %q, want %q", got, want)
	}
	if got := a.header.Get("Location"); got != want {
		t.Errorf("Location is %q, want %q", got, want)
	}
	switch got := m.get(t, want); {
	case got.status != http.StatusOK:
		t.Errorf("GET %s: %v: status %d, want 200", want, got, got.status)
	case got.result.Status != v1.Done:
		t.Errorf("GET %s: %v: the job is %s, want done", want, got, got.result.Status)
	}
}
