package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/tools/internal/quality"
)

// TestQuality_MeasuresTwoPhotos measures two photos: a page that every build reads
// without an error, and a face.
func TestQuality_MeasuresTwoPhotos(t *testing.T) {
	images := filepath.Join(t.TempDir(), "two")
	files := map[string]string{}
	for _, name := range []string{
		"text_page_en.tif", "text_page_en.expected.json", "astronaut.png", "astronaut.expected.json",
	} {
		files[name] = string(readRealdata(t, "photos/"+name))
	}
	writeFiles(t, images, files)
	pipelines := filepath.Join(t.TempDir(), "pipelines.yaml")
	writeFiles(t, filepath.Dir(pipelines), map[string]string{"pipelines.yaml": `
pipelines:
  - name: text
    text: true
    detect: {kind: text-lines}
    classify: {kind: tesseract, settings: {languages: [eng]}}
  - name: faces
    detect: {kind: cascade, settings: {cascade: haarcascade_frontalface_alt2, label: face}}
`})
	cfg := quality.Config{
		Images: []string{images}, Bin: filepath.Dir(binary(t, "sightmesh")), Models: t.TempDir(), NoTargets: true,
		Pipelines: pipelines,
	}
	var page, progress bytes.Buffer
	if err := quality.Command(t.Context(), cfg, &page, &progress); err != nil {
		t.Fatal(err)
	}
	for name, start := range map[string]string{
		"the text":       "| text_page_en | 0.0 %, 0.0 % |",
		"the face":       "| astronaut | – | 1 of 1 |",
		"the summary":    "| `faces` | haarcascade_frontalface_alt2 ",
		"both as lanes":  "| results of the mesh that are those of its lanes alone | all | 4 of 4 | yes |",
		"what is missed": "| `objects` | not served: ",
	} {
		if !strings.Contains(page.String(), "\n"+start) {
			t.Errorf("%s: no row that begins with %q in\n%s", name, start, page.String())
		}
	}
}

// TestQuality_MissedTargetIsAnError measures without the model of the pipeline objects,
// which misses its targets.
func TestQuality_MissedTargetIsAnError(t *testing.T) {
	images := filepath.Join(t.TempDir(), "one")
	writeFiles(t, images, map[string]string{
		"astronaut.png":           string(readRealdata(t, "photos/astronaut.png")),
		"astronaut.expected.json": string(readRealdata(t, "photos/astronaut.expected.json")),
	})
	out := filepath.Join(t.TempDir(), "models.md")
	writeFiles(t, filepath.Dir(out), map[string]string{
		"models.md": "<!-- quality: begin, written by make quality -->\n<!-- quality: end -->\n",
	})
	cfg := quality.Config{Images: []string{images}, Bin: filepath.Dir(binary(t, "sightmesh")), Models: t.TempDir(),
		Out: out}
	var page, progress bytes.Buffer
	err := quality.Command(t.Context(), cfg, &page, &progress)
	if want := "target missed: objects missed: not served"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want %q in it", err, want)
	}
	written, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(written), page.String()) {
		t.Errorf("the file does not contain what was printed: %s", written)
	}
}
