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

// Find returns the path of the library: the file that the operator gave, or else
// what is in the folder onnxruntime of the folder of models, or else the newest
// of the system.
//
// A given file that does not exist is an error that is not [ErrNotFound]: nothing
// else is used in its place.
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
	if path := newestOfSystem(); path != "" {
		return path, nil
	}
	places = append(places, systemName+"* of the system (ldconfig -p)")
	return "", fmt.Errorf("%w: looked for %s; sightmesh models pull onnxruntime (make onnxruntime) installs it",
		ErrNotFound, strings.Join(places, ", then "))
}

// systemName is what the names of the library in Debian 13 and others begin with.
const systemName = "libonnxruntime.so.1"

// newestOfSystem returns the path of the newest library that the system's loader
// knows, or "".
func newestOfSystem() string {
	// By its path: the folder is not in the PATH of an ordinary user of Debian.
	list, err := exec.Command("/sbin/ldconfig", "-p").Output()
	if err != nil {
		return "" // a system without glibc's loader
	}
	return newestOf(string(list))
}

// newestOf reads what ldconfig -p prints: the newest version of a library first.
func newestOf(list string) string {
	for line := range strings.Lines(list) {
		if name, path, ok := strings.Cut(line, " => "); ok && strings.HasPrefix(strings.TrimSpace(name), systemName) {
			return strings.TrimSpace(path)
		}
	}
	return ""
}
