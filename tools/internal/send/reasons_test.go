package send

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// runCommand runs the sender and returns its output and its error.
func runCommand(t *testing.T, cfg Config) (stderr string, err error) {
	t.Helper()
	var out bytes.Buffer
	cfg.Out, cfg.Concurrency = "-", "2"
	err = Command(t.Context(), cfg, strings.NewReader(""), io.Discard, &out)
	return out.String(), err
}

func TestCommand_PrintsWhyItRetries(t *testing.T) {
	t.Parallel()
	dir := folder(t, "a.jpg", "b.jpg", "c.jpg")
	stderr, err := runCommand(t, Config{URL: closedURL, Paths: []string{dir}, Attempts: 2})
	if n := strings.Count(stderr, "retrying "+dir); n != 1 {
		t.Errorf("%d lines say that it retries, want 1:\n%s", n, stderr)
	}
	const reason = "connect: connection refused; is the mesh running? --url sets another address\n"
	if !strings.Contains(stderr, reason) {
		t.Errorf("the output has no %q:\n%s", reason, stderr)
	}
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("the error is %v, want one with the reason", err)
	}
}

// TestCommand_AnotherReasonHasNoHint: the mesh responds, so --url is right.
func TestCommand_AnotherReasonHasNoHint(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, image string, n int) {
		if n == 1 {
			problem(w, v1.NoWorker, "")
			return
		}
		done(w, image)
	})
	dir := folder(t, "a.jpg")
	stderr, err := runCommand(t, Config{URL: m.URL, Paths: []string{dir}, Attempts: 2})
	if err != nil {
		t.Error(err)
	}
	if want := "retrying " + dir + "/a.jpg: no-worker: as ordered\n"; !strings.Contains(stderr, want) {
		t.Errorf("the output has no %q:\n%s", want, stderr)
	}
}

func TestCommand_ErrorNamesAProblem(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, _ string, _ int) {
		problem(w, v1.UnknownPipeline, "")
	})
	dir := folder(t, "a.jpg")
	stderr, err := runCommand(t, Config{URL: m.URL, Paths: []string{dir}, Attempts: 2})
	if strings.Contains(stderr, "retrying") {
		t.Errorf("it says that it retries:\n%s", stderr)
	}
	want := "all of 1 images failed; the last: " + dir + "/a.jpg: unknown-pipeline: as ordered"
	if err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

func TestCommand_OverloadIsNotPrinted(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(w http.ResponseWriter, _ *http.Request, image string, n int) {
		if n == 1 {
			problem(w, v1.Overloaded, "1")
			return
		}
		done(w, image)
	})
	stderr, err := runCommand(t, Config{URL: m.URL, Paths: []string{folder(t, "a.jpg")}, Attempts: 2})
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(stderr, "retrying") {
		t.Errorf("it prints an overload:\n%s", stderr)
	}
}
