package models

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// errAbsent says that a folder has no such file.
var errAbsent = errors.New("no such file in the folder")

// copyFromFolder copies a file from the folder that the user has named, where it may lie at any depth, under any name.
// A file of its name that is another one is an error that says what it is.
func (p *puller) copyFromFolder(f File, path string) error {
	var found string
	var wrong error
	err := filepath.WalkDir(p.from, func(candidate string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) && candidate != p.from {
			return nil // what cannot be read is not where the file is
		}
		if err != nil {
			return err
		}
		info, err := os.Stat(candidate) // of a link, what it leads to
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		if info.Size() != f.Bytes && d.Name() != f.Name {
			return nil
		}
		switch err := f.verify(candidate); {
		case err == nil:
			found = candidate
			return fs.SkipAll
		case d.Name() == f.Name:
			wrong = fmt.Errorf("%s: %w", candidate, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case found == "" && wrong != nil:
		return wrong
	case found == "":
		return fmt.Errorf("%w: none has the %d bytes and the SHA-256 %s", errAbsent, f.Bytes, f.SHA256)
	}
	return f.copyFrom(found, path)
}

// copyFrom installs a copy of another file.
func (f File) copyFrom(other, path string) error {
	return f.install(path, func(temporary string) error {
		in, err := os.Open(other)
		if err != nil {
			return err
		}
		defer in.Close()
		return writeFile(temporary, in, f.Bytes)
	})
}
