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

// caseFile reads a file of the list of cases, or skips the test.
func caseFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), "..", "shared", "cases", name))
	if err != nil {
		t.Skipf("no list of cases: %v", err)
	}
	return b
}

// TestDrawn_MatchesResult: the decoder that reads an image also draws it. The rows
// are mjpeg_no_dht.jpg, cut_80.jpg and tiff_g4.tif of the list of cases.
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
				t.Errorf("drawn as %v, want %d x %d as in the result", size, result.Image.Width, result.Image.Height)
			}
			switch r, g, b, _ := img.At(0, 0).RGBA(); {
			case r>>8 < 200:
				t.Errorf("the corner of the page is %v, want the light paper that was read: r>>8 %v, want at least 200",
					img.At(0, 0), r>>8)
			case g>>8 < 200:
				t.Errorf("the corner of the page is %v, want the light paper that was read: g>>8 %v, want at least 200",
					img.At(0, 0), g>>8)
			case b>>8 < 200:
				t.Errorf("the corner of the page is %v, want the light paper that was read: b>>8 %v, want at least 200",
					img.At(0, 0), b>>8)
			}
		})
	}
}

// TestDrawn_NoWorker: the job is done all the same, and the
// problem leads to its result.
func TestDrawn_NoWorker(t *testing.T) {
	m := start(t, []string{"SIGHTMESH_DRAW_LANES=0"})
	a := m.post(t, "?pipeline=text", samplePage(t), "Accept", "image/jpeg")
	checkProblem(t, a, v1.NoWorker)
	if a.problem.Job == "" {
		t.Fatalf("the problem has no id: %v", a)
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
		t.Errorf("the job is %v, want done: status %v, want 200", got, got.status)
	case got.result.Status != v1.Done:
		t.Errorf("the job is %v, want done: got.result.Status %v, want done", got, got.result.Status)
	}
}
