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

// errContent is wrapped by the errors of files with other content than in the catalogue.
var errContent = errors.New("the file differs from the catalogue")

// contentError describes how a file differs from the catalogue.
type contentError struct{ difference string }

func (e contentError) Error() string { return e.difference }
func (e contentError) Unwrap() error { return errContent }

// verify compares the size and the SHA-256 of a file with the catalogue. When they differ, the error wraps errContent.
func (f File) verify(path string) error {
	info, err := os.Stat(path) // before Open, because a pipe waits for a writer
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
	if info.Size() == f.Bytes { // a file with another size cannot match
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
		return contentError{fmt.Sprintf("it has more than %d bytes", f.Bytes)}
	case info.Size() < f.Bytes:
		return contentError{fmt.Sprintf("it has %d bytes, want %d", info.Size(), f.Bytes)}
	}
	return contentError{fmt.Sprintf("its SHA-256 is %x, want %s", sum.Sum(nil), f.SHA256)}
}
