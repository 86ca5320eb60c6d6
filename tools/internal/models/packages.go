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

// packages fetches packages with the clients npm and pip, each package once in a run. The clients use the settings of
// the user, such as a registry or a proxy. They execute no code of a package.
type packages struct {
	dir      string // folder of the packages; the caller removes it
	progress progress
	fetched  map[string]fetchedPackage
}

type fetchedPackage struct {
	archive string
	err     error
}

// errNoClient is wrapped when a package client is not installed.
var errNoClient = errors.New("not installed")

// open returns the path of the archive of the package of a source. It fetches the package if this run has not tried to.
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
		return "", fmt.Errorf("create a folder for the package: %w", err)
	}
	// Few retries: without internet access, the next source is tried soon.
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

// runClient runs a package client in a folder. The error has the reason that the client printed.
func runClient(ctx context.Context, dir string, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir // package.json and .npmrc in the working directory have no effect
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%s: %w: %s", argv[0], err, reason(argv[0], stderr.String()))
	}
	return nil
}

// reason returns the lines of standard error with the reason of a failure. npm prints it first, pip last.
func reason(client, stderr string) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(strings.TrimPrefix(line, "npm error")); line != "" {
			lines = append(lines, line)
		}
	}
	const maxLines = 4
	if over := len(lines) - maxLines; over > 0 && client == "npm" {
		lines = lines[:maxLines]
	} else if over > 0 {
		lines = lines[over:]
	}
	return strings.Join(lines, "; ")
}

// maxUnpacked is the maximum number of bytes that are read from a package after decompression.
const maxUnpacked = 2 << 30

// extractTar extracts a file of a .tgz to the path to. It writes at most one byte more than the expected size.
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

// extractZip does the same as [extractTar] for a wheel.
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

// writeFile writes a file with an expected size, and at most one byte more, so that verify detects a longer file. It
// returns after the data was written to the disk.
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
