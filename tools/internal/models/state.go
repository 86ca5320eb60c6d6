package models

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A State is the state of a model folder.
type State string

// States of a model folder. A wrong hash is a fetched file with other content than in the catalogue.
const (
	NotInstalled State = "not installed"
	Incomplete   State = "incomplete"
	WrongHash    State = "wrong hash"
	Installed    State = "installed"
)

// A status is the state of a model folder, with the files that are the reason.
type status struct {
	state State
	// files are the missing files of an incomplete folder, the files with a wrong hash, or the texts of an installed
	// model that differ from the catalogue.
	files []string
}

// String returns the status for tables and messages.
func (s status) String() string {
	switch {
	case len(s.files) == 0:
		return string(s.state)
	case s.state == Installed:
		return fmt.Sprintf("%s, with a different %s", s.state, strings.Join(s.files, ", "))
	}
	return fmt.Sprintf("%s: %s", s.state, strings.Join(s.files, ", "))
}

// readStatus returns the status of an entry in the folder dir. files are the files of the entry on this platform.
func (e Entry) readStatus(dir string, files []File) (status, error) {
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return status{state: NotInstalled}, nil
	case err == nil && !info.IsDir():
		return status{Incomplete, []string{"the folder is a file"}}, nil
	}
	var missing, wrong, edited []string
	for _, f := range files {
		switch err := f.verify(filepath.Join(dir, f.Name)); {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, f.Name)
		case errors.Is(err, errContent):
			wrong = append(wrong, f.Name)
		case err != nil:
			return status{}, fmt.Errorf("read model %s: %w", e.Name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Texts)) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			edited = append(edited, name) // it is not opened, because a pipe waits for a writer
			continue
		}
		switch got, err := os.ReadFile(path); {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, name)
		case err != nil:
			return status{}, fmt.Errorf("read model %s: %w", e.Name, err)
		case !bytes.Equal(got, e.Texts[name]):
			edited = append(edited, name)
		}
	}
	switch {
	case len(wrong) > 0:
		return status{WrongHash, wrong}, nil
	case len(missing) > 0:
		return status{Incomplete, missing}, nil
	}
	return status{Installed, edited}, nil
}
