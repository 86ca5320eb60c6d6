package e2e

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// readPages returns the text of the Markdown files of the tree by path, without their code blocks.
func readPages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	codeBlock := regexp.MustCompile("(?ms)^```.*?^```")
	walk(t, ".md", func(path string, text []byte) {
		pages[path] = codeBlock.ReplaceAllString(string(text), "")
	})
	if len(pages) < 20 {
		t.Fatalf("%d Markdown files, want 20 or more", len(pages))
	}
	return pages
}

// walk calls f with each file of the tree that has the suffix. It skips folders that git ignores.
func walk(t *testing.T, suffix string, f func(path string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			rel, err := filepath.Rel(root(t), path)
			switch rel {
			case ".git", ".data", "bin", "dist", "models":
				return fs.SkipDir
			}
			if d.Name() == "node_modules" {
				return fs.SkipDir
			}
			return err
		case !strings.HasSuffix(path, suffix):
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			f(path, text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// anchors returns the anchors that GitHub gives to the headings of a page.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	link := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	for _, m := range regexp.MustCompile(`(?m)^#+ +(.*)$`).FindAllStringSubmatch(page, -1) {
		var name strings.Builder
		for _, c := range strings.ToLower(link.ReplaceAllString(m[1], "$1")) {
			switch {
			case c == ' ':
				name.WriteByte('-')
			case c == '-' || c == '_' || unicode.IsLetter(c) || unicode.IsDigit(c):
				name.WriteRune(c)
			}
		}
		anchor := name.String()
		for n := 1; all[anchor]; n++ {
			anchor = fmt.Sprint(name.String(), "-", n)
		}
		all[anchor] = true
	}
	return all
}

func TestDocs_LinksResolve(t *testing.T) {
	t.Parallel()
	pages := readPages(t)
	for path, page := range pages {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(page, -1) {
			link, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			if link.IsAbs() {
				continue
			}
			target := path
			if link.Path != "" {
				target = filepath.Join(filepath.Dir(path), link.Path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s has no file", path, m[1])
				continue
			}
			if text, ok := pages[target]; ok && link.Fragment != "" && !anchors(text)[link.Fragment] {
				t.Errorf("%s: the link %s has no heading", path, m[1])
			}
		}
	}
}
