package send

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// drawnFile returns the drawn file of an image in the folder dir.
func drawnFile(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name+".jpg"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDraw_OverHTTP checks that an image is sent again, with the key of its job, to be
// drawn. The mesh of these tests checks the key.
func TestDraw_OverHTTP(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(w http.ResponseWriter, r *http.Request, image string, n int) {
		switch {
		case r.Header.Get("Accept") != "image/jpeg":
			done(w, image)
		case image == "busy.jpg" && n < 4:
			problem(w, v1.Overloaded, "0")
		default:
			w.Header().Set("Content-Type", "image/jpeg")
			w.Write([]byte("drawn " + image))
		}
	})
	drawn := t.TempDir()
	out, _, code := command(t, t.Context(),
		Config{URL: m.URL, Paths: []string{folder(t, "a.jpg", "busy.jpg")}, Draw: drawn})
	if code != 0 {
		t.Errorf("code %d, want 0", code)
	}
	for name, posts := range map[string]int{"a.jpg": 2, "busy.jpg": 4} {
		o := out[name]
		switch {
		case o.Status != v1.Done:
			t.Errorf("%s: outcome %+v: status %s, want done", name, o, o.Status)
		case o.Error != "":
			t.Errorf("%s: error %q, want none", name, o.Error)
		case o.Attempts != 1:
			t.Errorf("%s: %d attempts, want 1", name, o.Attempts)
		case o.Result == nil:
			t.Errorf("%s: outcome %+v: no result", name, o)
		}
		if got := m.posts[name]; got != posts {
			t.Errorf("%s was sent %d times, want %d", name, got, posts)
		}
		if got, want := drawnFile(t, drawn, name), "drawn "+name; got != want {
			t.Errorf("%s is drawn as %q, want %q", name, got, want)
		}
	}
}

func TestDraw_FailureKeepsOutcome(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(w http.ResponseWriter, r *http.Request, image string, _ int) {
		code, _, _ := strings.Cut(image, ".")
		switch {
		case r.Header.Get("Accept") != "image/jpeg":
			done(w, image)
		case code == "json":
			done(w, image)
		default:
			problem(w, v1.Code(code), "")
		}
	})
	drawn := t.TempDir()
	names := []string{"damaged.jpg", "no-worker.jpg", "json.jpg"}
	out, _, code := command(t, t.Context(), Config{URL: m.URL, Paths: []string{folder(t, names...)}, Draw: drawn})
	if code != 0 {
		t.Errorf("code %d, want 0 because every job is done", code)
	}
	for _, name := range names {
		o := out[name]
		switch {
		case o.Status != v1.Done:
			t.Errorf("%s: outcome %+v: status %s, want done", name, o, o.Status)
		case o.Result == nil:
			t.Errorf("%s: outcome %+v: no result", name, o)
		case o.Problem != nil:
			t.Errorf("%s: problem %v, want none", name, o.Problem)
		}
		if !strings.HasPrefix(o.Error, "draw: ") {
			t.Errorf("%s: the error is %q, want it to begin with draw:", name, o.Error)
		}
		if got := m.posts[name]; got != 2 {
			t.Errorf("%s was sent %d times, want 2", name, got)
		}
	}
	switch left, err := os.ReadDir(drawn); {
	case err != nil:
		t.Error(err)
	case len(left) != 0:
		t.Errorf("the folder of drawn images has %d files, want 0", len(left))
	}
}
