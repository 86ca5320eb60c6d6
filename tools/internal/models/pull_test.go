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

// content returns the content of a file with a size.
func content(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*i>>3 + i)
	}
	return b
}

// entryOf returns an entry with one fetched file, net.onnx, and a model.yaml.
func entryOf(data []byte, sources ...Source) Entry {
	sum := sha256.Sum256(data)
	return Entry{
		Name: "dots", About: "dots", Texts: map[string][]byte{"model.yaml": []byte("kind: dots\n")},
		Files: []File{{
			Name: "net.onnx", Bytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Licence: "MIT", Sources: sources,
		}},
	}
}

// server is a web server that records the header Range of its requests.
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

func (s *server) requestedRanges() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ranges)
}

func (s *server) source() Source { return Source{URL: s.URL + "/net.onnx"} }

// serveFile serves data, and ranges of it.
func serveFile(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "net.onnx", time.Time{}, bytes.NewReader(data))
	}
}

// body serves data and ignores ranges.
func body(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(data) }
}

// cut announces the length of data and closes the connection after some bytes.
func cut(data []byte, after int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:after])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// pullInto pulls an entry into a folder of models, and returns the output.
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

// checkFiles checks that a folder has these files and no others.
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
			t.Errorf("%s has the unexpected file %s", dir, f.Name())
		} else if expected != string(got) {
			t.Errorf("the %d bytes of %s in %s differ from the %d expected", len(got), f.Name(), dir, len(expected))
		}
	}
	if len(found) < len(want) {
		t.Errorf("%s has %d files, want %d", dir, len(found), len(want))
	}
}

// checkDots checks that a folder of models has the complete model of [entryOf].
func checkDots(t *testing.T, models string, data []byte) {
	t.Helper()
	checkFiles(t, filepath.Join(models, "dots"), map[string]string{
		"net.onnx": string(data), "model.yaml": "kind: dots\n",
	})
}

// checkNothing checks that a folder of models is empty.
func checkNothing(t *testing.T, models string) {
	t.Helper()
	found, err := os.ReadDir(models)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Errorf("the folder of models has %s, want nothing", f.Name())
	}
}

// checkError checks that the error has all the words.
func checkError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q in it", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error has no %q: %v", w, err)
		}
	}
}

func TestPull_CreatesTheFolder(t *testing.T) {
	t.Parallel()
	data, models := content(1<<20), t.TempDir()
	s := serve(t, serveFile(data))
	e := entryOf(data, s.source())
	out, err := pullInto(t, models, e)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("installed dots in %s\n1 of 1 models are installed in %s: dots\n",
		filepath.Join(models, "dots"), models)
	if out != want {
		t.Errorf("printed %q, want %q", out, want)
	}
	checkDots(t, models, data)
	if _, err := os.Stat(filepath.Join(models, partialFolder)); !os.IsNotExist(err) {
		t.Errorf("stat of %s: %v, want that it does not exist", partialFolder, err)
	}
	if _, err := pullInto(t, models, e); err != nil {
		t.Fatal(err)
	}
	if ranges := s.requestedRanges(); len(ranges) != 1 {
		t.Errorf("%d more requests for a complete model, want 0", len(ranges)-1)
	}
}

func TestPull_ResumesInterruptedDownload(t *testing.T) {
	t.Parallel()
	data, models := content(100_000), t.TempDir()
	first := true
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			cut(data, 40_000)(w, r)
		}
		serveFile(data)(w, r)
	})
	if _, err := pullInto(t, models, entryOf(data, s.source())); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
	if ranges, want := s.requestedRanges(), []string{"", "bytes=40000-"}; !slices.Equal(ranges, want) {
		t.Errorf("the requested ranges are %q, want %q", ranges, want)
	}
}

