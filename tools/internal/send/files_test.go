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
