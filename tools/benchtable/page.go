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
	old, notes, hasNotes := strings.Cut(old, endOfSections)
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
	if hasNotes {
		before += endOfSections + notes
	}
	return before
}

// endOfSections separates the sections of the rows from text that is written by
// hand and stays.
const endOfSections = "\n<!-- end of make bench -->\n"

// heading is what the section of a row begins with.
func heading(name byte) string { return fmt.Sprintf("\n## (%c)", name) }

func head() string {
	return fmt.Sprintf(`# Performance

This page compares the mesh with its baselines. %s wrote the sections (a) to (h) on %s: %d x %s,
%s. All processes ran on one machine, including the load. Go programs other than the load used half of the cores
([ADR 0006](adr/0006-what-the-mesh-adds.md)). Each row has its baseline of the same run. Compare the ratios; the times
depend on the machine and its other work. The *floor* is a bare JetStream pipeline with three stored messages
(`+"`sightmesh bench floor`"+`) on the same server.
`, "`make bench`", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), machine.Processor(), runtime.Version())
}
