package send

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestFind_FollowsFolderLink checks that the files of a linked folder are found.
func TestFind_FollowsFolderLink(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "photos")
	if err := os.Symlink(folder(t, "a.jpg", "b.jpg"), link); err != nil {
		t.Fatal(err)
	}
	images, err := find(t.Context(), []string{link}, nil)
	switch {
	case err != nil:
		t.Error(err)
	case len(images.files) != 2:
		t.Errorf("found the files %v, want 2", images.files)
	}
}

// TestDraw_NamesAreUnique checks that drawn images have different names.
func TestDraw_NamesAreUnique(t *testing.T) {
	t.Parallel()
	one, two := folder(t, "1.jpg", "2.jpg"), folder(t, "1.jpg", "3.jpg")
	images, err := find(t.Context(), []string{one, two}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"1.jpg", "2.jpg", filepath.Join(two, "1.jpg")[1:], "3.jpg"}
	for i, f := range images.files {
		if f.name != want[i] {
			t.Errorf("%s is drawn as %s, want %s", f.path, f.name, want[i])
		}
	}
}

// TestFind_StopsWithContext checks that find stops. The list of a large folder may take
// minutes.
func TestFind_StopsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := find(ctx, []string{folder(t, "a.jpg")}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v", err, context.Canceled)
	}
}
