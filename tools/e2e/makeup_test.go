package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// offlineEnv returns an environment in which no model can be fetched: package registries and proxies are unreachable.
func offlineEnv(t *testing.T) []string {
	t.Helper()
	const nowhere = "http://127.0.0.1:1/"
	return []string{
		"npm_config_registry=" + nowhere, "npm_config_cache=" + t.TempDir(), "PIP_INDEX_URL=" + nowhere,
		"HTTPS_PROXY=" + nowhere, "HTTP_PROXY=" + nowhere,
	}
}

// makeUp runs `make up` without its build until the mesh is ready, and returns the output.
func makeUp(t *testing.T, models string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("make", append([]string{"--no-print-directory", "-o", "build", "up"}, args...)...)
	cmd.Dir = root(t)
	isMakeVariable := func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MODELS"}, name)
	}
	cmd.Env = append(slices.DeleteFunc(os.Environ(), isMakeVariable), env...)
	cmd.Env = append(cmd.Env, "SIGHTMESH_HTTP=127.0.0.1:0", "SIGHTMESH_NATS=127.0.0.1:0", "SIGHTMESH_SAMPLE=none",
		"SIGHTMESH_LOG=json", "SIGHTMESH_DATA="+t.TempDir(), "SIGHTMESH_MODELS="+models,
		"SIGHTMESH_LANE_START=1m") // lanes of a busy machine start slowly
	output := newLines()
	cmd.Stdout, cmd.Stderr = output.writer(), output.writer()
	p, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	_, ready := output.search(readyLine, 90*time.Second)
	if ready {
		output.search(regexp.MustCompile(`"models in use"`), responseTimeout)
	}
	p.stop(t)
	if !ready {
		t.Fatalf("the mesh is not ready:\n%s", output)
	}
	return output.String()
}

// TestMakeUp_StartsOffline checks that the mesh starts without models that cannot be fetched. The output names them.
func TestMakeUp_StartsOffline(t *testing.T) {
	t.Parallel()
	output := makeUp(t, filepath.Join(t.TempDir(), "models"), offlineEnv(t))
	for _, want := range []string{
		"0 of ", "yunet: no source has yunet_n_640_640.onnx:", "yolox-nano: no source has yolox_nano.onnx:",
		"connection refused", "the mesh starts without the missing models", "text: text-lines, ", "objects: not ready",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("no %q in\n%s", want, output)
		}
	}
}

// TestMakeUp_FetchesNothing checks that MODELS=none fetches no models.
func TestMakeUp_FetchesNothing(t *testing.T) {
	t.Parallel()
	models := filepath.Join(t.TempDir(), "models")
	output := makeUp(t, models, offlineEnv(t), "MODELS=none")
	for _, text := range []string{"bin/sightmesh models pull", "no source has"} {
		if strings.Contains(output, text) {
			t.Errorf("the output has %q, want no models fetched:\n%s", text, output)
		}
	}
	if _, err := os.Stat(models); !os.IsNotExist(err) {
		t.Errorf("stat of the folder of models: %v, want that it does not exist", err)
	}
}

// TestMakeUp_UsesPresentModels checks that a model that was pulled before is not fetched again.
func TestMakeUp_UsesPresentModels(t *testing.T) {
	t.Parallel()
	models := pullModels(t, "yunet", "yolox-nano")
	output := makeUp(t, models, offlineEnv(t), "MODELS=faces objects")
	for _, want := range []string{
		"2 of 2 models are installed in " + models + ": yunet, yolox-nano", "faces: yunet, ", "objects: yolox-nano",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("no %q in\n%s", want, output)
		}
	}
	if strings.Contains(output, "no source has") {
		t.Errorf("models are fetched again:\n%s", output)
	}
}