// TestPull_ResumesInTheNextRun also checks the error of a download that is interrupted repeatedly.
func TestPull_ResumesInTheNextRun(t *testing.T) {
	t.Parallel()
	data, models := content(100_000), t.TempDir()
	bad := serve(t, cut(data, 40_000))
	_, err := pullInto(t, models, entryOf(data, bad.source()))
	checkError(t, err, "dots: no source has net.onnx", bad.URL+"/net.onnx: the download was interrupted",
		"after 40000 of 100000 bytes")
	if _, err := os.Stat(filepath.Join(models, "dots")); !os.IsNotExist(err) {
		t.Errorf("stat of the folder of the model: %v, want that it does not exist", err)
	}
	ok := serve(t, serveFile(data))
	if _, err := pullInto(t, models, entryOf(data, ok.source())); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
	if ranges, want := ok.requestedRanges(), []string{"bytes=40000-"}; !slices.Equal(ranges, want) {
		t.Errorf("the requested ranges are %q, want %q", ranges, want)
	}
}

// leavePart writes the beginning of a download, as a run that was killed leaves it.
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
		want  []string // the ranges that are requested
	}{
		{"the server ignores ranges", data[:500], body(data), []string{"bytes=500-"}},
		{"the beginning is of another file", make([]byte, 500), serveFile(data), []string{"bytes=500-", ""}},
		{"the part is longer than the file", make([]byte, 200_000), serveFile(data), []string{""}},
		{"the range is rejected", data[:500], func(w http.ResponseWriter, r *http.Request) {
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
			if ranges := s.requestedRanges(); !slices.Equal(ranges, tt.want) {
				t.Errorf("the requested ranges are %q, want %q", ranges, tt.want)
			}
		})
	}
}

const lfsPointer = "version https://git-lfs.github.com/spec/v1"

// badSources returns the handlers of sources without the right file, by a part of their error.
func badSources(data []byte) map[string]http.HandlerFunc {
	other := bytes.Clone(data)
	other[len(other)/2]++
	return map[string]http.HandlerFunc{
		"a Git LFS pointer in place of the file":       body([]byte(lfsPointer + "\noid sha256:ab\nsize 9\n")),
		"an HTML page in place of the file":            body([]byte("\n<!DOCTYPE html><html><body>Sign in</body></html>")),
		"it has more than 100000 bytes":                body(append(bytes.Clone(data), make([]byte, 1<<20)...)),
		"it has 7 bytes, want 100000":                  body(data[:7]),
		"its SHA-256 is ":                              body(other),
		"the server responds with 404 Not Found":       http.NotFound,
		"the server responds with 206 Partial Content": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(206) },
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
			if want := "0 of 1 models are installed in " + models + ": none\n"; out != want {
				t.Errorf("printed %q, want %q", out, want)
			}
		})
	}
}

// TestPull_TriesTheNextSource has an unreachable source and every bad source before a good one.
func TestPull_TriesTheNextSource(t *testing.T) {
	t.Parallel()
	data, models := content(100_000), t.TempDir()
	sources := []Source{{URL: "http://127.0.0.1:1/net.onnx"}}
	for _, h := range badSources(data) {
		sources = append(sources, serve(t, h).source())
	}
	e := entryOf(data, append(sources, serve(t, serveFile(data)).source())...)
	if _, err := pullInto(t, models, e); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
}

func TestPull_ResumesStalledDownload(t *testing.T) {
	t.Parallel()
	data, models := content(100_000), t.TempDir()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			serveFile(data)(w, r)
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
	p.stallTimeout = 2 * time.Second // the second request must not take longer
	_, err = p.pull(t.Context(), entryOf(data, s.source()))
	if err = errors.Join(err, done()); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
	if ranges, want := s.requestedRanges(), []string{"", "bytes=100-"}; !slices.Equal(ranges, want) {
		t.Errorf("the requested ranges are %q, want %q", ranges, want)
	}
}

