package onnxruntime_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sightmesh/sightmesh/services/internal/nets/onnxruntime"
)

// install runs the script that installs the library, with variables added to its
// environment, and returns what it printed. It has to fail if ok is false.
func install(t *testing.T, ok bool, env []string, args ...string) string {
	t.Helper()
	script := exec.Command("../../../../tools/scripts/install-onnxruntime", args...)
	script.Env = append(os.Environ(), env...)
	out, err := script.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if (err == nil) != ok {
		t.Fatalf("error is %v:\n%s", err, out)
	}
	return string(out)
}

// archive writes a .tgz as upstream makes it, with a link to the library before
// the library, and returns its path and sum.
func archive(t *testing.T, library string) (path, sum string) {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeSymlink, Name: "onnxruntime/lib/libonnxruntime.so", Linkname: "libonnxruntime.so.1.30.0"},
		{Typeflag: tar.TypeReg, Name: "onnxruntime/lib/libonnxruntime_providers_shared.so", Mode: 0o644},
		{Typeflag: tar.TypeReg, Name: "onnxruntime/lib/libonnxruntime.so.1.30.0", Mode: 0o644, Size: int64(len(library))},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte(library)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "onnxruntime.tgz")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(b.Bytes())
	return path, hex.EncodeToString(digest[:])
}

// checkEmpty expects that nothing is left in the folder.
func checkEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestInstall_TakesAnArchiveOfThisSum(t *testing.T) {
	models := t.TempDir()
	from, sum := archive(t, "the library")
	install(t, true, nil, "--from", from, "--sha256", sum, filepath.Join(models, "onnxruntime"))
	path, err := onnxruntime.Find("", models)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "the library" {
		t.Errorf("%s has %q", path, got)
	}
}

func TestInstall_LeavesNothingOfAFileThatIsNotKnown(t *testing.T) {
	dir := t.TempDir()
	from, _ := archive(t, "half of the lib")
	out := install(t, false, nil, "--from", from, dir)
	checkError(t, errors.New(out), from, "is not known: nothing was installed")
	checkEmpty(t, dir)
}

func TestInstall_LeavesNothingOfAFileWithAnotherSum(t *testing.T) {
	dir := t.TempDir()
	from, sum := archive(t, "the library")
	other := sum[1:] + "0"
	out := install(t, false, nil, "--from", from, "--sha256", other, dir)
	checkError(t, errors.New(out), sum, "not "+other, "nothing was installed")
	checkEmpty(t, dir)
}

func TestInstall_SaysWhatToDoWithoutNpm(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	for _, tool := range []string{"bash", "uname", "dirname", "mkdir", "mktemp", "rm"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	out := install(t, false, []string{"PATH=" + bin}, dir)
	checkError(t, errors.New(out), "npm is not there", "https://github.com/microsoft/onnxruntime/releases", "--from FILE --sha256 SUM")
	checkEmpty(t, dir)
}

func TestInstall_LeavesNothingWhenNpmFails(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("not run without npm")
	}
	dir := t.TempDir()
	// A registry that is not there, and none of what was fetched before.
	env := []string{"npm_config_registry=http://127.0.0.1:1/", "npm_config_fetch_retries=0", "npm_config_cache=" + t.TempDir()}
	out := install(t, false, env, dir)
	checkError(t, errors.New(out), "ECONNREFUSED", "npm cannot fetch sherpa-onnx-linux-", "--from FILE --sha256 SUM")
	checkEmpty(t, dir)
}
