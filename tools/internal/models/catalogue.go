package models

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed catalogue
var embedded embed.FS

// A Catalogue has the models that can be fetched, and named sets of them.
type Catalogue struct {
	// Entries are sorted by name.
	Entries []Entry
	// Sets has the names of the entries of each set. A set and an entry never have the same name.
	Sets map[string][]string
}

// An Entry is a model of the catalogue. [Pull] installs it as a folder.
type Entry struct {
	// Name is the name of the folder.
	Name string
	// About describes the model in a few words.
	About string
	// Files are the files of the folder that are fetched.
	Files []File
	// Texts has the content of the other files of the folder, by name. They are part of the program.
	Texts map[string][]byte
}

// A File is fetched from its first source that has it.
type File struct {
	Name string `yaml:"name"`
	// Platform is the GOOS/GOARCH of the machines that need the file; empty for all machines.
	Platform string `yaml:"platform"`
	Bytes    int64  `yaml:"bytes"`
	// SHA256 is the checksum in lower-case hexadecimal.
	SHA256 string `yaml:"sha256"`
	// Licence is an SPDX identifier.
	Licence string   `yaml:"licence"`
	Sources []Source `yaml:"sources"`
}

// A Source is a file in an npm package, in a Python wheel or in an installed Debian package, or a URL. Exactly one of
// NPM, Pip, Deb and URL is set.
type Source struct {
	NPM string `yaml:"npm"` // PACKAGE@VERSION
	Pip string `yaml:"pip"` // PACKAGE==VERSION
	Deb string `yaml:"deb"` // PACKAGE
	// Path is the path of the file in a package, which is absolute for a Debian package; empty with URL.
	Path string `yaml:"path"`
	URL  string `yaml:"url"`
}

// String returns the name of the source for messages.
func (s Source) String() string {
	switch {
	case s.NPM != "":
		return "npm " + s.NPM
	case s.Pip != "":
		return "pip " + s.Pip
	case s.Deb != "":
		return "Debian " + s.Deb
	}
	return s.URL
}

// Names of the files that describe an entry, and the sets.
const (
	sourcesFile = "sources.yaml"
	setsFile    = "sets.yaml"
)

// BuiltIn returns the catalogue that is part of the program.
func BuiltIn() (*Catalogue, error) {
	root, err := fs.Sub(embedded, "catalogue")
	if err != nil {
		return nil, fmt.Errorf("read the catalogue: %w", err)
	}
	return ReadCatalogue(root)
}

// ReadCatalogue reads and validates a catalogue. An error names the file and the field.
func ReadCatalogue(root fs.FS) (*Catalogue, error) {
	c := &Catalogue{Sets: map[string][]string{}}
	folders, err := fs.ReadDir(root, ".")
	if err != nil {
		return nil, fmt.Errorf("read the catalogue: %w", err)
	}
	for _, f := range folders {
		if !f.IsDir() {
			continue
		}
		e, err := readEntry(root, f.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has no sources.yaml, so it cannot be fetched
		}
		if err != nil {
			return nil, fmt.Errorf("read the catalogue: %w", err)
		}
		c.Entries = append(c.Entries, e)
	}
	if err := decodeStrictly(root, setsFile, &c.Sets); err != nil {
		return nil, fmt.Errorf("read the catalogue: %w", err)
	}
	for set, names := range c.Sets {
		if _, ok := c.entry(set); ok {
			return nil, fmt.Errorf("read the catalogue: %s: %s is also the name of an entry", setsFile, set)
		}
		for _, name := range names {
			if _, ok := c.entry(name); !ok {
				return nil, fmt.Errorf("read the catalogue: %s: %s: no entry %q", setsFile, set, name)
			}
		}
	}
	return c, nil
}

func readEntry(root fs.FS, name string) (Entry, error) {
	var described struct {
		About string `yaml:"about"`
		Files []File `yaml:"files"`
	}
	if err := decodeStrictly(root, path.Join(name, sourcesFile), &described); err != nil {
		return Entry{}, err
	}
	e := Entry{Name: name, About: described.About, Files: described.Files, Texts: map[string][]byte{}}
	texts, err := fs.ReadDir(root, name)
	if err != nil {
		return Entry{}, err
	}
	for _, t := range texts {
		if t.Name() == sourcesFile {
			continue
		}
		if e.Texts[t.Name()], err = fs.ReadFile(root, path.Join(name, t.Name())); err != nil {
			return Entry{}, err
		}
	}
	if err := e.validate(); err != nil {
		return Entry{}, fmt.Errorf("%s: %w", path.Join(name, sourcesFile), err)
	}
	return e, nil
}