// TestPull_StopsAtItsTimeout gives the pull more time when the machine is so busy that the first request does not
// begin within it.
func TestPull_StopsAtItsTimeout(t *testing.T) {
	t.Parallel()
	data := content(100_000)
	for timeout := 50 * time.Millisecond; ; timeout *= 4 {
		s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		e := entryOf(data, s.source(), s.source())
		_, err := pullInto(t, t.TempDir(), e, func(c *Config) { c.Timeout = timeout })
		checkError(t, err, "net.onnx", fmt.Sprintf("not finished after %v (--timeout)", timeout))
		if exit.Status(err) != exit.Failure {
			t.Errorf("status %d, want %d", exit.Status(err), exit.Failure)
		}
		ranges := s.requestedRanges()
		if len(ranges) == 0 && timeout < time.Minute {
			continue
		}
		if len(ranges) != 1 {
			t.Errorf("%d requests, want 1: none after the timeout", len(ranges))
		}
		return
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

// smallDisk mounts a small file system and returns its folder. It skips the test without the permission to mount.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
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
	s := serve(t, serveFile(data))
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

// TestPull_ReplacesNothing checks that a folder with other weights or edited texts does not change.
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
			"wrong hash: net.onnx", "existing files are not replaced",
		},
		{
			"other weights alone", map[string]string{"net.onnx": other},
			"wrong hash: net.onnx", "existing files are not replaced",
		},
		{
			"edited", map[string]string{"net.onnx": string(data), "model.yaml": "kind: mine\n"},
			"installed, with a different model.yaml", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			models := t.TempDir()
			dir := filepath.Join(models, "dots")
			writeFolder(t, dir, tt.files)
			s := serve(t, serveFile(data))
			e := entryOf(data, s.source())
			status, err := e.readStatus(dir, e.Files)
			if err != nil {
				t.Fatal(err)
			}
			if status.String() != tt.state {
				t.Errorf("the state is %q, want %q", status, tt.state)
			}
			out, err := pullInto(t, models, e)
			note := "dots is installed, with a different model.yaml than the catalogue; remove " + dir
			if strings.Contains(out, note) != (tt.err == "") {
				t.Errorf("printed %q, want %q in it: %v", out, note, tt.err == "")
			}
			if tt.err != "" {
				checkError(t, err, "dots", "net.onnx in "+dir, tt.err)
			} else if err != nil {
				t.Error(err)
			}
			checkFiles(t, dir, tt.files)
			if ranges := s.requestedRanges(); len(ranges) != 0 {
				t.Errorf("%d requests, want none", len(ranges))
			}
		})
	}
}

func TestPull_CompletesAFolder(t *testing.T) {
	t.Parallel()
	data, models := content(1000), t.TempDir()
	dir := filepath.Join(models, "dots")
	writeFolder(t, dir, map[string]string{"model.yaml": "kind: mine\n", "notes.txt": "mine"})
	e := entryOf(data, serve(t, serveFile(data)).source())
	status, err := e.readStatus(dir, e.Files)
	if err != nil {
		t.Fatal(err)
	}
	if want := "incomplete: net.onnx"; status.String() != want {
		t.Errorf("the state is %q, want %q", status, want)
	}
	if _, err := pullInto(t, models, e); err != nil {
		t.Fatal(err)
	}
	checkFiles(t, dir, map[string]string{"net.onnx": string(data), "model.yaml": "kind: mine\n", "notes.txt": "mine"})
}

// TestPull_ContinuesAfterFailure checks that the other models are fetched when one model cannot be fetched.
func TestPull_ContinuesAfterFailure(t *testing.T) {
	t.Parallel()
	data, models := content(1000), t.TempDir()
	bad := entryOf(data, serve(t, http.NotFound).source())
	bad.Name = "bad"
	var out bytes.Buffer
	good := entryOf(data, serve(t, serveFile(data)).source())
	err := pullAll(t.Context(), Config{Models: models}, []Entry{bad, good}, &out, io.Discard)
	checkError(t, err, "bad: no source has net.onnx")
	if want := "1 of 2 models are installed in " + models + ": dots\n"; !strings.HasSuffix(out.String(), want) {
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
	e := entryOf(data, serve(t, serveFile(data)).source())
	e.Files[0].Platform = "plan9/mips"
	_, err := pullInto(t, models, e)
	checkError(t, err, "dots: no file for ")
	checkNothing(t, models)
}

// TestPull_FromAFolder checks that a file of the folder is found by its content, before any other source is tried.
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

// TestPull_FromAFolderFollowsLinks checks that links to files are followed and broken links are ignored.
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

func TestPull_FromAFolderReportsErrors(t *testing.T) {
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
		"other.onnx": "it has 5 bytes, want 1000",
	} {
		models := t.TempDir()
		_, err := pullInto(t, models, entryOf(data, Source{Deb: "dots-data", Path: filepath.Join(system, name)}))
		checkError(t, err, "net.onnx", "Debian dots-data: ", want)
		checkNothing(t, models)
	}
}
