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

// TestBuiltIn_AgreesWithModelFiles compares what the catalogue says twice, in sources.yaml and in model.yaml.
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
				t.Errorf("%s: the licence of %s is %s, and model.yaml says %s", e.Name, f.Name, f.Licence, m.Licence)
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
				t.Errorf("%s: the SHA-256 of %s is %q, and model.yaml says %s", e.Name, name, sums[name], sum)
			}
		}
		if _, ok := m.SHA256[m.Weights]; !ok {
			t.Errorf("%s: model.yaml has no SHA-256 of the weights", e.Name)
		}
		isSource := func(s Source) bool { return s.URL == m.Source }
		hasURL := slices.ContainsFunc(e.Files[0].Sources, func(s Source) bool { return s.URL != "" })
		if hasURL && !slices.ContainsFunc(e.Files[0].Sources, isSource) {
			t.Errorf("%s: model.yaml says %s, which is no source of %s", e.Name, m.Source, e.Files[0].Name)
		}
	}
}

// good is a sources.yaml that is right.
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
		t.Errorf(`read %+v: name %q, want "dots"`, e, e.Name)
	case string(e.Texts["labels.txt"]) != "dot\n":
		t.Errorf(`read %+v: string(e.Texts["labels.txt"]) %q, want "dot\n"`, e, string(e.Texts["labels.txt"]))
	case len(e.Texts) != 1:
		t.Errorf("read %+v: %d texts, want 1", e, len(e.Texts))
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
		{"npm: \"@dots/net@1.2.3\"", "deb: dots", `files.0: sources.0: path: "package/net.onnx", want an absolute one`},
		{"- url: ", "- npm: a@1\n        url: ", "files.0: sources.2: want one of npm, pip, deb and url"},
	} {
		if !strings.Contains(good, tt.old) {
			t.Fatalf("the good file has no %q", tt.old)
		}
		_, err := read(strings.Replace(good, tt.old, tt.new, 1), "all: [dots]")
		switch {
		case err == nil:
			t.Errorf("%q: %v, want the file and %q: no error", tt.new, err, tt.want)
		case !strings.Contains(err.Error(), "dots/sources.yaml"):
			t.Errorf(`%q: %v, want the file and %q: want strings.Contains(err.Error(), "dots/sources.yaml")`,
				tt.new, err, tt.want)
		case !strings.Contains(err.Error(), tt.want):
			t.Errorf("%q: %v, want the file and %q: want strings.Contains(err.Error(), tt.want)",
				tt.new, err, tt.want)
		}
	}
	for sets, want := range map[string]string{
		"all: [nosuch]": `sets.yaml: all: no entry "nosuch"`,
		"dots: [dots]":  "sets.yaml: dots is the name of an entry too",
	} {
		switch _, err := read(good, sets); {
		case err == nil:
			t.Errorf("%s: %v, want %q: no error", sets, err, want)
		case !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v, want %q: want strings.Contains(err.Error(), want)", sets, err, want)
		}
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
	switch {
	case err == nil:
		t.Errorf("error %v, want one with the name and the sets: no error", err)
	case !strings.Contains(err.Error(), `"nosuch"`):
		t.Errorf("error %v, want one with the name and the sets: want strings.Contains(err.Error(), `\"nosuch\"`)",
			err)
	case !strings.Contains(err.Error(), "two"):
		t.Errorf(`error %v, want one with the name and the sets: want strings.Contains(err.Error(), "two")`, err)
	}
}