// decodeStrictly reads a file with one YAML document. An unknown field is an error.
func decodeStrictly(root fs.FS, name string, into any) error {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := d.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: want one YAML document", name)
	}
	return nil
}

func (e Entry) validate() error {
	if e.About == "" {
		return errors.New("about: missing")
	}
	if len(e.Files) == 0 {
		return errors.New("files: missing")
	}
	for i, f := range e.Files {
		if err := f.validate(); err != nil {
			return fmt.Errorf("files.%d: %w", i, err)
		}
		_, twice := e.Texts[f.Name]
		twice = twice || slices.ContainsFunc(e.Files[:i], func(other File) bool {
			return other.Name == f.Name && (other.Platform == f.Platform || other.Platform == "" || f.Platform == "")
		})
		if twice {
			return fmt.Errorf("files.%d: name: %q is given twice", i, f.Name)
		}
	}
	return nil
}

var (
	sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
	npmPattern    = regexp.MustCompile(`^(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*@[0-9][0-9A-Za-z.+-]*$`)
	pipPattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9A-Za-z.+!-]*$`)
)

func (f File) validate() error {
	switch {
	case !filepath.IsLocal(f.Name) || strings.ContainsAny(f.Name, `/\`) || strings.HasPrefix(f.Name, "."):
		return fmt.Errorf("name: %q, want a file name without a folder or a leading dot", f.Name)
	case f.Bytes < 1:
		return fmt.Errorf("bytes: %d, want 1 or more", f.Bytes)
	case !sha256Pattern.MatchString(f.SHA256):
		return fmt.Errorf("sha256: %q, want 64 lower-case hexadecimal digits", f.SHA256)
	case f.Licence == "":
		return errors.New("licence: missing")
	case len(f.Sources) == 0:
		return errors.New("sources: missing")
	}
	for i, s := range f.Sources {
		if err := s.validate(); err != nil {
			return fmt.Errorf("sources.%d: %w", i, err)
		}
	}
	return nil
}

func (s Source) validate() error {
	given := 0
	for _, v := range []string{s.NPM, s.Pip, s.Deb, s.URL} {
		if v != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return errors.New("want one of npm, pip, deb and url")
	case (s.URL == "") != (s.Path != ""):
		return fmt.Errorf("path: %q, want the path of the file in a package, or no path with url", s.Path)
	case s.NPM != "" && !npmPattern.MatchString(s.NPM):
		return fmt.Errorf("npm: %q, want PACKAGE@VERSION", s.NPM)
	case s.Pip != "" && !pipPattern.MatchString(s.Pip):
		return fmt.Errorf("pip: %q, want PACKAGE==VERSION", s.Pip)
	case s.Deb != "" && !filepath.IsAbs(s.Path):
		return fmt.Errorf("path: %q, want an absolute path", s.Path)
	case s.URL != "":
		u, err := url.Parse(s.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return fmt.Errorf("url: %q, want http:// or https://", s.URL)
		}
	}
	return nil
}

// entry returns the entry with a name. ok is false if there is none.
func (c *Catalogue) entry(name string) (e Entry, ok bool) {
	i := slices.IndexFunc(c.Entries, func(e Entry) bool { return e.Name == name })
	if i < 0 {
		return Entry{}, false
	}
	return c.Entries[i], true
}

// Select returns the entries that the names of entries and sets select, each once, in the order of the names.
func (c *Catalogue) Select(names []string) ([]Entry, error) {
	var selected []Entry
	isSelected := map[string]bool{}
	for _, name := range names {
		members, ok := c.Sets[name]
		if !ok {
			members = []string{name}
		}
		for _, n := range members {
			e, ok := c.entry(n)
			if !ok {
				return nil, fmt.Errorf("no model or set %q in the catalogue; sets are %s; sightmesh models ls lists the models",
					n, strings.Join(slices.Sorted(maps.Keys(c.Sets)), ", "))
			}
			if !isSelected[n] {
				isSelected[n] = true
				selected = append(selected, e)
			}
		}
	}
	return selected, nil
}

// filesFor returns the files that the entry has on a platform.
func (e Entry) filesFor(platform string) ([]File, error) {
	var files []File
	for _, f := range e.Files {
		if f.Platform == "" || f.Platform == platform {
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no file for %s", e.Name, platform)
	}
	return files, nil
}

// licences lists the licences of the files, each once.
func licences(files []File) string {
	var all []string
	for _, f := range files {
		if !slices.Contains(all, f.Licence) {
			all = append(all, f.Licence)
		}
	}
	return strings.Join(all, ", ")
}

// totalBytes returns the total size of the files.
func totalBytes(files []File) (n int64) {
	for _, f := range files {
		n += f.Bytes
	}
	return n
}

// megabytes formats a number of bytes for tables.
func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
