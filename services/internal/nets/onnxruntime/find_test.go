package onnxruntime

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind_ReturnsTheGivenFile(t *testing.T) {
	models := folderWithLibrary(t)
	given := filepath.Join(t.TempDir(), "mine.so")
	if err := os.WriteFile(given, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Find(given, models)
	if err != nil {
		t.Fatal(err)
	}
	if got != given {
		t.Errorf("found %s, not the given %s", got, given)
	}
}

func TestFind_DoesNotReplaceAMissingGivenFile(t *testing.T) {
	got, err := Find("/nonexistent/libonnxruntime.so", folderWithLibrary(t))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
	if errors.Is(err, ErrNotFound) {
		t.Errorf("error is %v, want another than ErrNotFound", err)
	}
	if got != "" {
		t.Errorf("found %s, want nothing", got)
	}
}

func TestFind_LooksIntoTheFolderOfModels(t *testing.T) {
	models := folderWithLibrary(t)
	got, err := Find("", models)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(models, "onnxruntime", "libonnxruntime.so.1"); got != want {
		t.Errorf("found %s, not %s", got, want)
	}
}

func TestFind_ErrorNamesPlacesAndInstallCommand(t *testing.T) {
	if path := findInSystem(); path != "" {
		t.Skip("the system has ONNX Runtime: " + path)
	}
	_, err := Find("", "/srv/models")
	if !errors.Is(err, ErrNotFound) {
		t.Fatalf("error is %v", err)
	}
	for _, want := range []string{
		"/srv/models/onnxruntime/libonnxruntime.so*", "libonnxruntime.so.1* of the system", "make onnxruntime",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %q", err, want)
		}
	}
}

func TestFirstInList_ReturnsTheNewestVersion(t *testing.T) {
	const list = `3 libs found in cache ` + "`/etc/ld.so.cache'" + `
	libonnxruntime_providers_shared.so (libc6,x86-64) => /usr/lib/libonnxruntime_providers_shared.so
	libonnxruntime.so.1.23 (libc6,x86-64) => /lib/x86_64-linux-gnu/libonnxruntime.so.1.23
	libonnxruntime.so.1.21 (libc6,x86-64) => /lib/x86_64-linux-gnu/libonnxruntime.so.1.21
`
	if got, want := firstInList(list), "/lib/x86_64-linux-gnu/libonnxruntime.so.1.23"; got != want {
		t.Errorf("newest is %q, not %q", got, want)
	}
	if got := firstInList("0 libs found"); got != "" {
		t.Errorf("found %q in an empty list", got)
	}
}

// folderWithLibrary returns a folder of models that contains a file with the library's name.
func folderWithLibrary(t *testing.T) string {
	t.Helper()
	models := t.TempDir()
	dir := filepath.Join(models, "onnxruntime")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"libonnxruntime.so.1", "libonnxruntime_providers_shared.so"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return models
}
