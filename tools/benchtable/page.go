package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/sightmesh/sightmesh/tools/internal/machine"
)

// writePage writes sections into a file, in place of those that it has of the same names, or to standard output. The
// others of the file stay, with its head; a page of all rows has a new one.
func writePage(file string, sections map[byte]string) error {
	if file == "" {
		_, err := io.WriteString(os.Stdout, page(sections, ""))
		return err
	}
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write the page: %w", err)
	}
	if err := os.WriteFile(file, []byte(page(sections, string(old))), 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// page puts sections into the place of those of an old page.
func page(sections map[byte]string, old string) string {
	before, _, _ := strings.Cut(old, "\n## (")
	if before == "" || len(sections) == len(rowNames) {
		before = head()
	}
	for i := range len(rowNames) {
		section, ok := sections[rowNames[i]]
		if at := strings.Index(old, heading(rowNames[i])); !ok && at >= 0 {
			section = old[at:]
			if end := strings.Index(section[1:], "\n## ("); end >= 0 {
				section = section[:1+end]
			}
		}
		before += section
	}
	return before
}

// heading is what the section of a row begins with.
func heading(name byte) string { return fmt.Sprintf("\n## (%c)", name) }

func head() string {
	return fmt.Sprintf(`# Performance

Written by %s on %s: %d x %s, %s, every process on this machine, the load too; Go
programs but the load have half of the cores (ADR 0006). Each row stands beside its
baseline of the same run; the ratios are what to compare, the times are those of this machine in this hour. The *floor* is the bare
three-hop JetStream pipeline (`+"`sightmesh bench floor`"+`) on the same server.
`, "`make bench`", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), machine.Processor(), runtime.Version())
}
