package send

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFolderBehindALink: what it names is sent.
func TestFolderBehindALink(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "photos")
	if err := os.Symlink(folder(t, "a.jpg", "b.jpg"), link); err != nil {
		t.Fatal(err)
	}
	files, err := find([]string{link}, nil)
	if err != nil || len(files) != 2 {
		t.Errorf("found %v, %v", files, err)
	}
}

// TestNamesOfDrawnPictures: no two pictures have the same.
func TestNamesOfDrawnPictures(t *testing.T) {
	t.Parallel()
	one, two := folder(t, "1.jpg", "2.jpg"), folder(t, "1.jpg", "3.jpg")
	files, err := find([]string{one, two}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"1.jpg", "2.jpg", filepath.Join(two, "1.jpg")[1:], "3.jpg"}
	for i, f := range files {
		if f.name != want[i] {
			t.Errorf("%s is drawn as %s, want %s", f.path, f.name, want[i])
		}
	}
}
