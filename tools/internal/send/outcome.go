package send

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// outcome is one line of the output: the outcome of one image.
type outcome struct {
	// File is the path. JSON cannot contain bytes that are not UTF-8: File has U+FFFD in
	// their place, and FileBase64 has the bytes of the path.
	File       string     `json:"file"`
	FileBase64 []byte     `json:"file_base64,omitempty"`
	Status     v1.Status  `json:"status"`
	Result     *v1.Result `json:"result,omitempty"`
	// Problem is the problem from the mesh. Error is any other error.
	Problem  *v1.Problem `json:"problem,omitempty"`
	Error    string      `json:"error,omitempty"`
	Attempts int         `json:"attempts"`
	MS       float64     `json:"ms"`
}

// newOutcome returns the outcome of an image that has not been read yet.
func newOutcome(path string) outcome {
	o := outcome{File: path, Status: v1.Failed}
	if !utf8.ValidString(path) {
		o.FileBase64 = []byte(path)
	}
	return o
}

// path returns the path of the image, byte for byte.
func (o outcome) path() string {
	if len(o.FileBase64) > 0 {
		return string(o.FileBase64)
	}
	return o.File
}

// reason returns why the image failed.
func (o outcome) reason() string {
	if o.Problem != nil {
		return o.File + ": " + o.Problem.Error()
	}
	return o.File + ": " + o.Error
}

// isFinal reports whether the outcome depends only on the image, so that another
// attempt would have the same outcome.
func (o outcome) isFinal() bool {
	return o.Status == v1.Done || o.Problem != nil && !isTransient(o.Problem.Code)
}

// readSent reads the outcomes of an earlier run. It removes an incomplete last line
// from the file, and returns the images that need not be sent again, each with the
// status of its outcome.
func readSent(path string) (map[string]v1.Status, error) {
	sent := map[string]v1.Status{}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return sent, nil
	}
	if err != nil {
		return nil, fmt.Errorf("resume: %w", err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	whole := int64(0)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // an incomplete last line is not counted
		}
		if err != nil {
			return nil, fmt.Errorf("resume: %w", err)
		}
		var o outcome
		if err := json.Unmarshal(line, &o); err != nil || o.path() == "" {
			return nil, fmt.Errorf("resume: line %d of %s was not written by sightmesh send", n, path)
		}
		if delete(sent, o.path()); o.isFinal() {
			sent[o.path()] = o.Status
		}
		whole += int64(len(line))
	}
	if err := f.Truncate(whole); err != nil {
		return nil, fmt.Errorf("resume: %w", err)
	}
	return sent, nil
}

// runID returns the ID of the run, which is a part of the keys of its images. A
// resumed run has the same ID: the mesh finds the job of an image that was in flight
// when the run was interrupted. Another run has another ID, and creates new jobs. The
// ID is stored in the folder of the file of outcomes until done is called.
func runID(out string, resume bool) (id string, done func() error, err error) {
	if out == "-" {
		return rand.Text(), func() error { return nil }, nil
	}
	path := out + ".run"
	done = func() error {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("end the run: %w", err)
		}
		return nil
	}
	if resume {
		b, err := os.ReadFile(path)
		if err == nil {
			return strings.TrimSpace(string(bytes.TrimSpace(b))), done, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", nil, fmt.Errorf("resume: %w", err)
		}
	}
	id = rand.Text()
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", nil, fmt.Errorf("begin the run: %w", err)
	}
	return id, done, nil
}
