package models

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// partialFolder is the folder of unfinished models in the folder of models.
const partialFolder = ".partial"

// A puller fetches entries into a folder of models.
type puller struct {
	models   string
	platform string
	// from is a folder in which every file is looked for first; it may be empty.
	from     string
	client   *http.Client
	stall    time.Duration // after which a download without a byte is given up
	progress progress
	packages packages
}

// newPuller returns a puller that is ready for use, whose folder of unfinished models is locked. Close removes
// what is of no use to the next run.
func newPuller(models, from string, p progress) (_ *puller, close func() error, err error) {
	partial := filepath.Join(models, partialFolder)
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return nil, nil, fmt.Errorf("make the folder of models: %w", err)
	}
	lock, err := lockFolder(partial)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(partial, ".packages-")
	if err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("make a folder for packages: %w", err)
	}
	pl := &puller{
		models: models, from: from, platform: runtime.GOOS + "/" + runtime.GOARCH, stall: 30 * time.Second,
		client: &http.Client{Transport: newTransport()}, progress: p,
		packages: packages{dir: dir, progress: p, fetched: map[string]fetchedPackage{}},
	}
	return pl, func() error {
		pl.client.CloseIdleConnections()
		err := os.RemoveAll(dir)
		if e := os.Remove(partial); e != nil && !errors.Is(e, syscall.ENOTEMPTY) && !errors.Is(e, syscall.EEXIST) {
			err = errors.Join(err, e)
		}
		lock.Close()
		return err
	}, nil
}

// lockFolder keeps a folder for one process. The kernel releases it when the process ends.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another sightmesh models pull", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// pull makes the folder of an entry, or adds the files that are missing of it. What it returns is for the user,
// and empty when there was nothing to do.
func (p *puller) pull(ctx context.Context, e Entry) (done string, err error) {
	files, err := e.filesFor(p.platform)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(p.models, e.Name)
	is, err := e.statusOf(dir, files)
	switch {
	case err != nil:
		return "", err
	case is.state == Present && len(is.files) > 0:
		return fmt.Sprintf("%s is %s than that of the catalogue; remove %s to fetch all of it", e.Name, is, dir), nil
	case is.state == Present:
		return "", nil
	case is.state == WrongHash:
		return "", fmt.Errorf("%s: %s in %s is another file than that of the catalogue, or was damaged: "+
			"nothing is replaced; remove the folder to fetch the model again", e.Name, strings.Join(is.files, ", "), dir)
	}
	partial := filepath.Join(p.models, partialFolder, e.Name)
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return "", fmt.Errorf("%s: %w", e.Name, err)
	}
	var names []string
	for _, f := range files {
		if is.state == Incomplete && !slices.Contains(is.files, f.Name) {
			continue
		}
		if err := p.fetch(ctx, e.Name, f, partial); err != nil {
			_ = os.Remove(partial) // unless it has what the next run can use
			return "", err
		}
		names = append(names, f.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Texts)) {
		if is.state == Incomplete && !slices.Contains(is.files, name) {
			continue
		}
		if err := os.WriteFile(filepath.Join(partial, name), e.Texts[name], 0o644); err != nil {
			return "", fmt.Errorf("%s: %w", e.Name, err)
		}
		names = append(names, name)
	}
	done = fmt.Sprintf("%s is in %s now", e.Name, dir)
	if is.state == Incomplete {
		return done, moveInto(dir, partial, names)
	}
	if err := keepOnly(partial, names); err != nil {
		return "", fmt.Errorf("%s: %w", e.Name, err)
	}
	if err := os.Rename(partial, dir); err != nil {
		return "", fmt.Errorf("install %s: %w", e.Name, err)
	}
	return done, nil
}

// keepOnly removes the files of a folder that have none of the names, such as those of an older catalogue.
func keepOnly(dir string, names []string) error {
	found, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range found {
		if !slices.Contains(names, f.Name()) {
			if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// moveInto moves the named files of partial into dir, and removes partial.
func moveInto(dir, partial string, names []string) error {
	for _, name := range names {
		if err := os.Rename(filepath.Join(partial, name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("complete model %s: %w", filepath.Base(dir), err)
		}
	}
	if err := os.RemoveAll(partial); err != nil {
		return fmt.Errorf("complete model %s: %w", filepath.Base(dir), err)
	}
	return nil
}

// fetch puts a file of an entry into a folder, from the first source that has it. A file that is there already
// is kept. The error names every source that was tried, and what is wrong with it.
func (p *puller) fetch(ctx context.Context, entry string, f File, dir string) error {
	path := filepath.Join(dir, f.Name)
	if f.verify(path) == nil {
		return nil // of an earlier run, which ended between two files
	}
	var failed []error
	if p.from != "" {
		err := p.copyFromFolder(f, path)
		if err == nil {
			return nil
		}
		failed = append(failed, fmt.Errorf("--from %s: %w", p.from, err))
	}
	for _, s := range f.Sources {
		err := p.fromSource(ctx, entry, f, s, path)
		if err == nil {
			return nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", s, err))
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("%s: no source has %s:\n  %w", entry, f.Name, joined{failed})
}

// fromSource fetches a file from one of its sources.
func (p *puller) fromSource(ctx context.Context, entry string, f File, s Source, path string) error {
	if s.URL != "" {
		return p.fromURL(ctx, entry+": "+f.Name+" from "+s.URL, f, s.URL, path)
	}
	if s.Deb != "" {
		if _, err := os.Stat(s.Path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s does not exist: the package is not installed", s.Path)
		}
		return f.copyFrom(s.Path, path)
	}
	archive, err := p.packages.open(ctx, s)
	if err != nil {
		return err
	}
	extract := extractTar
	if s.Pip != "" {
		extract = extractZip
	}
	return f.install(path, func(temporary string) error { return extract(archive, s.Path, temporary, f.Bytes) })
}

// install has a file written under a temporary name, and gives it its own when it is the right one. Nothing is
// left of any other.
func (f File) install(path string, write func(temporary string) error) error {
	temporary := path + ".new"
	err := write(temporary)
	if err == nil {
		err = f.verify(temporary)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		if e := os.Remove(temporary); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// joined is several errors, each on a line of its own below another.
type joined struct{ errs []error }

func (j joined) Error() string {
	lines := make([]string, 0, len(j.errs))
	for _, err := range j.errs {
		lines = append(lines, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return strings.Join(lines, "\n  ")
}

func (j joined) Unwrap() []error { return j.errs }
