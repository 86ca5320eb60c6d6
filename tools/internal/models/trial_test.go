package models

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
)

// TestClassifyKinds_MatchTheService checks that classifyKinds are the kinds of the service: the constants of its
// decoders, and tesseract.
func TestClassifyKinds_MatchTheService(t *testing.T) {
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
		t.Errorf("the kinds of classify are %q, want %q", classifyKinds, want)
	}
}
