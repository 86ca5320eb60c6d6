package models

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of models in docs/models.md")

// TestCatalogue_IsInTheDocs compares the tables of docs/models.md with the catalogue.
func TestCatalogue_IsInTheDocs(t *testing.T) {
	t.Parallel()
	const path = "../../../docs/models.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- catalogue -->\n", "<!-- end of catalogue -->"
	before, rest, ok := strings.Cut(string(doc), begin)
	if !ok {
		t.Fatalf("docs/models.md has no %q", begin)
	}
	old, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("docs/models.md has no %q after %q", end, begin)
	}
	c, err := BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := docTables(c)
	if err != nil {
		t.Fatal(err)
	}
	if old == tables {
		return
	}
	if !*update {
		t.Fatalf("docs/models.md is out of date: go test ./tools/internal/models -run Docs -update. Want:\n%s", tables)
	}
	if err := os.WriteFile(path, []byte(before+begin+tables+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// docTables returns a table of the entries of a catalogue on linux/amd64, and a table of its sets.
func docTables(c *Catalogue) (string, error) {
	var b strings.Builder
	b.WriteString("| name | content | size | licence | source |\n|---|---|---|---|---|\n")
	for _, e := range c.Entries {
		files, err := e.filesFor("linux/amd64")
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n",
			e.Name, e.About, megabytes(totalBytes(files)), licences(files), origins(files))
	}
	b.WriteString("\n| set | models |\n|---|---|\n")
	for _, set := range slices.Sorted(maps.Keys(c.Sets)) {
		fmt.Fprintf(&b, "| `%s` | `%s` |\n", set, strings.Join(c.Sets[set], "`, `"))
	}
	return b.String(), nil
}

// sites maps the prefix of the URL of a file to the site with the page of its repository.
var sites = map[string]string{
	"https://raw.githubusercontent.com/": "https://github.com/",
	"https://huggingface.co/":            "https://huggingface.co/",
}

// origins returns the sources of files in their order, without duplicates: packages, and links to repositories.
func origins(files []File) string {
	var all []string
	for _, f := range files {
		for _, s := range f.Sources {
			from := s.String()
			for host, site := range sites {
				if path, ok := strings.CutPrefix(s.URL, host); ok {
					repository := strings.Join(strings.SplitN(path, "/", 3)[:2], "/")
					from = fmt.Sprintf("[%s](%s%s)", repository, site, repository)
				}
			}
			if !slices.Contains(all, from) {
				all = append(all, from)
			}
		}
	}
	return strings.Join(all, ", ")
}
