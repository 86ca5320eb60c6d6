package kube

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
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
		t.Fatalf("got %d images, %v", len(manifest), err)
	case len(manifest) != 1:
		t.Fatalf("got %d images, %v: %d manifest, want 1", len(manifest), err, len(manifest))
	}
	switch tags := manifest[0].RepoTags; {
	case len(tags) != 1:
		t.Errorf("got the names %v: %d tags, want 1", tags, len(tags))
	case tags[0] != "a.invalid/pause:1":
		t.Errorf(`got the names %v: tags[0] %q, want "a.invalid/pause:1"`, tags, tags[0])
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
	switch ids := config.RootFS.DiffIDs; {
	case len(ids) != 1:
		t.Errorf("got the layers %v, want that with %s: %d ids, want 1", ids, sum(layer), len(ids))
	case ids[0] != "sha256:"+sum(layer):
		t.Errorf("got the layers %v, want that with %s: ids[0] %v, want %v",
			ids, sum(layer), ids[0], "sha256:"+sum(layer))
	}
	file := filepath.Join(folder, "layer.tar")
	if err := os.WriteFile(file, layer, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readArchive(t, file)[config.Config.Entrypoint[0][1:]]; string(got) != "program" {
		t.Errorf("the entry point is %q", got)
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
