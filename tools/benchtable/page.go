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

// writePage writes sections to standard output, or into a file, where they replace the sections with the same names.
// The file keeps its head and its other sections. When all sections are measured, the head is new.
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

// page replaces sections of an old page.
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

// endOfSections is the line between the sections and the text below them, which is
// written by hand and stays.
const endOfSections = "\n<!-- end of make bench -->\n"

// heading returns the beginning of the heading of a section.
func heading(name byte) string { return fmt.Sprintf("\n## (%c)", name) }

func head() string {
	return fmt.Sprintf(`# Performance

This page compares the mesh with its baselines. %s wrote sections (a) to (g) on %s: %d x %s,
%s. Section (h) has its own date. All processes ran on one machine, including the load. Go programs other than the
load used half of the cores ([ADR 0006](adr/0006-what-the-mesh-adds.md)). Each row has its baseline of the same run.
Compare the ratios; the times depend on the machine and its other work. Differences of up to 15 %% are noise, also
where the mesh or tracing seems to save time. The *floor* is a bare JetStream pipeline with three stored messages
(`+"`sightmesh bench floor`"+`) on the same server.
`, "`make bench`", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), machine.Processor(), runtime.Version())
}
