package models

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// content is a file of some size that is like no other.
func content(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*i>>3 + i)
	}
	return b
}

// entryOf is an entry of one fetched file, net.onnx, and a model.yaml.
func entryOf(data []byte, sources ...Source) Entry {
	sum := sha256.Sum256(data)
	return Entry{
		Name: "dots", About: "dots", Texts: map[string][]byte{"model.yaml": []byte("kind: dots\n")},
		Files: []File{{
			Name: "net.onnx", Bytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Licence: "MIT", Sources: sources,
		}},
	}
}

// server serves with a handler, and notes the ranges that it was asked for.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	ranges []string
}

func serve(t *testing.T, h http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		s.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ranges)
}

func (s *server) source() Source { return Source{URL: s.URL + "/net.onnx"} }

// whole serves data, and ranges of it.
func whole(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "net.onnx", time.Time{}, bytes.NewReader(data))
	}
}

// body serves data whatever is asked for.
func body(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(data) }
}

// cut promises data and ends the connection after some bytes.
func cut(data []byte, after int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:after])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// pullInto pulls an entry into a folder of models, and returns what was printed.
func pullInto(t *testing.T, models string, e Entry, change ...func(*Config)) (string, error) {
	t.Helper()
	cfg := Config{Models: models}
	for _, c := range change {
		c(&cfg)
	}
	var out bytes.Buffer
	err := pullAll(t.Context(), cfg, []Entry{e}, &out, io.Discard)
	return out.String(), err
}

// checkFiles expects a folder with these files and no others.
func checkFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		got, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if expected, ok := want[f.Name()]; !ok {
			t.Errorf("%s has %s, want no such file", dir, f.Name())
		} else if expected != string(got) {
			t.Errorf("%s of %s has %d bytes that are not the %d expected", f.Name(), dir, len(got), len(expected))
		}
	}
	if len(found) < len(want) {
		t.Errorf("%s has %d files, want %d", dir, len(found), len(want))
	}
}

// checkDots expects the whole model of [entryOf] in a folder of models.
func checkDots(t *testing.T, models string, data []byte) {
	t.Helper()
	checkFiles(t, filepath.Join(models, "dots"), map[string]string{
		"net.onnx": string(data), "model.yaml": "kind: dots\n",
	})
}

// checkNothing expects that nothing is in a folder of models.
func checkNothing(t *testing.T, models string) {
	t.Helper()
	found, err := os.ReadDir(models)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Errorf("%s is left in the folder of models", f.Name())
	}
}

func checkError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error has no %q: %v", w, err)
		}
	}
}

func TestPull_MakesTheFolder(t *testing.T) {
	t.Parallel()
	data, models := content(1<<20), t.TempDir()
	s := serve(t, whole(data))
	e := entryOf(data, s.source())
	out, err := pullInto(t, models, e)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("dots is in %s now\n1 of 1 models are in %s: dots\n", filepath.Join(models, "dots"), models)
	if out != want {
		t.Errorf("printed %q, want %q", out, want)
	}
	checkDots(t, models, data)
	if _, err := os.Stat(filepath.Join(models, partialFolder)); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", partialFolder, err)
	}
	if _, err := pullInto(t, models, e); err != nil {
		t.Fatal(err)
	}
	if asked := s.asked(); len(asked) != 1 {
		t.Errorf("%d requests, want none for a model that is there", len(asked)-1)
	}
}

