package models

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// errAbsent is wrapped when the folder of --from does not have the file.
var errAbsent = errors.New("no such file in the folder")

// copyFromFolder copies a file from the folder of --from, where it may be at any depth and have any name. When only a
// file with the right name and other content is found, the error describes that content.
func (p *puller) copyFromFolder(f File, path string) error {
	var found string
	var wrong error
	err := filepath.WalkDir(p.from, func(candidate string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) && candidate != p.from {
			return nil // folders without permission are skipped
		}
		if err != nil {
			return err
		}
		info, err := os.Stat(candidate) // follows links
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
		return fmt.Errorf("%w: no file has %d bytes and the SHA-256 %s", errAbsent, f.Bytes, f.SHA256)
	}
	return f.copyFrom(found, path)
}

// copyFrom installs a copy of the file other at path.
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
