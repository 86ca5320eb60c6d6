package e2e

import (
	"bytes"
	"encoding/json"
	"io"
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

// serveImages answers requests as answer does, and tells of each on the
// channel before it does.
func serveImages(t *testing.T, answer http.HandlerFunc) (url string, asked <-chan struct{}) {
	t.Helper()
	requests := make(chan struct{}, 64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		requests <- struct{}{}
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, requests
}

func answerDone(w http.ResponseWriter, _ *http.Request) {
	json.NewEncoder(w).Encode(v1.Result{ID: "j", Status: v1.Done, Regions: []v1.Region{}})
}

// runSend runs the sender to its end.
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
		t.Fatalf("the sender hangs: %s", &errs)
	}
	return out.Bytes(), errs.String(), exitCode(p.err)
}

// TestSend_ResumesNamesThatAreNotUTF8 is of the row "sightmesh send" of
// shared/cases: names of any bytes are read back, so that a run that is resumed
// sends nothing that has an outcome.
func TestSend_ResumesNamesThatAreNotUTF8(t *testing.T) {
	t.Parallel()
	url, asked := serveImages(t, answerDone)
	dir := t.TempDir()
	want := []string{"caf\xe9.png", "caf\xe8.png", "caf\ufffd.png", "line\nbreak.png", "quote\".png", " blank .png", "plain.png"}
	for i, name := range want {
		err := os.WriteFile(filepath.Join(dir, name), frameAt(t, i), 0o600)
		if err != nil {
			t.Skipf("not run: this file system takes no such names: %v", err)
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
		t.Errorf("the resumed run wrote\n%s", second[min(len(first), len(second)):])
	}
}
