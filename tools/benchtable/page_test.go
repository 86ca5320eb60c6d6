package main

import (
	"strings"
	"testing"
)

// TestPage_ReplacesMeasuredSections checks that the head and the other sections of the old page stay, in the order of
// the rows.
func TestPage_ReplacesMeasuredSections(t *testing.T) {
	t.Parallel()
	const old = "# Performance\n\nOld head.\n\n## (a) Old\n\n1\n\n## (g) Old\n\n2\n"
	for name, tt := range map[string]struct {
		sections map[byte]string
		want     string
	}{
		"last": {
			map[byte]string{'g': "\n## (g) New\n\n3\n"},
			"# Performance\n\nOld head.\n\n## (a) Old\n\n1\n\n## (g) New\n\n3\n",
		},
		"first": {
			map[byte]string{'a': "\n## (a)\n\nNot measured: why\n"},
			"# Performance\n\nOld head.\n\n## (a)\n\nNot measured: why\n\n## (g) Old\n\n2\n",
		},
		"new": {
			map[byte]string{'b': "\n## (b) New\n\n3\n"},
			"# Performance\n\nOld head.\n\n## (a) Old\n\n1\n\n## (b) New\n\n3\n\n## (g) Old\n\n2\n",
		},
	} {
		if got := page(tt.sections, old); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// TestPage_KeepsNotes checks that text behind the sections stays when every
// section is new.
func TestPage_KeepsNotes(t *testing.T) {
	t.Parallel()
	const notes = endOfSections + "\n## Notes\n\n## (x) Not a row\n"
	sections := map[byte]string{}
	for i := range len(rowNames) {
		sections[rowNames[i]] = heading(rowNames[i]) + " New\n"
		got := page(sections, "# Performance\n\nOld head.\n\n## (a) Old\n\n## (h) Old\n"+notes)
		if !strings.HasSuffix(got, notes) {
			t.Errorf("with %d new sections the page ends with %q, want %q", i+1, got[max(0, len(got)-len(notes)):], notes)
		}
		if n := strings.Count(got, endOfSections); n != 1 {
			t.Errorf("with %d new sections the page has %d ends of its sections, want 1", i+1, n)
		}
	}
}

func TestPage_AllRowsHaveANewHeader(t *testing.T) {
	t.Parallel()
	sections := map[byte]string{}
	var want strings.Builder
	for i := range len(rowNames) {
		sections[rowNames[i]] = heading(rowNames[i]) + "\n"
		want.WriteString(sections[rowNames[i]])
	}
	got := page(sections, "# Performance\n\nOld head.\n\n## (a) Old\n")
	if strings.Contains(got, "Old") {
		t.Errorf("the page has a part of the old page: %q", got)
	}
	if !strings.HasPrefix(got, "# Performance\n\nThis page compares the mesh with its baselines. `make bench` wrote ") {
		t.Errorf("the page begins with %.60q", got)
	}
	if !strings.HasSuffix(got, want.String()) {
		t.Errorf("the page does not end with the measured sections: %q", got)
	}
}
