package e2e

import (
	"bytes"
	"image"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/image/bmp"
)

// colourImage writes an image for the pipeline colour of docs/lanes, and returns its
// path.
func colourImage(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	if err := bmp.Encode(&b, opaque{image.NewRGBA(image.Rect(0, 0, 20, 10))}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "colour.bmp")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestUp_NoPipelineForSample tests the row "Docs" of shared/cases. The command of
// docs/lanes/pipelines.yaml starts without an error, although no pipeline of that file
// reads the text of the sample.
func TestUp_NoPipelineForSample(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sample []string
		want   *regexp.Regexp
	}{
		"sample page":           {nil, regexp.MustCompile(`"level":"INFO".*the sample is skipped.*needs the pipeline text`)},
		"image, first pipeline": {[]string{"--sample", colourImage(t)}, regexp.MustCompile(`colour.bmp has 1 regions`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath("python3"); err != nil {
				t.Skip("the lane of the pipeline colour needs python3")
			}
			args := []string{"up", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--data", t.TempDir(),
				"--log", "json", "--lanes", "1", "--pipelines", "docs/lanes/pipelines.yaml"}
			cmd := exec.Command(binary(t, "sightmesh"), append(args, tt.sample...)...)
			cmd.Dir = root(t)
			output := newLines()
			cmd.Stdout, cmd.Stderr = output.writer(), output.writer()
			p, err := startProcess(cmd)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.stop(t) })
			if _, ok := output.search(tt.want, 90*time.Second); !ok {
				t.Errorf("no line matches %v:\n%s", tt.want, output)
			}
			if errors := output.matchingLines(regexp.MustCompile(`"level":"ERROR"`)); len(errors) > 0 {
				t.Errorf("the log has errors: %q", errors)
			}
		})
	}
}
