package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMakefile_RunsTestsThatExist checks that each `go test -run` of the Makefile and of its scripts selects a test
// in each of its packages. go test succeeds when it selects none.
func TestMakefile_RunsTestsThatExist(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root(t), "tools/scripts/*"))
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`\btest .*-run ([A-Z][a-z]\w*)\S*((?: \./[\w/]+)+)`)
	selections := 0
	for _, file := range append(files, filepath.Join(root(t), "Makefile")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range command.FindAllStringSubmatch(string(text), -1) {
			for folder := range strings.FieldsSeq(m[2]) {
				selections++
				if !hasTest(t, filepath.Join(root(t), folder), m[1]) {
					t.Errorf("%s runs the tests %s of %s, which do not exist", file, m[1], folder)
				}
			}
		}
	}
	if selections < 8 {
		t.Errorf("the Makefile and its scripts select tests %d times, want 8 or more", selections)
	}
}

// hasTest returns whether the package in the folder has a test whose name contains name. It ignores build tags.
func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(t `)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range function.FindAllSubmatch(text, -1) {
			if strings.Contains(string(m[1]), name) {
				return true
			}
		}
	}
	return false
}
