package vision

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestDecode_Rejects(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]v1.Code{
		"": v1.EmptyBody, "\xff\xd8\xff": v1.Damaged, "no image at all": v1.UnsupportedType,
	} {
		_, err := Decode([]byte(name))
		var p *v1.Problem
		if !errors.As(err, &p) {
			t.Errorf("%q: %v, want a problem", name, err)
		} else if p.Code != want {
			t.Errorf("%q: %v, want %s", name, p, want)
		}
	}
}

func TestLoadCascade(t *testing.T) {
	t.Parallel()
	c, m, err := LoadCascade("", "haarcascade_eye")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if m.Name != "haarcascade_eye" {
		t.Errorf("the model is %q, want haarcascade_eye", m.Name)
	}
	if m.Version == "" {
		t.Error("the model has no version")
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"broken":     `<?xml version="1.0"?><opencv_storage><cascade>`,
		"mismatched": `<?xml version="1.0"?><opencv_storage><stageType>BOOST</stage></opencv_storage>`,
		"foreign":    `<?xml version="1.0"?><opencv_storage><answer>42</answer></opencv_storage>`,
		"empty":      "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name+".xml"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"broken", "mismatched", "foreign", "empty", "absent"} {
		if _, _, err := LoadCascade(dir, name); err == nil {
			t.Errorf("%s was loaded", name)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	jpg := goJPEG(b, false)
	b.SetBytes(int64(len(jpg)))
	for b.Loop() {
		img, err := Decode(jpg)
		if err != nil {
			b.Fatal(err)
		}
		img.Mat.Close()
	}
}
