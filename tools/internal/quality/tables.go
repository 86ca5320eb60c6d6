package quality

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/machine"
)

// none is the cell of a value that does not apply.
const none = "–"

// tables returns the three tables: pipelines, targets and images.
func tables(all []measured, images []Image, targets []target) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s with %d images, one at a time. The time is that of the lanes of one core of %s.\n\n",
		time.Now().UTC().Format(time.DateOnly), len(images), machine.Processor())
	writeSummary(&b, all, images)
	b.WriteString("\n| target | wanted | measured | met |\n|---|---|---|---|\n")
	for _, t := range targets {
		met := "yes"
		if !t.met {
			met = "**no**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", t.name, t.want, t.measured, met)
	}
	b.WriteString("\n")
	writeImageTable(&b, all, images)
	return b.String()
}

// writeSummary writes a row for each pipeline and set of images with expected results.
func writeSummary(b *strings.Builder, all []measured, images []Image) {
	b.WriteString("| pipeline | models | images | expected | found | false | precision | recall " +
		"| text error, in any order | text error, strict | mesh = lanes alone | ms an image |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, m := range all {
		if m.reason != "" {
			fmt.Fprintf(b, "| `%s` | %s: %s |%s\n", m.Name, notServed, m.reason, strings.Repeat(" |", 10))
			continue
		}
		for _, set := range setsOf(images) {
			writeSummaryRow(b, m, set)
		}
	}
}

func writeSummaryRow(b *strings.Builder, m measured, set string) {
	var s Score
	scored, compared, agreed, millis := 0, 0, 0, 0.0
	var models []v1.Model
	for _, a := range m.results {
		if a.image.Set != set {
			continue
		}
		compared++
		millis += a.millis
		if a.agree {
			agreed++
		}
		for _, model := range a.mesh.Models {
			if !slices.Contains(models, model) {
				models = append(models, model)
			}
		}
		if a.scored {
			scored++
			s.add(a.score)
		}
	}
	if scored == 0 {
		return
	}
	fmt.Fprintf(b, "| `%s` | %s | %d of %s | %d | %d | %s | %s | %s | %s | %d of %d | %.0f |\n",
		m.Name, modelNames(models), scored, set, s.Expected, s.Found, s.falseCell(),
		share(s.Found, s.Found+s.False), share(s.Found, s.Expected), s.textCells(),
		agreed, compared, millis/float64(max(1, compared)))
}

// writeImageTable writes a row for each image with a score, and a column for each pipeline.
func writeImageTable(b *strings.Builder, all []measured, images []Image) {
	all = slices.DeleteFunc(slices.Clone(all), func(m measured) bool { return m.reason != "" })
	b.WriteString("| image |")
	for _, m := range all {
		fmt.Fprintf(b, " `%s`", m.Name)
		if m.Finds == text {
			b.WriteString(": error in any order, strict |")
		} else {
			b.WriteString(": found of expected |")
		}
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(all)) + "\n")
	for i, img := range images {
		fmt.Fprintf(b, "| %s |", img.Name)
		for _, m := range all {
			fmt.Fprintf(b, " %s |", m.results[i].cell(m.Finds))
		}
		b.WriteString("\n")
	}
}

// cell returns the result in the table of images.
func (a imageResult) cell(finds kind) string {
	switch {
	case a.mesh.Problem != nil:
		return "problem `" + string(a.mesh.Problem.Code) + "`"
	case !a.scored:
		return none
	case finds == text:
		strict := none
		if a.score.Text.StrictChars > 0 {
			strict = share(a.score.Text.Strict, a.score.Text.StrictChars)
		}
		return share(a.score.Text.AnyOrder, a.score.Text.Chars) + ", " + strict
	case a.score.Expected == 0 && a.score.False == 0:
		return none
	}
	cell := fmt.Sprintf("%d of %d", a.score.Found, a.score.Expected)
	if a.score.False > 0 {
		cell += ", false: " + a.score.falseCell()
	}
	return cell
}

func (s Score) falseCell() string {
	if s.AnimalFaces > 0 {
		return fmt.Sprintf("%d (%d of animals)", s.False, s.AnimalFaces)
	}
	return fmt.Sprint(s.False)
}

func (s Score) textCells() string {
	if s.Text == nil {
		return none + " | " + none
	}
	cell := func(wrong, chars int) string {
		if chars == 0 {
			return none
		}
		return fmt.Sprintf("%s of %d", percent(ratio(wrong, chars)), chars)
	}
	return cell(s.Text.AnyOrder, s.Text.Chars) + " | " + cell(s.Text.Strict, s.Text.StrictChars)
}

func share(n, of int) string {
	if of == 0 {
		return none
	}
	return percent(ratio(n, of))
}

func modelNames(models []v1.Model) string {
	if len(models) == 0 {
		return none
	}
	names := make([]string, 0, len(models))
	for _, m := range models {
		names = append(names, strings.TrimSpace(m.Name+" "+m.Version))
	}
	return strings.Join(names, ", ")
}

// setsOf returns the sets of the images, in the order of the images.
func setsOf(images []Image) []string {
	var sets []string
	for _, img := range images {
		if !slices.Contains(sets, img.Set) {
			sets = append(sets, img.Set)
		}
	}
	return sets
}
