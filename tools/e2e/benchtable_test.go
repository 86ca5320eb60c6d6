package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// withoutResult matches what a page has in place of a figure when no response arrived in the measured time.
var withoutResult = regexp.MustCompile(`not measured: 0 results, errors map\[\]|NaN|Inf`)

// measureNetworks runs the rows of networks of benchtable with the model yunet only, and returns the page that it
// writes. It measures each row for 3 s, and for longer when the machine is so busy that a row has no result.
func measureNetworks(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	photo := filepath.Join(dir, "astronaut.png")
	writeFiles(t, dir, map[string]string{"astronaut.png": string(readRealdata(t, "photos/astronaut.png"))})
	models := filepath.Join(dir, "models")
	yunet := filepath.Join(models, "yunet")
	if err := os.CopyFS(yunet, os.DirFS(filepath.Join(root(t), "tools/internal/models/catalogue/yunet"))); err != nil {
		t.Fatal(err)
	}
	weights := "yunet_n_640_640.onnx"
	writeFiles(t, yunet, map[string]string{weights: string(readRealdata(t, "models/yunet_n/"+weights))})
	bin := filepath.Join(dir, "bin") // benchtable builds further programs here
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range services {
		if err := os.Symlink(binary(t, name), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "performance.md")
	for each := 3 * time.Second; ; each *= 4 {
		cmd := exec.Command("go", append([]string{"run", "./tools/benchtable", "--bin", bin, "--models", models,
			"--out", out, "--only", "h", "--each", each.String(), "--rounds", "1", "--image", "faces=" + photo}, args...)...)
		cmd.Dir = root(t)
		output, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("the exit status is 0, want an error because models are missing: %s", output)
		}
		page, err := os.ReadFile(out)
		if err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		if !withoutResult.Match(page) || each > time.Minute {
			return string(page)
		}
	}
}

// TestBenchtable_MeasuresNetworks checks that the page has a row for a model that is present, and the reason for a
// model that is missing.
func TestBenchtable_MeasuresNetworks(t *testing.T) {
	page := measureNetworks(t)
	for name, want := range map[string]string{
		"throughput and latency": `\n\| faces \| astronaut.png \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ ms \|`,
		"processor time":         `\n\| faces \| [0-9.]+ ms \| [0-9.]+ ms \| [0-9.]+ \| not measured \|`,
		"hops":                   `\n\| faces \| mesh \| [0-9.]+ ms \| [1-9][0-9.]* ms \| 0.00 ms \|`,
		"without its model": `\n\| objects \| not measured: start lanes of pipeline objects: ` +
			`detect: .*yolox-nano: the folder does not exist`,
		"without LitServe": "\nNot compared with LitServe: `make litserve`",
	} {
		if !regexp.MustCompile(want).MatchString(page) {
			t.Errorf("%s: no %s in\n%s", name, want, page)
		}
	}
}

// TestBenchtable_MeasuresLitServe checks that LitServe finds the same regions as the mesh.
func TestBenchtable_MeasuresLitServe(t *testing.T) {
	packages := filepath.Join(root(t), "bin", "litserve")
	if _, err := os.Stat(filepath.Join(packages, "litserve")); err != nil {
		t.Skipf("LitServe is not installed; make litserve installs it: %v", err)
	}
	page := measureNetworks(t, "--litserve", packages)
	if want := regexp.MustCompile(`\n\| faces \| ([0-9.]+( ms)? \| ){6}1 of 1 \|`); !want.MatchString(page) {
		t.Errorf("no %s in\n%s", want, page)
	}
}
