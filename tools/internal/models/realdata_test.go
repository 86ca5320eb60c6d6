package models

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// realdata is a folder with files that are not part of the repository.
const realdata = "../../../../shared/realdata"

// TestBuiltIn_MatchesRealFiles installs every entry with an upstream URL from files that were fetched before. It checks
// that size and SHA-256 in the catalogue match real files, and that the folders are complete.
func TestBuiltIn_MatchesRealFiles(t *testing.T) {
	t.Parallel()
	from := filepath.Join(realdata, "models")
	if _, err := os.Stat(from); err != nil {
		t.Skipf("the entries of the catalogue with a URL need %s", from)
	}
	c, err := BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	models, checked := t.TempDir(), 0
	for _, e := range c.Entries {
		isPackage := func(s Source) bool { return s.URL == "" }
		if slices.ContainsFunc(e.Files, func(f File) bool { return slices.ContainsFunc(f.Sources, isPackage) }) {
			continue
		}
		checked++
		if _, err := pullInto(t, models, e, func(c *Config) { c.From = from }); err != nil {
			t.Error(err)
			continue
		}
		status, err := e.readStatus(filepath.Join(models, e.Name), e.Files)
		if err != nil {
			t.Fatal(err)
		}
		if status.String() != string(Installed) {
			t.Errorf("%s is %s, want %s", e.Name, status, Installed)
		}
	}
	if checked == 0 {
		t.Error("the catalogue has no entry of which every source has a URL")
	}
}
