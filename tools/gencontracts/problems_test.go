package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestDocs_EveryProblemHasASection compares the codes with docs/problems.md, which is the
// address in the type of every problem.
func TestDocs_EveryProblemHasASection(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root, "docs/problems.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[v1.Code]bool{}
	for line := range strings.Lines(string(doc)) {
		if code, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			sections[v1.Code(code)] = true
		}
	}
	for _, c := range v1.Codes() {
		if !sections[c] {
			t.Errorf("docs/problems.md has no section %s", c)
		}
		delete(sections, c)
		p := v1.NewProblem(c, "x")
		if p.Status < 400 {
			t.Errorf("%s has the status %d, want 400 or more", c, p.Status)
		}
		if p.Title == "" {
			t.Errorf("%s has no title", c)
		}
		if p.Code != c {
			t.Errorf("the problem of %s has the code %s", c, p.Code)
		}
		if want := "#" + string(c); !strings.HasSuffix(p.Type, want) {
			t.Errorf("%s has the type %q, want one that ends with %q", c, p.Type, want)
		}
	}
	for c := range sections {
		t.Errorf("docs/problems.md has a section %s, which is not a code", c)
	}
}
