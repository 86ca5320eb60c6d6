package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// testPackage has the functions and methods of the test files of a folder, by name.
// Methods of different types may share a name.
type testPackage map[string][]ast.Node

// add adds the functions of a file.
func (p testPackage) add(path string, text []byte) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Body != nil {
			p[f.Name.Name] = append(p[f.Name.Name], f.Body)
		}
	}
	return nil
}

// hasTest reports whether the package has a test with a path such as
// TestMesh_OneReplica/results, as `go test -v` prints it. An element that ends with "…"
// is a prefix.
//
// The source shows only names that are string literals. A computed name, such as the key
// of a table, may be any name, and so may its subtests, and those of a function of another
// package.
func (p testPackage) hasTest(path string) bool {
	elements := strings.Split(path, "/")
	for name, bodies := range p {
		if strings.HasPrefix(name, "Test") && isNamed(name, elements[0]) && p.hasSubtest(bodies, elements[1:]) {
			return true
		}
	}
	return false
}

func isNamed(name, element string) bool {
	prefix, isPrefix := strings.CutSuffix(element, "…")
	return name == element || isPrefix && strings.HasPrefix(name, prefix)
}

// hasSubtest reports whether one of the bodies runs the subtest with a path.
func (p testPackage) hasSubtest(bodies []ast.Node, path []string) bool {
	if len(path) == 0 {
		return true
	}
	for _, s := range p.subtests(bodies, map[ast.Node]bool{}) {
		if s.name == "" || isNamed(s.name, path[0]) && p.hasSubtest(s.bodies, path[1:]) {
			return true
		}
	}
	return false
}

// subtest is a call of testing.T.Run.
type subtest struct {
	name   string // as `go test -v` prints it; empty for a computed name
	bodies []ast.Node
}

// subtests returns the subtests that the bodies run themselves or through functions of the
// package. It skips the bodies that are in seen, and adds the others to seen.
func (p testPackage) subtests(bodies []ast.Node, seen map[ast.Node]bool) []subtest {
	var found []subtest
	for _, body := range bodies {
		if seen[body] {
			continue
		}
		seen[body] = true
		ast.Inspect(body, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			called := calledName(call.Fun)
			if called == "Run" && len(call.Args) == 2 {
				s := subtest{bodies: []ast.Node{call.Args[1]}}
				if f, ok := call.Args[1].(*ast.Ident); ok {
					s.bodies = p[f.Name]
				}
				if text, ok := call.Args[0].(*ast.BasicLit); ok {
					if name, err := strconv.Unquote(text.Value); err == nil {
						s.name = strings.ReplaceAll(name, " ", "_")
					}
				}
				found = append(found, s)
				return false
			}
			found = append(found, p.subtests(p[called], seen)...)
			return true
		})
	}
	return found
}

// calledName returns the name of a function or method, without its package or receiver.
func calledName(function ast.Expr) string {
	switch f := function.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

// TestDocs_NamedTestsExist checks that the tests and subtests that the pages name are in
// the tree. hasTest describes which names of subtests it can check.
func TestDocs_NamedTestsExist(t *testing.T) {
	t.Parallel()
	packages := map[string]testPackage{}
	walk(t, "_test.go", func(path string, text []byte) {
		folder := filepath.Dir(path)
		if packages[folder] == nil {
			packages[folder] = testPackage{}
		}
		if err := packages[folder].add(path, text); err != nil {
			t.Error(err)
		}
	})
	exists := func(path string) bool {
		for _, p := range packages {
			if p.hasTest(path) {
				return true
			}
		}
		return false
	}
	named := 0
	for path, page := range readPages(t) {
		for _, m := range regexp.MustCompile("`(Test[^`]*)`").FindAllStringSubmatch(page, -1) {
			named++
			if !exists(m[1]) {
				t.Errorf("%s names %s, which is no test", path, m[1])
			}
		}
		for _, m := range regexp.MustCompile("`…/\\w+`").FindAllString(page, -1) {
			t.Errorf("%s names %s, want the name of the test in place of …", path, m)
		}
	}
	if named < 50 {
		t.Errorf("the pages name %d tests, want 50 or more", named)
	}
}

func TestTestPackage_HasTest(t *testing.T) {
	t.Parallel()
	p := testPackage{}
	err := p.add("a_test.go", []byte(`package a
func TestA(t *testing.T) { testAll(t); run{}.topology(t, "static") }
func testAll(t *testing.T) {
	t.Run("two words", func(t *testing.T) { t.Run("inner", testInner) })
	testAll(t)
}
func testInner(t *testing.T) { t.Run("innermost", func(*testing.T) {}) }
func (run) topology(t *testing.T, name string) { t.Run("method", func(*testing.T) {}) }
func TestComputed(t *testing.T) { t.Run(name, func(*testing.T) {}) }
`))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"TestA":                           true,
		"Test…":                           true,
		"TestB":                           false,
		"TestB…":                          false,
		"testAll":                         false,
		"TestA/two_words":                 true,
		"TestA/two…":                      true,
		"TestA/three_words":               false,
		"TestA/two_words/inner":           true,
		"TestA/two_words/outer":           false,
		"TestA/two_words/inner/innermost": true,
		"TestA/two_words/inner/other":     false,
		"TestA/inner":                     false,
		"TestA/method":                    true,
		"TestA/two_words/method":          false,
		"TestComputed/any/any":            true,
	} {
		if got := p.hasTest(path); got != want {
			t.Errorf("hasTest(%q) is %v, want %v", path, got, want)
		}
	}
}
