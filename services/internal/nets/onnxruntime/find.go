package onnxruntime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNotFound is returned by [Find] on a machine without ONNX Runtime.
var ErrNotFound = errors.New("ONNX Runtime is not installed")

// Find returns the path of the library, the first of these that exists:
//
//   - the file given, unless it is empty,
//   - the library in the folder onnxruntime below the folder models,
//   - the newest library that the system's loader knows.
//
// When the file given does not exist, Find returns an error that is not [ErrNotFound],
// and does not look elsewhere.
func Find(given, models string) (string, error) {
	if given != "" {
		if _, err := os.Stat(given); err != nil {
			return "", fmt.Errorf("find ONNX Runtime: %w", err)
		}
		return filepath.Abs(given)
	}
	var places []string
	if models != "" {
		pattern := filepath.Join(models, "onnxruntime", "libonnxruntime.so*")
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("find ONNX Runtime in %s: %w", pattern, err)
		}
		if len(found) > 0 {
			return filepath.Abs(found[0])
		}
		places = append(places, pattern)
	}
	if path := findInSystem(); path != "" {
		return path, nil
	}
	places = append(places, systemName+"* of the system (ldconfig -p)")
	return "", fmt.Errorf("%w: looked for %s; sightmesh models pull onnxruntime (make onnxruntime) installs it",
		ErrNotFound, strings.Join(places, ", then "))
}

// systemName is the prefix of the library's file name in Debian 13 and other systems.
const systemName = "libonnxruntime.so.1"

// findInSystem returns the path of the newest library that the system's loader knows,
// or "" if it knows none.
func findInSystem() string {
	// The path is absolute because /sbin is not in the PATH of an ordinary user of Debian.
	list, err := exec.Command("/sbin/ldconfig", "-p").Output()
	if err != nil {
		return "" // a system without glibc's loader
	}
	return firstInList(string(list))
}

// firstInList returns the first path of the library in the output of ldconfig -p, which
// lists the newest version first, or "" if the output has none.
func firstInList(list string) string {
	for line := range strings.Lines(list) {
		if name, path, ok := strings.Cut(line, " => "); ok && strings.HasPrefix(strings.TrimSpace(name), systemName) {
			return strings.TrimSpace(path)
		}
	}
	return ""
}
