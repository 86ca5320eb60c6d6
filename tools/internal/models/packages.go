package models

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// packages fetches packages with their own clients, each once in a run. The clients obey the settings of the
// user, such as a registry or a proxy, and run nothing of a package.
type packages struct {
	dir      string // for what is fetched; the caller removes it
	progress progress
	fetched  map[string]fetchedPackage
}

type fetchedPackage struct {
	archive string
	err     error
}

// errNoClient says that a package client is not installed.
var errNoClient = errors.New("not installed")

// open returns the archive of the package of a source.
func (p *packages) open(ctx context.Context, s Source) (archive string, err error) {
	spec := s.String()
	if got, ok := p.fetched[spec]; ok {
		return got.archive, got.err
	}
	_, end := p.progress.begin("fetching "+spec, 0, -1)
	defer end()
	archive, err = p.fetch(ctx, s)
	p.fetched[spec] = fetchedPackage{archive, err}
	return archive, err
}

func (p *packages) fetch(ctx context.Context, s Source) (archive string, err error) {
	dir, err := os.MkdirTemp(p.dir, "")
	if err != nil {
		return "", fmt.Errorf("make a folder for the package: %w", err)
	}
	// A machine without internet is noticed soon; the next source is tried then.
	argv := []string{"npm", "pack", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1",
		"--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000", "--pack-destination=.", s.NPM}
	if s.Pip != "" {
		argv = []string{"pip3", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet",
			"--disable-pip-version-check", "--retries=1", "--dest=.", s.Pip}
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return "", fmt.Errorf("%s is %w", argv[0], errNoClient)
	}
	if err := runClient(ctx, dir, argv); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s fetched %d files, want 1 package", argv[0], len(found))
	}
	return found[0], nil
}

// runClient runs a package client in a folder. The error says why it failed, in its words.
func runClient(ctx context.Context, dir string, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir // a package.json or .npmrc where the user is has no say
	var words bytes.Buffer
	cmd.Stderr = &words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%s: %w: %s", argv[0], err, reason(argv[0], words.String()))
	}
	return nil
}

// reason returns the lines of standard error that say why a client failed: npm says so first, pip last.
func reason(client, stderr string) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(strings.TrimPrefix(line, "npm error")); line != "" {
			lines = append(lines, line)
		}
	}
	const most = 4
	if over := len(lines) - most; over > 0 && client == "npm" {
		lines = lines[:most]
	} else if over > 0 {
		lines = lines[over:]
	}
	return strings.Join(lines, "; ")
}

// maxUnpacked is how many bytes of a package are read.
const maxUnpacked = 2 << 30

// extractTar writes a file of a .tgz under another name. One that is larger than it should be is not written
// to its end.
func extractTar(archive, name, to string, bytes int64) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("open the package: %w", err)
	}
	r := tar.NewReader(io.LimitReader(z, maxUnpacked))
	for {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return fmt.Errorf("the package has no %s", name)
		case err != nil:
			return fmt.Errorf("read the package: %w", err)
		case h.Name == name && h.Typeflag == tar.TypeReg:
			return writeFile(to, r, bytes)
		}
	}
}

// extractZip is [extractTar] for a wheel.
func extractZip(archive, name, to string, bytes int64) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("open the package: %w", err)
	}
	defer z.Close() //nolint:errcheck // it was only read
	f, err := z.Open(name)
	if err != nil {
		return fmt.Errorf("the package has no %s", name)
	}
	defer f.Close() //nolint:errcheck // it was only read
	return writeFile(to, f, bytes)
}

// writeFile writes a file that should have so many bytes, and reads one more at most. Its bytes are on the disk
// when it returns.
func writeFile(path string, r io.Reader, bytes int64) (err error) {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, io.LimitReader(r, bytes+1)); err != nil {
		return err
	}
	return out.Sync()
}
