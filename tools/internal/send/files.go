package send

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/maruel/natural"
)

// file is a picture to send.
type file struct {
	path string
	// name is what a drawn picture is called: the path below the folder or
	// list in which it was found, or all of the path where that is taken.
	name string
}

// extensions of the pictures that a mesh reads.
var extensions = []string{".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}

// find lists the pictures that the arguments name: files, folders with all
// that is in them, globs, and "-" for a list on stdin, one path a line. Within
// a folder or glob they are in natural order: frame2 before frame10. Each is
// listed once.
func find(args []string, stdin io.Reader) ([]file, error) {
	var out []file
	seen, named := map[string]bool{}, map[string]bool{}
	add := func(files ...file) {
		for _, f := range files {
			if seen[f.path] {
				continue
			}
			if named[f.name] {
				f.name = filepath.Join("/", f.path)[1:] // never above the folder of the drawn ones
			}
			seen[f.path], named[f.name] = true, true
			out = append(out, f)
		}
	}
	for _, arg := range args {
		if arg == "-" {
			lines := bufio.NewScanner(stdin)
			for lines.Scan() {
				if p := lines.Text(); p != "" {
					add(file{p, filepath.Base(p)})
				}
			}
			if err := lines.Err(); err != nil {
				return nil, fmt.Errorf("read the list of pictures: %w", err)
			}
			continue
		}
		paths := []string{arg}
		if _, err := os.Stat(arg); err != nil {
			matches, globErr := filepath.Glob(arg)
			if globErr != nil || len(matches) == 0 {
				return nil, fmt.Errorf("find pictures: %w", err)
			}
			paths = matches
			slices.SortFunc(paths, natural.Compare)
		}
		for _, p := range paths {
			files, err := walk(p)
			if err != nil {
				return nil, err
			}
			add(files...)
		}
	}
	return out, nil
}

// walk lists a file, or the pictures in a folder and those below it. What is
// hidden is left out.
func walk(root string) ([]file, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("find pictures: %w", err)
	}
	if !info.IsDir() {
		return []file{{root, filepath.Base(root)}}, nil
	}
	var out []file
	// WalkDir does not follow a link; what is below this it does.
	below := root + string(filepath.Separator) + "."
	err = filepath.WalkDir(below, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != below && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() || !slices.Contains(extensions, strings.ToLower(filepath.Ext(path))):
			return nil
		}
		name, err := filepath.Rel(root, path)
		out = append(out, file{path, name})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find pictures: %w", err)
	}
	slices.SortFunc(out, func(a, b file) int { return natural.Compare(a.path, b.path) })
	return out, nil
}