func TestPull_ResumesADownloadThatIsCut(t *testing.T) {
	t.Parallel()
	data, models := content(100_000), t.TempDir()
	first := true
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			cut(data, 40_000)(w, r)
		}
		whole(data)(w, r)
	})
	if _, err := pullInto(t, models, entryOf(data, s.source())); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
	if asked, want := s.asked(), []string{"", "bytes=40000-"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

// TestPull_ResumesInTheNextRun also shows the error of a download that is cut again and again.
func TestPull_ResumesInTheNextRun(t *testing.T) {
	t.Parallel()
	data, models := content(100_000), t.TempDir()
	bad := serve(t, cut(data, 40_000))
	_, err := pullInto(t, models, entryOf(data, bad.source()))
	checkError(t, err, "dots: no source has net.onnx", bad.URL+"/net.onnx: the download was cut", "after 40000 of 100000 bytes")
	if _, err := os.Stat(filepath.Join(models, "dots")); !os.IsNotExist(err) {
		t.Errorf("the folder of the model: %v, want none", err)
	}
	ok := serve(t, whole(data))
	if _, err := pullInto(t, models, entryOf(data, ok.source())); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
	if asked, want := ok.asked(), []string{"bytes=40000-"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

// leavePart leaves the beginning of a download, as a run that was killed does.
func leavePart(t *testing.T, models string, data []byte) {
	t.Helper()
	dir := filepath.Join(models, partialFolder, "dots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "net.onnx.part"), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPull_StartsOver(t *testing.T) {
	t.Parallel()
	data := content(100_000)
	for _, tt := range []struct {
		name  string
		part  []byte
		serve http.HandlerFunc
		want  []string // ranges
	}{
		{"the server knows no ranges", data[:500], body(data), []string{"bytes=500-"}},
		{"the beginning is of another file", make([]byte, 500), whole(data), []string{"bytes=500-", ""}},
		{"the part is longer than the file", make([]byte, 200_000), whole(data), []string{""}},
		{"the range cannot be had", data[:500], func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			w.Write(data)
		}, []string{"bytes=500-", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			models := t.TempDir()
			leavePart(t, models, tt.part)
			s := serve(t, tt.serve)
			if _, err := pullInto(t, models, entryOf(data, s.source())); err != nil {
				t.Fatal(err)
			}
			checkDots(t, models, data)
			if asked := s.asked(); !slices.Equal(asked, tt.want) {
				t.Errorf("asked for %q, want %q", asked, tt.want)
			}
		})
	}
}

const lfsPointer = "version https://git-lfs.github.com/spec/v1"

// badSources are what a source may have in place of a file, and what is said of it.
func badSources(data []byte) map[string]http.HandlerFunc {
	other := bytes.Clone(data)
	other[len(other)/2]++
	return map[string]http.HandlerFunc{
		"a Git LFS pointer in place of the file":  body([]byte(lfsPointer + "\noid sha256:ab\nsize 9\n")),
		"an HTML page in place of the file":       body([]byte("\n<!DOCTYPE html><html><body>Sign in</body></html>")),
		"it has more than the 100000 bytes":       body(append(bytes.Clone(data), make([]byte, 1<<20)...)),
		"it has 7 bytes, and the file has 100000": body(data[:7]),
		"its SHA-256 is ":                         body(other),
		"the server answers 404 Not Found":        http.NotFound,
		"the server answers 206 Partial Content":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(206) },
	}
}

func TestPull_RejectsContent(t *testing.T) {
	t.Parallel()
	data := content(100_000)
	for want, h := range badSources(data) {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			models, s := t.TempDir(), serve(t, h)
			out, err := pullInto(t, models, entryOf(data, s.source()))
			checkError(t, err, "dots: no source has net.onnx", s.URL+"/net.onnx: ", want)
			checkNothing(t, models)
			if want := "0 of 1 models are in " + models + ": none\n"; out != want {
				t.Errorf("printed %q, want %q", out, want)
			}
		})
	}
}

// TestPull_TriesTheNextSource puts every bad source, and one that cannot be reached, before a good one.
func TestPull_TriesTheNextSource(t *testing.T) {
	t.Parallel()
	data, models := content(100_000), t.TempDir()
	sources := []Source{{URL: "http://127.0.0.1:1/net.onnx"}}
	for _, h := range badSources(data) {
		sources = append(sources, serve(t, h).source())
	}
	e := entryOf(data, append(sources, serve(t, whole(data)).source())...)
	if _, err := pullInto(t, models, e); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
}

func TestPull_CutsADownloadThatStalls(t *testing.T) {
	t.Parallel()
	data, models := content(100_000), t.TempDir()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			whole(data)(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:100])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	p, done, err := newPuller(models, "", newProgress(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	p.stall = 50 * time.Millisecond
	_, err = p.pull(t.Context(), entryOf(data, s.source()))
	if err = errors.Join(err, done()); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
	if asked, want := s.asked(), []string{"", "bytes=100-"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

func TestPull_StopsAtItsTimeout(t *testing.T) {
	t.Parallel()
	data := content(100_000)
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	e := entryOf(data, s.source(), s.source())
	_, err := pullInto(t, t.TempDir(), e, func(c *Config) { c.Timeout = 50 * time.Millisecond })
	checkError(t, err, "net.onnx", "not finished after 50ms (--timeout)")
	if exit.Status(err) != exit.Failure {
		t.Errorf("status %d, want %d", exit.Status(err), exit.Failure)
	}
	if asked := s.asked(); len(asked) != 1 {
		t.Errorf("%d requests, want none after the timeout", len(asked))
	}
}

func TestPull_IsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	err := pullAll(ctx, Config{Models: t.TempDir()}, []Entry{entryOf(content(9), s.source())}, io.Discard, io.Discard)
	checkError(t, err, "interrupted")
	if exit.Status(err) != exit.Interrupted {
		t.Errorf("status %d, want %d", exit.Status(err), exit.Interrupted)
	}
}

// smallDisk mounts a file system of its own. The test is skipped where that is not allowed.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not run: a full disk needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("not run: cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount the small file system: %v", err)
		}
	})
	return dir
}

