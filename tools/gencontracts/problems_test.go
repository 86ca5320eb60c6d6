package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestEveryProblemIsExplained holds docs/problems.md, to which the type of
// every problem leads, against the codes.
func TestEveryProblemIsExplained(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root, "docs/problems.md"))
	if err != nil {
		t.Fatal(err)
	}
	explained := map[v1.Code]bool{}
	for line := range strings.Lines(string(doc)) {
		if code, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			explained[v1.Code(code)] = true
		}
	}
	for _, c := range v1.Codes() {
		if !explained[c] {
			t.Errorf("docs/problems.md has no section %s", c)
		}
		delete(explained, c)
		if p := v1.NewProblem(c, "x"); p.Status < 400 || p.Title == "" || p.Code != c || !strings.HasSuffix(p.Type, "#"+string(c)) {
			t.Errorf("%s: %+v", c, p)
		}
	}
	for c := range explained {
		t.Errorf("docs/problems.md explains %s, which is no code", c)
	}
}
