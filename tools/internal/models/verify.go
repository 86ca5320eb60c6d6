package models

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// errContent is wrapped by the errors of files that are other files than the catalogue says.
var errContent = errors.New("nothing of it was installed")

// contentError says how a file differs from what the catalogue says.
type contentError struct{ what string }

func (e contentError) Error() string { return e.what }
func (e contentError) Unwrap() error { return errContent }

// verify reads a file and compares it with what the catalogue says. The error wraps errContent when it is
// another file.
func (f File) verify(path string) error {
	info, err := os.Stat(path) // before it is opened: a pipe would wait for a writer
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return contentError{path + " is not a regular file"}
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", path, err)
	}
	head = head[:n]
	sum := sha256.New()
	sum.Write(head)
	if info.Size() == f.Bytes { // another size has another sum
		if _, err := io.Copy(sum, file); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if hex.EncodeToString(sum.Sum(nil)) == f.SHA256 {
			return nil
		}
	}
	switch lower := bytes.ToLower(bytes.TrimSpace(head)); {
	case bytes.HasPrefix(lower, []byte("version https://git-lfs.github.com/")):
		return contentError{"a Git LFS pointer in place of the file"}
	case bytes.HasPrefix(lower, []byte("<!doctype html")), bytes.HasPrefix(lower, []byte("<html")):
		return contentError{"an HTML page in place of the file"}
	case info.Size() > f.Bytes:
		return contentError{fmt.Sprintf("it has more than the %d bytes of the file", f.Bytes)}
	case info.Size() < f.Bytes:
		return contentError{fmt.Sprintf("it has %d bytes, and the file has %d", info.Size(), f.Bytes)}
	}
	return contentError{fmt.Sprintf("its SHA-256 is %x, and the catalogue says %s", sum.Sum(nil), f.SHA256)}
}
