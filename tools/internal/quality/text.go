package quality

import (
	"strings"

	"golang.org/x/text/unicode/norm"
)

// folds replaces characters that look like an ASCII character. NFKC keeps them, or replaces
// them by several characters.
var folds = strings.NewReplacer(
	"“", `"`, "”", `"`, "„", `"`, "‟", `"`, "«", `"`, "»", `"`, "「", `"`, "」", `"`, "『", `"`, "』", `"`,
	"‘", "'", "’", "'", "‚", "'", "‛", "'", "´", "'", "`", "'", "′", "'",
	"‐", "-", "‑", "-", "‒", "-", "–", "-", "—", "-", "―", "-", "−", "-",
	"。", ".", "｡", ".", "、", ",", "､", ",", "•", "·", "・", "·",
)

// normalize returns s with compatible characters, quotes, dashes and full stops folded,
// and single spaces.
func normalize(s string) string {
	return strings.Join(strings.Fields(norm.NFKC.String(folds.Replace(s))), " ")
}

// squeeze normalizes s and removes its spaces.
func squeeze(s string) []rune { return []rune(strings.ReplaceAll(normalize(s), " ", "")) }

// distance returns the smallest number of insertions, deletions and replacements of
// characters that changes a to b.
func distance(a, b []rune) int {
	row := edits(a, b, false)
	return row[len(b)]
}

// distanceWithin returns the distance of a from the most similar piece of b.
func distanceWithin(a, b []rune) int {
	best := len(a)
	for _, d := range edits(a, b, true) {
		best = min(best, d)
	}
	return best
}

// edits returns, for each end in b, the distance of a from the piece of b before that end.
// The piece begins at the beginning of b or, with anywhere, at the best place.
func edits(a, b []rune, anywhere bool) []int {
	row := make([]int, len(b)+1)
	if !anywhere {
		for j := range row {
			row[j] = j
		}
	}
	for i, r := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j, s := range b {
			replaced := diagonal
			if r != s {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j+1]+1, row[j]+1)
		}
	}
	return row
}

// lineIsRead reports whether at most a fifth of the characters of a line are wrong.
func lineIsRead(errors, chars int) bool { return errors*5 <= chars }

// scoreText compares the lines of a result with the expected lines.
func scoreText(e Expected, read []string) Score {
	s := Score{Text: &TextErrors{}}
	lines, whole := e.Text, true
	if len(lines) == 0 {
		lines, whole = e.TextContains, false
	}
	got := squeeze(strings.Join(read, "\n"))
	for _, line := range lines {
		want := squeeze(line)
		wrong := distanceWithin(want, got)
		s.Expected++
		if lineIsRead(wrong, len(want)) {
			s.Found++
		}
		s.Text.Chars += len(want)
		s.Text.AnyOrder += wrong
	}
	if !whole {
		return s
	}
	text := squeeze(strings.Join(lines, "\n"))
	for _, line := range read {
		if got := squeeze(line); len(got) > 0 && !lineIsRead(distanceWithin(got, text), len(got)) {
			s.False++
		}
	}
	s.Text.StrictChars, s.Text.Strict = strictErrors(e, read)
	return s
}

// strictErrors returns the number of expected characters, spaces included, and the
// distance of the result from the reading order that is most like it.
func strictErrors(e Expected, read []string) (chars, wrong int) {
	got := []rune(normalize(strings.Join(read, "\n")))
	for i, lines := range e.readingOrders() {
		want := []rune(normalize(strings.Join(lines, "\n")))
		if d := distance(want, got); i == 0 || d < wrong {
			chars, wrong = len(want), d
		}
	}
	return chars, wrong
}
