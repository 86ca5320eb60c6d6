package models

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// realdata is the folder of files that no package carries.
const realdata = "../../../../shared/realdata"

// TestBuiltIn_FilesWereSeen installs every entry with an upstream address from files that were fetched before:
// size and SHA-256 of the catalogue are those of real files, and the folders are complete.
func TestBuiltIn_FilesWereSeen(t *testing.T) {
	t.Parallel()
	from := filepath.Join(realdata, "models")
	if _, err := os.Stat(from); err != nil {
		t.Skipf("not run: the entries of the catalogue with an address, which need %s", from)
	}
	c, err := BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	models := t.TempDir()
	for _, e := range c.Entries {
		ofPackage := func(s Source) bool { return s.URL == "" }
		if slices.ContainsFunc(e.Files, func(f File) bool { return slices.ContainsFunc(f.Sources, ofPackage) }) {
			continue
		}
		if _, err := pullInto(t, models, e, func(c *Config) { c.From = from }); err != nil {
			t.Error(err)
			continue
		}
		is, err := e.statusOf(filepath.Join(models, e.Name), e.Files)
		if err != nil {
			t.Fatal(err)
		}
		if is.String() != string(Present) {
			t.Errorf("%s is %s, want %s", e.Name, is, Present)
		}
	}
}
