package kube

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// WriteImage writes an archive of an image with one layer. The layer has a static
// program, which is the entry point.
func WriteImage(archive, name, program string) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("make the image %s: %w", name, err)
	}
	base := filepath.Base(program)
	layer, err := newArchive(0o755, file{base, data})
	if err != nil {
		return fmt.Errorf("make the image %s: %w", name, err)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/" + base}, "User": "65532"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}},
	})
	if err != nil {
		return fmt.Errorf("make the image %s: %w", name, err)
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return fmt.Errorf("make the image %s: %w", name, err)
	}
	all, err := newArchive(0o644, file{"manifest.json", manifest}, file{"config.json", config}, file{"layer.tar", layer})
	if err != nil {
		return fmt.Errorf("make the image %s: %w", name, err)
	}
	if err := os.WriteFile(archive, all, 0o600); err != nil {
		return fmt.Errorf("make the image %s: %w", name, err)
	}
	return nil
}

type file struct {
	name string
	data []byte
}

func newArchive(mode int64, files ...file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: mode, Size: int64(len(f.data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}
