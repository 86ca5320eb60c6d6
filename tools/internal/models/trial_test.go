package models

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
)

// TestClassifyKinds_AreThoseOfTheService: the kinds of models that go to a lane of classify
// are those that its lane program knows, which are constants of its decoders, and tesseract.
func TestClassifyKinds_AreThoseOfTheService(t *testing.T) {
	t.Parallel()
	const file = "../../../services/classify/internal/decoders/decoders.go"
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"tesseract"}
	for _, d := range parsed.Decls {
		if g, ok := d.(*ast.GenDecl); !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range d.(*ast.GenDecl).Specs {
			for _, v := range s.(*ast.ValueSpec).Values {
				if l, ok := v.(*ast.BasicLit); ok && l.Kind == token.STRING {
					kind, err := strconv.Unquote(l.Value)
					if err != nil {
						t.Fatal(err)
					}
					want = append(want, kind)
				}
			}
		}
	}
	if len(want) == 1 {
		t.Fatalf("%s has no kinds", file)
	}
	slices.Sort(want)
	if !slices.Equal(classifyKinds, want) {
		t.Errorf("kinds of classify: %q, want %q", classifyKinds, want)
	}
}
