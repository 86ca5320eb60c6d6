package onnxruntime_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/services/internal/nets/onnxruntime"
)

// openOrSkip opens the library, or skips the test on a machine without it.
func openOrSkip(t testing.TB) *onnxruntime.Library {
	t.Helper()
	library, err := openLibrary()
	if errors.Is(err, onnxruntime.ErrNotFound) {
		t.Skip("not run without ONNX Runtime: make onnxruntime installs it")
	}
	if err != nil {
		t.Fatal(err)
	}
	return library
}

func openLibrary() (*onnxruntime.Library, error) {
	path, err := onnxruntime.Find("", "../../../../models")
	if err != nil {
		return nil, err
	}
	return onnxruntime.Open(path)
}

func TestOpen_ReportsVersionAndProviders(t *testing.T) {
	library := openOrSkip(t)
	if !regexp.MustCompile(`^1\.\d+\.\d+`).MatchString(library.Version()) {
		t.Errorf("version is %q", library.Version())
	}
	if !slices.Contains(library.Providers(), "CPUExecutionProvider") {
		t.Errorf("providers are %q", library.Providers())
	}
}

func TestOpen_LoadsOnce(t *testing.T) {
	library := openOrSkip(t)
	for range 100 {
		again, err := onnxruntime.Open(library.Path())
		if err != nil {
			t.Fatal(err)
		}
		if again.Version() != library.Version() {
			t.Fatalf("version is %s, was %s", again.Version(), library.Version())
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.EvalSymlinks(library.Path())
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile(`(?m)^\S+ r-xp .*` + regexp.QuoteMeta(path) + `$`)
	if n := len(code.FindAll(maps, -1)); n != 1 {
		t.Errorf("the code of the library is mapped %d times", n)
	}
}

func TestOpen_RejectsAFileThatIsNotALibrary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libonnxruntime.so")
	if err := os.WriteFile(path, []byte("<!doctype html>"+strings.Repeat("not found ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	checkOpenFails(t, path, "invalid ELF header")
}

func TestOpen_RejectsAMissingFile(t *testing.T) {
	checkOpenFails(t, "/nonexistent/libonnxruntime.so", "No such file or directory")
}

func TestOpen_RejectsAnotherLibrary(t *testing.T) {
	checkOpenFails(t, compileLibrary(t, "int answer(void) { return 42; }"), "OrtGetApiBase")
}

func TestOpen_RejectsAnOldLibrary(t *testing.T) {
	path := compileLibrary(t, `
		static const void *get_api(unsigned version) { return version > 20 ? 0 : (const void *)1; }
		static const char *get_version(void) { return "1.20.1"; }
		static struct { const void *(*api)(unsigned); const char *(*version)(void); } base = {get_api, get_version};
		const void *OrtGetApiBase(void) { return &base; }`)
	checkOpenFails(t, path, "is version 1.20.1; version 1.21 or newer is needed")
}

// checkOpenFails checks that Open returns an error that names the file and the reason.
func checkOpenFails(t *testing.T, path, reason string) {
	t.Helper()
	_, err := onnxruntime.Open(path)
	if err == nil {
		t.Fatal("no error")
	}
	if !strings.Contains(err.Error(), path) {
		t.Errorf("error %q does not name the file", err)
	}
	if !strings.Contains(err.Error(), reason) {
		t.Errorf("error %q does not say %q", err, reason)
	}
}

// compileLibrary compiles a shared library from C and returns its path.
func compileLibrary(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "lib.c"), filepath.Join(dir, "lib.so")
	if err := os.WriteFile(in, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command("cc", "-shared", "-fPIC", "-o", out, in).CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, text)
	}
	return out
}