func TestPull_FullDisk(t *testing.T) {
	t.Parallel()
	models := smallDisk(t, "1m")
	data := content(4 << 20)
	s := serve(t, whole(data))
	old := map[string]string{"model.yaml": "kind: old\n"}
	writeFolder(t, filepath.Join(models, "old"), old)
	_, err := pullInto(t, models, entryOf(data, s.source()))
	checkError(t, err, "dots: no source has net.onnx", s.URL, "net.onnx.part", syscall.ENOSPC.Error())
	checkFiles(t, filepath.Join(models, "old"), old)
	if err := os.RemoveAll(filepath.Join(models, "old")); err != nil {
		t.Fatal(err)
	}
	checkNothing(t, models)
}

func writeFolder(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPull_ReplacesNothing: a folder with another file, or with texts that were edited, stays as it is.
func TestPull_ReplacesNothing(t *testing.T) {
	t.Parallel()
	data := content(1000)
	other := string(content(999)) + "!"
	for _, tt := range []struct {
		name  string
		files map[string]string
		state string
		err   string
	}{
		{
			"other weights", map[string]string{"net.onnx": other, "model.yaml": "kind: dots\n"},
			"wrong hash: net.onnx", "nothing is replaced",
		},
		{"other weights alone", map[string]string{"net.onnx": other}, "wrong hash: net.onnx", "nothing is replaced"},
		{
			"edited", map[string]string{"net.onnx": string(data), "model.yaml": "kind: mine\n"},
			"there, with another model.yaml", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			models := t.TempDir()
			dir := filepath.Join(models, "dots")
			writeFolder(t, dir, tt.files)
			s := serve(t, whole(data))
			e := entryOf(data, s.source())
			is, err := e.statusOf(dir, e.Files)
			if err != nil {
				t.Fatal(err)
			}
			if is.String() != tt.state {
				t.Errorf("the state is %q, want %q", is, tt.state)
			}
			out, err := pullInto(t, models, e)
			note := "dots is there, with another model.yaml than that of the catalogue; remove " + dir
			if strings.Contains(out, note) != (tt.err == "") {
				t.Errorf("printed %q; %q is for edited texts", out, note)
			}
			if tt.err != "" {
				checkError(t, err, "dots", "net.onnx in "+dir, tt.err)
			} else if err != nil {
				t.Errorf("error %v, want none", err)
			}
			checkFiles(t, dir, tt.files)
			if asked := s.asked(); len(asked) != 0 {
				t.Errorf("%d requests, want none", len(asked))
			}
		})
	}
}

func TestPull_CompletesAFolder(t *testing.T) {
	t.Parallel()
	data, models := content(1000), t.TempDir()
	dir := filepath.Join(models, "dots")
	writeFolder(t, dir, map[string]string{"model.yaml": "kind: mine\n", "notes.txt": "mine"})
	e := entryOf(data, serve(t, whole(data)).source())
	is, err := e.statusOf(dir, e.Files)
	if err != nil {
		t.Fatal(err)
	}
	if want := "incomplete: net.onnx"; is.String() != want {
		t.Errorf("the state is %q, want %q", is, want)
	}
	if _, err := pullInto(t, models, e); err != nil {
		t.Fatal(err)
	}
	checkFiles(t, dir, map[string]string{"net.onnx": string(data), "model.yaml": "kind: mine\n", "notes.txt": "mine"})
}

