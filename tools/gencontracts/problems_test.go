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
		switch p := v1.NewProblem(c, "x"); {
		case p.Status < 400:
			t.Errorf("%s: %+v: p.Status = %v, want >= 400", c, p, p.Status)
		case p.Title == "":
			t.Errorf(`%s: %+v: p.Title = %v, want != ""`, c, p, p.Title)
		case p.Code != c:
			t.Errorf("%s: %+v: p.Code = %v, want %v", c, p, p.Code, c)
		case !strings.HasSuffix(p.Type, "#"+string(c)):
			t.Errorf(`%s: %+v: want strings.HasSuffix(p.Type, "#"+string(c))`, c, p)
		}
	}
	for c := range explained {
		t.Errorf("docs/problems.md explains %s, which is no code", c)
	}
}
