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

// partialFolder is the folder of incomplete models in the folder of models.
const partialFolder = ".partial"

// A puller fetches entries into a folder of models.
type puller struct {
	models   string
	platform string
	// from is a folder that is searched for every file first; empty for none.
	from         string
	client       *http.Client
	stallTimeout time.Duration // a download that receives no data for this time is interrupted
	progress     progress
	packages     packages
}

// newPuller returns a puller, and locks the folder of incomplete models. The caller must call close, which removes
// files that the next run cannot resume.
func newPuller(models, from string, p progress) (_ *puller, close func() error, err error) {
	partial := filepath.Join(models, partialFolder)
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return nil, nil, fmt.Errorf("create the folder of models: %w", err)
	}
	lock, err := lockFolder(partial)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(partial, ".packages-")
	if err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("create a folder for packages: %w", err)
	}
	pl := &puller{
		models: models, from: from, platform: runtime.GOOS + "/" + runtime.GOARCH, stallTimeout: 30 * time.Second,
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

// lockFolder locks a folder for this process. The kernel releases the lock when the process ends.
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

// pull installs the folder of an entry, or its missing files. It returns a message for the user, which is empty when
// the model is complete already.
func (p *puller) pull(ctx context.Context, e Entry) (message string, err error) {
	files, err := e.filesFor(p.platform)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(p.models, e.Name)
	status, err := e.readStatus(dir, files)
	switch {
	case err != nil:
		return "", err
	case status.state == Installed && len(status.files) > 0:
		return fmt.Sprintf("%s is %s than the catalogue; remove %s to fetch the model again", e.Name, status, dir), nil
	case status.state == Installed:
		return "", nil
	case status.state == WrongHash:
		return "", fmt.Errorf("%s: %s in %s is damaged or differs from the catalogue: "+
			"existing files are not replaced; remove the folder to fetch the model again",
			e.Name, strings.Join(status.files, ", "), dir)
	}
	partial := filepath.Join(p.models, partialFolder, e.Name)
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return "", fmt.Errorf("%s: %w", e.Name, err)
	}
	var names []string
	for _, f := range files {
		if status.state == Incomplete && !slices.Contains(status.files, f.Name) {
			continue
		}
		if err := p.fetch(ctx, e.Name, f, partial); err != nil {
			_ = os.Remove(partial) // fails when the next run can use a file in it
			return "", err
		}
		names = append(names, f.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Texts)) {
		if status.state == Incomplete && !slices.Contains(status.files, name) {
			continue
		}
		if err := os.WriteFile(filepath.Join(partial, name), e.Texts[name], 0o644); err != nil {
			return "", fmt.Errorf("%s: %w", e.Name, err)
		}
		names = append(names, name)
	}
	message = fmt.Sprintf("installed %s in %s", e.Name, dir)
	if status.state == Incomplete {
		return message, moveFiles(dir, partial, names)
	}
	if err := removeOthers(partial, names); err != nil {
		return "", fmt.Errorf("%s: %w", e.Name, err)
	}
	if err := os.Rename(partial, dir); err != nil {
		return "", fmt.Errorf("install %s: %w", e.Name, err)
	}
	return message, nil
}

// removeOthers removes the files of a folder except those with the names, such as files of an older catalogue.
func removeOthers(dir string, names []string) error {
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

// moveFiles moves the named files of partial into dir, and removes partial.
func moveFiles(dir, partial string, names []string) error {
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

// fetch fetches a file of an entry into a folder, from the first source that has it. A valid file in the folder is
// kept. The error has the reason for each source that was tried.
func (p *puller) fetch(ctx context.Context, entry string, f File, dir string) error {
	path := filepath.Join(dir, f.Name)
	if f.verify(path) == nil {
		return nil // an earlier run ended after this file
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
		err := p.fetchSource(ctx, entry, f, s, path)
		if err == nil {
			return nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", s, err))
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("%s: no source has %s:\n  %w", entry, f.Name, joinedErrors{failed})
}

// fetchSource fetches a file from a source.
func (p *puller) fetchSource(ctx context.Context, entry string, f File, s Source, path string) error {
	if s.URL != "" {
		return p.fetchURL(ctx, entry+": "+f.Name+" from "+s.URL, f, s.URL, path)
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

// install writes a file under a temporary name, verifies it, and renames it to path. After an error, it removes the
// temporary file.
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

// joinedErrors prints several errors, one on each line.
type joinedErrors struct{ errs []error }

func (j joinedErrors) Error() string {
	lines := make([]string, 0, len(j.errs))
	for _, err := range j.errs {
		lines = append(lines, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return strings.Join(lines, "\n  ")
}

func (j joinedErrors) Unwrap() []error { return j.errs }