// TestPull_GoesOnAfterAFailure: one model that cannot be had keeps no other from being fetched.
func TestPull_GoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	data, models := content(1000), t.TempDir()
	bad := entryOf(data, serve(t, http.NotFound).source())
	bad.Name = "bad"
	var out bytes.Buffer
	good := entryOf(data, serve(t, whole(data)).source())
	err := pullAll(t.Context(), Config{Models: models}, []Entry{bad, good}, &out, io.Discard)
	checkError(t, err, "bad: no source has net.onnx")
	if want := "1 of 2 models are in " + models + ": dots\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("printed %q, want %q at the end", &out, want)
	}
}

func TestPull_OneAtATime(t *testing.T) {
	t.Parallel()
	models := t.TempDir()
	_, done, err := newPuller(models, "", newProgress(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	_, err = pullInto(t, models, entryOf(content(9), Source{URL: "http://127.0.0.1:1/"}))
	checkError(t, err, filepath.Join(models, partialFolder), "is in use by another sightmesh models pull")
	if err := done(); err != nil {
		t.Fatal(err)
	}
	checkNothing(t, models)
}

func TestPull_HasFilesForThePlatform(t *testing.T) {
	t.Parallel()
	data, models := content(1000), t.TempDir()
	e := entryOf(data, serve(t, whole(data)).source())
	e.Files[0].Platform = "plan9/mips"
	_, err := pullInto(t, models, e)
	checkError(t, err, "dots: no file for ")
	checkNothing(t, models)
}

// TestPull_FromAFolder takes a file by its content, before any other source is tried.
func TestPull_FromAFolder(t *testing.T) {
	t.Parallel()
	data, models, from := content(1000), t.TempDir(), t.TempDir()
	files := map[string]string{"renamed.bin": string(data), "net.onnx": lfsPointer}
	writeFolder(t, filepath.Join(from, "a", "b"), files)
	e := entryOf(data, Source{URL: "http://127.0.0.1:1/net.onnx"})
	if _, err := pullInto(t, models, e, func(c *Config) { c.From = from }); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
}

// TestPull_FromAFolderFollowsLinks to files; a link that leads nowhere is as if it were not there.
func TestPull_FromAFolderFollowsLinks(t *testing.T) {
	t.Parallel()
	data, models, from, elsewhere := content(1000), t.TempDir(), t.TempDir(), t.TempDir()
	writeFolder(t, elsewhere, map[string]string{"weights": string(data)})
	for name, target := range map[string]string{"a.onnx": "nowhere", "b.onnx": filepath.Join(elsewhere, "weights")} {
		if err := os.Symlink(target, filepath.Join(from, name)); err != nil {
			t.Fatal(err)
		}
	}
	e := entryOf(data, Source{URL: "http://127.0.0.1:1/net.onnx"})
	if _, err := pullInto(t, models, e, func(c *Config) { c.From = from }); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
}

func TestPull_FromAFolderSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	data := content(1000)
	pointer, empty := t.TempDir(), t.TempDir()
	writeFolder(t, filepath.Join(pointer, "a"), map[string]string{"net.onnx": lfsPointer})
	for from, want := range map[string]string{
		pointer:            filepath.Join(pointer, "a", "net.onnx") + ": a Git LFS pointer in place of the file",
		empty:              "no such file in the folder",
		empty + "/missing": "no such file or directory",
	} {
		models := t.TempDir()
		_, err := pullInto(t, models, entryOf(data, Source{URL: "http://127.0.0.1:1/x"}), func(c *Config) { c.From = from })
		checkError(t, err, "net.onnx", "--from "+from+": ", want, "http://127.0.0.1:1/x: ", "connection refused")
		checkNothing(t, models)
	}
}

func TestPull_FromAPackageOfDebian(t *testing.T) {
	t.Parallel()
	data, models, system := content(1000), t.TempDir(), t.TempDir()
	writeFolder(t, system, map[string]string{"net.onnx": string(data), "other.onnx": "other"})
	e := entryOf(data, Source{Deb: "dots-data", Path: filepath.Join(system, "net.onnx")})
	if _, err := pullInto(t, models, e); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
	for name, want := range map[string]string{
		"none.onnx":  "none.onnx does not exist: the package is not installed",
		"other.onnx": "it has 5 bytes, and the file has 1000",
	} {
		models := t.TempDir()
		_, err := pullInto(t, models, entryOf(data, Source{Deb: "dots-data", Path: filepath.Join(system, name)}))
		checkError(t, err, "net.onnx", "Debian dots-data: ", want)
		checkNothing(t, models)
	}
}
