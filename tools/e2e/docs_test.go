package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocs_NATSCommands tests the row "Docs" of shared/cases. A documented command
// that sends a file sends its bytes unchanged, also on a terminal, and a command that
// needs the name of a service has it. TestClientsNATS runs the commands of
// docs/nats.md.
func TestDocs_NATSCommands(t *testing.T) {
	t.Parallel()
	files := []string{"README.md", filepath.Join("tools", "internal", "up", "show.go")}
	err := filepath.WalkDir(filepath.Join(root(t), "docs"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			rel, relErr := filepath.Rel(root(t), path)
			if relErr != nil {
				return relErr
			}
			files = append(files, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	fromFile := regexp.MustCompile(`\bnats (-s \S+ )?(req|request|pub|publish) .*<`)
	withService := regexp.MustCompile(`\bnats (?:micro|service) (?:info|stats)\b *([a-z]*)`)
	commands := 0
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(root(t), file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if fromFile.MatchString(line) {
				commands++
				for _, flag := range []string{" --no-templates ", " --force-stdin "} {
					if !strings.Contains(line, flag) {
						t.Errorf("%s: no%sin %s", file, flag, line)
					}
				}
			}
			for _, m := range withService.FindAllStringSubmatch(line, -1) {
				if !slices.Contains(services, m[1]) {
					t.Errorf("%s: %q has no name of a service", file, m[0])
				}
			}
		}
	}
	if commands < 4 {
		t.Errorf("%d commands send a file, want at least 4", commands)
	}
}

// TestDocs_LaneCommands runs the commands of docs/lanes.md and docs/debugging.md that read docs/lanes/red.bmp.
// Their output has the lines of the pages, apart from times.
func TestDocs_LaneCommands(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("the lane program of docs/lanes needs python3")
	}
	for page, pattern := range map[string]string{
		"lanes.md":     "(?m)^\\$ bin/sightmesh (pipelines check .*red\\.bmp)\n((?:[^`].*\n)+)```",
		"debugging.md": `(?m)^    \$ bin/sightmesh (lane try .*red\.bmp)\n((?:    .*\n)+)    …`,
	} {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(filepath.Join(root(t), "docs", page))
			if err != nil {
				t.Fatal(err)
			}
			m := regexp.MustCompile(pattern).FindStringSubmatch(string(text))
			if m == nil {
				t.Fatalf("%s has no match of %s", page, pattern)
			}
			cmd := exec.Command(binary(t, "sightmesh"), strings.Fields(m[1])...)
			cmd.Dir = root(t)
			output, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", m[1], err, output)
			}
			got := map[string]bool{}
			for line := range strings.Lines(string(output)) {
				got[withoutMeasures(line)] = true
			}
			for line := range strings.Lines(m[2]) {
				if !got[withoutMeasures(line)] {
					t.Errorf("%s: the output of %s has no line %q:\n%s", page, m[1], line, output)
				}
			}
		})
	}
}

// withoutMeasures replaces the times, sizes and versions of OpenCV in a line, and joins its spaces.
func withoutMeasures(line string) string {
	line = regexp.MustCompile(`[0-9.]+ (ms|MiB)`).ReplaceAllString(line, "N $1")
	line = regexp.MustCompile(`opencv-[0-9.]+`).ReplaceAllString(line, "opencv")
	return strings.Join(strings.Fields(line), " ")
}

// TestDocs_FlagsOfLanes tests the row "Docs" of shared/cases. docs/operating.md has
// every flag of lanes.
func TestDocs_FlagsOfLanes(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n### Lanes\n")
	for _, service := range []string{"detect", "classify"} {
		usage, err := exec.Command(binary(t, service), "--help").CombinedOutput()
		if err != nil {
			t.Fatalf("%s --help: %v", service, err)
		}
		flags := regexp.MustCompile(`(?m)^ +-(lanes?\b\S*)`).FindAllStringSubmatch(string(usage), -1)
		if len(flags) < 4 {
			t.Errorf("%s --help has %d flags of lanes, want at least 4:\n%s", service, len(flags), usage)
		}
		for _, f := range flags {
			if !strings.Contains(section, "| `--"+f[1]+" ") {
				t.Errorf("docs/operating.md has no row for --%s of %s", f[1], service)
			}
		}
	}
}
