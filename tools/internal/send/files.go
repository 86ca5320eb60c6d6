package send

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/maruel/natural"

	"github.com/sightmesh/sightmesh/contracts/streams"
)

// file is an image to send.
type file struct {
	path string
	// name is the name of the drawn image: the path below the folder that has the image,
	// or the whole path when another image has that name.
	name string
}

// extensions are the file extensions of images in a folder.
var extensions = []string{".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}

// skippedFiles counts the files of an argument that are not sent, by their kind.
type skippedFiles map[string]int

// String returns the counts, the largest first.
func (l skippedFiles) String() string {
	if len(l) == 0 {
		return "empty"
	}
	const most = 8
	kinds := slices.SortedFunc(maps.Keys(l), func(a, b string) int {
		return cmp.Or(cmp.Compare(l[b], l[a]), cmp.Compare(a, b))
	})
	var parts []string
	others := 0
	for i, kind := range kinds {
		if i < most {
			parts = append(parts, fmt.Sprint(l[kind], " ", kind))
		} else {
			others += l[kind]
		}
	}
	if others > 0 {
		parts = append(parts, fmt.Sprint(others, " others"))
	}
	return strings.Join(parts, ", ")
}

// found has the images of all arguments.
type found struct {
	files []file
	notes []string // one note for each argument with skipped files
}

// find lists the images of the arguments. An argument is a file, a folder, which
// includes the folders below it, a glob, or "-" for a list on stdin with one path a
// line. The images of a folder or glob are in natural order: frame2 before frame10.
// Each image is listed once. No image is an error.
func find(ctx context.Context, args []string, stdin io.Reader) (found, error) {
	var all found
	var empty []string // arguments without an image
	seen, named := map[string]bool{}, map[string]bool{}
	for _, arg := range args {
		files, left, err := findArgument(ctx, arg, stdin)
		if err != nil {
			return found{}, err
		}
		name := arg
		if arg == "-" {
			name = "the list on standard input"
		}
		switch {
		case len(files) == 0:
			empty = append(empty, fmt.Sprintf("%s (%v)", name, left))
			all.notes = append(all.notes, fmt.Sprintf("no image in %s (%v)", name, left))
		case len(left) > 0:
			all.notes = append(all.notes, fmt.Sprintf("left out in %s: %v", name, left))
		}
		for _, f := range files {
			if seen[f.path] {
				continue
			}
			if named[f.name] {
				f.name = filepath.Join("/", f.path)[1:] // stays below the folder of --draw
			}
			seen[f.path], named[f.name] = true, true
			all.files = append(all.files, f)
		}
	}
	if len(all.files) == 0 {
		return found{}, fmt.Errorf("no image to send in %s: send accepts %s from a folder, and any file by its name",
			strings.Join(empty, ", "), strings.Join(extensions, " "))
	}
	return all, nil
}

// findArgument lists the images of one argument, and counts the skipped files. A file
// that is itself an argument is always sent.
func findArgument(ctx context.Context, arg string, stdin io.Reader) ([]file, skippedFiles, error) {
	if arg == "-" {
		files, err := readList(stdin)
		return files, nil, err
	}
	info, err := os.Stat(arg)
	switch {
	case err == nil && info.IsDir():
		return walk(ctx, arg)
	case err == nil:
		return []file{{arg, filepath.Base(arg)}}, nil, nil
	}
	matches, globErr := filepath.Glob(arg)
	if globErr != nil || len(matches) == 0 {
		return nil, nil, fmt.Errorf("find images: %w", err)
	}
	slices.SortFunc(matches, natural.Compare)
	var files []file
	left := skippedFiles{}
	for _, m := range matches {
		info, err := os.Stat(m)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("find images: %w", err)
		case info.IsDir():
			below, leftBelow, err := walk(ctx, m)
			if err != nil {
				return nil, nil, err
			}
			files = append(files, below...)
			for kind, n := range leftBelow {
				left[kind] += n
			}
		case !info.Mode().IsRegular():
			left[specialType(m, info)]++
		default:
			files = append(files, file{m, filepath.Base(m)})
		}
	}
	return files, left, nil
}

// readList reads paths, one a line.
func readList(stdin io.Reader) ([]file, error) {
	var files []file
	lines := bufio.NewScanner(stdin)
	for lines.Scan() {
		if p := lines.Text(); p != "" {
			files = append(files, file{p, filepath.Base(p)})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the list of images: %w", err)
	}
	return files, nil
}

// walk lists the images in a folder and in the folders below it. It skips hidden
// files, files with another extension, and special files, because a read of them
// may block forever.
func walk(ctx context.Context, root string) ([]file, skippedFiles, error) {
	var out []file
	left := skippedFiles{}
	// WalkDir does not follow a link as its root. It follows the link with /. behind its name.
	below := root + string(filepath.Separator) + "."
	err := filepath.WalkDir(below, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case path != below && strings.HasPrefix(d.Name(), "."):
			left["hidden"]++
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		if ext := strings.ToLower(filepath.Ext(path)); !slices.Contains(extensions, ext) {
			left[kind(ext)]++
			return nil
		}
		if !d.Type().IsRegular() { // a link to a missing file is listed, and its read fails with the reason
			if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
				left[specialType(path, info)]++
				return nil
			}
		}
		name, err := filepath.Rel(root, path)
		out = append(out, file{path, name})
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("find images: %w", err)
	}
	slices.SortFunc(out, func(a, b file) int { return natural.Compare(a.path, b.path) })
	return out, left, nil
}

// kind returns the kind of a file with this extension.
func kind(ext string) string {
	if ext == "" {
		return "without an extension"
	}
	return strings.Trim(strconv.Quote(ext), `"`) // without control characters
}

// specialType returns the kind and path of a file that is not regular.
func specialType(path string, info fs.FileInfo) string {
	kind := "special file"
	switch mode := info.Mode(); {
	case mode.IsDir():
		kind = "link to a folder"
	case mode&fs.ModeNamedPipe != 0:
		kind = "named pipe"
	case mode&fs.ModeSocket != 0:
		kind = "socket"
	case mode&fs.ModeDevice != 0:
		kind = "device"
	}
	return fmt.Sprintf("%s %q", kind, path)
}

// readImage reads an image. It reads at most one byte more than the largest image
// that a mesh accepts, because a device may have no end.
func readImage(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the image: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, streams.MaxMessage+1))
	if err != nil {
		return nil, fmt.Errorf("read the image: %w", err)
	}
	return data, nil
}
