package models

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"go.yaml.in/yaml/v3"
)

// TestBuiltIn_AgreesWithModelFiles compares the facts that are both in sources.yaml and in model.yaml.
func TestBuiltIn_AgreesWithModelFiles(t *testing.T) {
	t.Parallel()
	c, err := BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range c.Entries {
		data, ok := e.Texts["model.yaml"]
		if !ok {
			continue
		}
		var m struct {
			Weights, Config, Labels, Dictionary string
			Licence, Source                     string
			SHA256                              map[string]string `yaml:"sha256"`
		}
		if err := yaml.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		sums := map[string]string{}
		for _, f := range e.Files {
			sums[f.Name] = f.SHA256
			if f.Licence != m.Licence {
				t.Errorf("%s: the licence of %s is %s, want %s as in model.yaml", e.Name, f.Name, f.Licence, m.Licence)
			}
		}
		for name, text := range e.Texts {
			sum := sha256.Sum256(text)
			sums[name] = hex.EncodeToString(sum[:])
		}
		for _, name := range []string{m.Weights, m.Config, m.Labels, m.Dictionary} {
			if name != "" && sums[name] == "" {
				t.Errorf("%s: model.yaml names %s, which is neither fetched nor in the catalogue", e.Name, name)
			}
		}
		for name, sum := range m.SHA256 {
			if sums[name] != sum {
				t.Errorf("%s: the SHA-256 of %s is %q, want %s as in model.yaml", e.Name, name, sums[name], sum)
			}
		}
		if _, ok := m.SHA256[m.Weights]; !ok {
			t.Errorf("%s: model.yaml has no SHA-256 of the weights", e.Name)
		}
		isSource := func(s Source) bool { return s.URL == m.Source }
		hasURL := slices.ContainsFunc(e.Files[0].Sources, func(s Source) bool { return s.URL != "" })
		if hasURL && !slices.ContainsFunc(e.Files[0].Sources, isSource) {
			t.Errorf("%s: model.yaml has the source %s, which is no source of %s", e.Name, m.Source, e.Files[0].Name)
		}
	}
}

// good is a valid sources.yaml.
const good = `
about: dots
files:
  - name: net.onnx
    bytes: 3
    sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
    licence: MIT
    sources:
      - {npm: "@dots/net@1.2.3", path: package/net.onnx}
      - {pip: dots==1.2.3, path: dots/net.onnx}
      - url: https://example.org/net.onnx
`

func TestReadCatalogue_RejectsFields(t *testing.T) {
	t.Parallel()
	read := func(sources, sets string) (*Catalogue, error) {
		return ReadCatalogue(fstest.MapFS{
			"dots/sources.yaml": {Data: []byte(sources)},
			"dots/labels.txt":   {Data: []byte("dot\n")},
			"sets.yaml":         {Data: []byte(sets)},
		})
	}
	c, err := read(good, "all: [dots]")
	if err != nil {
		t.Fatal(err)
	}
	switch e := c.Entries[0]; {
	case e.Name != "dots":
		t.Errorf("the name is %q, want dots", e.Name)
	case string(e.Texts["labels.txt"]) != "dot\n":
		t.Errorf("labels.txt is %q, want dot", e.Texts["labels.txt"])
	case len(e.Texts) != 1:
		t.Errorf("%d texts, want 1", len(e.Texts))
	}
	for _, tt := range []struct{ old, new, want string }{
		{"about: dots", "", "about: missing"},
		{"about: dots", "about: dots\ncolour: red", "field colour not found"},
		{"name: net.onnx", "name: ../net.onnx", `files.0: name: "../net.onnx"`},
		{"name: net.onnx", "name: a/net.onnx", `files.0: name: "a/net.onnx"`},
		{"name: net.onnx", "name: .hidden", `files.0: name: ".hidden"`},
		{"name: net.onnx", "name: labels.txt", `files.0: name: "labels.txt" is given twice`},
		{"bytes: 3", "bytes: 0", "files.0: bytes: 0"},
		{"sha256: 2c", "sha256: 2C", `files.0: sha256: "2C`},
		{"licence: MIT", "", "files.0: licence: missing"},
		{"@dots/net@1.2.3", "@dots/net", `files.0: sources.0: npm: "@dots/net"`},
		{"@dots/net@1.2.3", "file:..@1", `files.0: sources.0: npm: "file:..@1"`},
		{", path: package/net.onnx", "", "files.0: sources.0: path"},
		{"dots==1.2.3", "dots>=1", `files.0: sources.1: pip: "dots>=1"`},
		{"dots==1.2.3", "--index-url=x==1", `files.0: sources.1: pip`},
		{"https://example.org", "ftp://example.org", `files.0: sources.2: url: "ftp:`},
		{"npm: \"@dots/net@1.2.3\"", "deb: dots", `files.0: sources.0: path: "package/net.onnx", want an absolute path`},
		{"- url: ", "- npm: a@1\n        url: ", "files.0: sources.2: want one of npm, pip, deb and url"},
	} {
		if !strings.Contains(good, tt.old) {
			t.Fatalf("the valid file has no %q", tt.old)
		}
		_, err := read(strings.Replace(good, tt.old, tt.new, 1), "all: [dots]")
		checkError(t, err, "dots/sources.yaml", tt.want)
	}
	for sets, want := range map[string]string{
		"all: [nosuch]": `sets.yaml: all: no entry "nosuch"`,
		"dots: [dots]":  "sets.yaml: dots is also the name of an entry",
	} {
		_, err := read(good, sets)
		checkError(t, err, want)
	}
}

func TestCatalogue_Select(t *testing.T) {
	t.Parallel()
	c := Catalogue{Entries: []Entry{{Name: "a"}, {Name: "b"}, {Name: "c"}}, Sets: map[string][]string{"two": {"c", "a"}}}
	got, err := c.Select([]string{"a", "two", "b", "b"})
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, 0, len(got))
	for _, e := range got {
		names = append(names, e.Name)
	}
	if want := []string{"a", "c", "b"}; !slices.Equal(names, want) {
		t.Errorf("selected %q, want %q", names, want)
	}
	_, err = c.Select([]string{"a", "nosuch"})
	checkError(t, err, `"nosuch"`, "two") // the unknown name, and the sets
}
