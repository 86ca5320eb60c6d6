package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// serveImages runs a web server. It sends to the channel for each request, before
// handler writes the response.
func serveImages(t *testing.T, handler http.HandlerFunc) (url string, asked <-chan struct{}) {
	t.Helper()
	requests := make(chan struct{}, 64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		requests <- struct{}{}
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, requests
}

func writeResult(w http.ResponseWriter, _ *http.Request) {
	json.NewEncoder(w).Encode(v1.Result{ID: "j", Status: v1.Done, Regions: []v1.Region{}})
}

// runSend runs `sightmesh send` to its end.
func runSend(t *testing.T, stdin string, args ...string) (stdout []byte, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(binary(t, "sightmesh"), append([]string{"send"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	p, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.kill(t)
		t.Fatalf("the sender did not end within a minute: %s", &errs)
	}
	return out.Bytes(), errs.String(), exitCode(p.err)
}

// makeSpecialFiles creates a FIFO, a link to it and a socket in a folder, all with the
// extensions of images.
func makeSpecialFiles(t *testing.T, dir string) {
	t.Helper()
	if err := os.Symlink(makeFIFO(t, dir, "pipe.jpg"), filepath.Join(dir, "link.jpg")); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "socket.png"))
	if err != nil {
		t.Skipf("cannot create a socket; the path of the folder may be too long: %v", err)
	}
	t.Cleanup(func() { l.Close() })
}

// TestSend_SkipsSpecialFiles tests the row "sightmesh send" of shared/cases. A FIFO
// in the folder does not block the sender.
func TestSend_SkipsSpecialFiles(t *testing.T) {
	t.Parallel()
	url, _ := serveImages(t, writeResult)
	dir := frameFolder(t, 2)
	makeSpecialFiles(t, dir)
	for name, path := range map[string]string{"folder": dir, "glob": filepath.Join(dir, "*.[jp][pn]g")} {
		stdout, stderr, code := runSend(t, "", path, "--url", url)
		if code != 0 {
			t.Errorf("%s: exit code %d, want 0", name, code)
		}
		if n := len(decodeOutcomes(t, stdout)); n != 2 {
			t.Errorf("%s: %d outcomes, want 2:\n%s", name, n, stdout)
		}
		for _, kind := range []string{"named pipe", "pipe.jpg", "link.jpg", "socket", "socket.png"} {
			if !strings.Contains(stderr, kind) {
				t.Errorf("%s: standard error does not name the %s:\n%s", name, kind, stderr)
			}
		}
	}
}

// TestSend_NamedFileIsNotRegular checks that the sender reads any file that the user
// names. A file that cannot be opened fails with the reason, and an endless file is
// read only up to the size limit of the mesh.
func TestSend_NamedFileIsNotRegular(t *testing.T) {
	t.Parallel()
	url, _ := serveImages(t, writeResult)
	dir := t.TempDir()
	makeSpecialFiles(t, dir)
	stdout, _, code := runSend(t, "", "/dev/zero", filepath.Join(dir, "socket.png"), "--url", url, "--ordered")
	if code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	all := decodeOutcomes(t, stdout)
	if len(all) != 2 {
		t.Fatalf("%d outcomes, want 2", len(all))
	}
	if all[0].Status != "done" {
		t.Errorf("an endless device: status %s, want done", all[0].Status)
	}
	if want := "no such device or address"; !strings.Contains(all[1].Error, want) {
		t.Errorf("a socket: error %q, want %q in it", all[1].Error, want)
	}
}

// TestSend_NoImages tests the row "sightmesh send" of shared/cases. When no image is
// found, the sender lists the files that are there and the accepted extensions, and
// fails.
func TestSend_NoImages(t *testing.T) {
	t.Parallel()
	url, asked := serveImages(t, writeResult)
	folder := func(names ...string) string {
		dir := t.TempDir()
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	heic, empty := folder("1.heic", "2.HEIC", "3.mov", ".4.jpg", "5"), folder()
	pipes := folder()
	makeFIFO(t, pipes, "pipe.jpg")
	for name, tt := range map[string]struct {
		args []string
		want []string
	}{
		"only HEIC":     {[]string{heic}, []string{heic, "2 .heic", "1 .mov", "1 hidden", "1 without an extension"}},
		"empty folder":  {[]string{empty}, []string{empty + " (empty)"}},
		"two folders":   {[]string{empty, heic}, []string{empty + " (empty)", heic, "2 .heic"}},
		"only a FIFO":   {[]string{pipes}, []string{`1 named pipe "` + pipes}},
		"glob of FIFOs": {[]string{filepath.Join(pipes, "*.jpg")}, []string{`1 named pipe "` + pipes}},
		"empty list":    {[]string{"-"}, []string{"standard input (empty)"}},
	} {
		stdout, stderr, code := runSend(t, "", append(tt.args, "--url", url)...)
		if code != 1 {
			t.Errorf("%s: exit code %d, want 1", name, code)
		}
		if len(stdout) > 0 {
			t.Errorf("%s: standard output has %q", name, stdout)
		}
		for _, want := range append(tt.want, ".jpg .jpeg .png .webp .bmp .tif .tiff") {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: standard error has no %q:\n%s", name, want, stderr)
			}
		}
	}
	if len(asked) > 0 {
		t.Errorf("%d requests came, want 0", len(asked))
	}
}

// TestSend_ResumesNamesThatAreNotUTF8 tests the row "sightmesh send" of shared/cases.
// File names with any bytes are read back from the outcomes, so that a resumed run
// sends no image that has an outcome.
func TestSend_ResumesNamesThatAreNotUTF8(t *testing.T) {
	t.Parallel()
	url, asked := serveImages(t, writeResult)
	dir := t.TempDir()
	want := []string{"caf\xe9.png", "caf\xe8.png", "caf\ufffd.png", "line\nbreak.png", "quote\".png", " blank .png",
		"plain.png"}
	for i, name := range want {
		err := os.WriteFile(filepath.Join(dir, name), frameAt(t, i), 0o600)
		if err != nil {
			t.Skipf("this file system does not allow such names: %v", err)
		}
		want[i] = dir + "/" + name
	}
	out := filepath.Join(t.TempDir(), "results.ndjson")
	args := []string{dir, "--url", url, "--out", out}
	if _, stderr, code := runSend(t, "", args...); code != 0 {
		t.Fatalf("the first run: exit code %d\n%s", code, stderr)
	}
	first, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range bytes.Lines(first) {
		var o struct {
			File       string
			FileBase64 []byte `json:"file_base64"`
		}
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if o.FileBase64 != nil {
			o.File = string(o.FileBase64)
		}
		got = append(got, filepath.Clean(o.File))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the outcomes are of %q\nwant %q", got, want)
	}
	if n := bytes.Count(first, []byte("file_base64")); n != 2 {
		t.Errorf("%d outcomes have file_base64, want 2", n)
	}
	_, stderr, code := runSend(t, "", append(args, "--resume")...)
	if code != 0 {
		t.Errorf("the resumed run: exit code %d\n%s", code, stderr)
	}
	if len(asked) != len(want) {
		t.Errorf("%d requests came, want %d", len(asked), len(want))
	}
	second, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Errorf("the resumed run wrote, want nothing:\n%s", second[min(len(first), len(second)):])
	}
}
