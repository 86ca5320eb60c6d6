package launch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStart_FileThatIsNotExecutable(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "program.py")
	if err := os.WriteFile(program, []byte("#!/usr/bin/env python3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Start([]string{program}, nil, nil)
	if !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("got %v, want %v", err, fs.ErrPermission)
	}
	if want := "make the file executable, or name its interpreter first"; !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %q, want %q in it", err, want)
	}
}
