package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestChart_HelmTestChecksResult runs the command of the pod of `helm test`. It posts
// the image of the chart and compares the result with the result in the chart.
func TestChart_HelmTestChecksResult(t *testing.T) {
	files := filepath.Join(root(t), "deploy/helm/sightmesh/files")
	m := start(t, nil)
	bench := func(expect string) error {
		out, err := exec.Command(binary(t, "sightmesh"), "bench", "--url="+m.base(), "--pipeline=codes", "--warmup=0s",
			"--duration=1s", "--expect="+expect, filepath.Join(files, "test.png")).CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	right := filepath.Join(files, "test.json")
	if err := bench(right); err != nil {
		t.Errorf("with the result of the chart: %v", err)
	}
	text, err := os.ReadFile(right)
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.json")
	other := strings.ReplaceAll(string(text), "4006381333931", "4006381333930")
	if err := os.WriteFile(wrong, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if bench(wrong) == nil {
		t.Error("with a wrong result: no error")
	}
}
