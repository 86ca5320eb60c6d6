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

// A State says what is there of a model.
type State string

// The states of a model.
const (
	Absent     State = "not there"
	Incomplete State = "incomplete"
	WrongHash  State = "wrong hash"
	Present    State = "there"
)

// A status is the state of a folder with the files that made it.
type status struct {
	state State
	// files are those that are missing of an incomplete folder, that have another SHA-256 than the catalogue
	// says, or the texts of a model that is there which are not those of the catalogue.
	files []string
}

// String returns the status as tables have it.
func (s status) String() string {
	switch {
	case len(s.files) == 0:
		return string(s.state)
	case s.state == Present:
		return fmt.Sprintf("%s, with another %s", s.state, strings.Join(s.files, ", "))
	}
	return fmt.Sprintf("%s: %s", s.state, strings.Join(s.files, ", "))
}

// statusOf returns the status of an entry in its folder. files are those of the entry for this machine.
func (e Entry) statusOf(dir string, files []File) (status, error) {
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return status{state: Absent}, nil
	case err == nil && !info.IsDir():
		return status{Incomplete, []string{"the folder, which is a file"}}, nil
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
			edited = append(edited, name) // a pipe would wait for a writer
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
	return status{Present, edited}, nil
}
