package kube

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWriteImage_NamesItsLayer(t *testing.T) {
	folder := t.TempDir()
	program, archive := filepath.Join(folder, "pause"), filepath.Join(folder, "pause.tar")
	if err := os.WriteFile(program, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteImage(archive, "a.invalid/pause:1", program); err != nil {
		t.Fatal(err)
	}
	all := readArchive(t, archive)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	switch err := json.Unmarshal(all["manifest.json"], &manifest); {
	case err != nil:
		t.Fatal(err)
	case len(manifest) != 1:
		t.Fatalf("%d images, want 1", len(manifest))
	}
	if tags, want := manifest[0].RepoTags, []string{"a.invalid/pause:1"}; !slices.Equal(tags, want) {
		t.Errorf("the names are %q, want %q", tags, want)
	}
	var config struct {
		Config struct{ Entrypoint []string }
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(all[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	layer := all[manifest[0].Layers[0]]
	if ids, want := config.RootFS.DiffIDs, []string{"sha256:" + sum(layer)}; !slices.Equal(ids, want) {
		t.Errorf("the layers are %q, want %q", ids, want)
	}
	file := filepath.Join(folder, "layer.tar")
	if err := os.WriteFile(file, layer, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readArchive(t, file)[config.Config.Entrypoint[0][1:]]; string(got) != "program" {
		t.Errorf("the entry point is %q, want the program", got)
	}
}

func readArchive(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if all[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
