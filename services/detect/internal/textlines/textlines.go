// Package textlines groups the ink of an image into lines of text. It is pure geometry: the
// input is the connected components of a binarised image, the output is boxes, which it can
// sort into reading order.
//
// A line is a sequence of components of about the same height that are side by side. Smaller
// components (dots, commas, strokes of a Chinese character) are added to the line that they
// are in. Groups that do not look like a line are left out, because they have too few
// components or too much or too little ink. Noise and photos therefore give few lines.
package textlines

import (
	"cmp"
	"image"
	"slices"
)

// Component is a connected piece of ink.
type Component struct {
	Box  image.Rectangle
	Area int // number of pixels of ink
}

// Line is a line of text.
type Line struct {
	Box image.Rectangle
	// Score, from 0 to 1, says how much the box looks like a line of text.
	Score float64
}

// maxComponents limits the components of an image. An image with more of them is noise, and
// would take long.
const maxComponents = 30_000

// minHeight is the height of the smallest letter, in pixels.
const minHeight = 6

// Find groups components into lines, in no particular order. size is the size of the image.
// An image with too many components has no lines.
func Find(components []Component, size image.Point) []Line {
	if len(components) > maxComponents {
		return nil
	}
	letters, marks := classifyComponents(components, size)
	groups := chainLetters(letters)
	groups = absorbSmallGroups(mergeGroups(groups))
	attachMarks(groups, marks)
	var lines []Line
	for _, g := range groups {
		if s := g.score(); s > 0 {
			lines = append(lines, Line{Box: g.box, Score: s})
		}
	}
	return lines
}

// classifyComponents divides components into letters and smaller marks, and leaves out the others.
func classifyComponents(components []Component, size image.Point) (letters, marks []Component) {
	for _, c := range components {
		w, h := c.Box.Dx(), c.Box.Dy()
		switch {
		case w <= 0 || h <= 0 || c.Area < 3:
		case h > size.Y*9/10 && h > 64, w > size.X*8/10 && w > 8*h, h > 20*w:
			// frames, rules and edges
		case h > size.Y/3 && w > size.X/3:
			// a shape, not a letter
		case h >= minHeight:
			letters = append(letters, c)
		case w <= 8*minHeight:
			marks = append(marks, c)
		}
	}
	return letters, marks
}

// group is a line that is being built.
type group struct {
	box     image.Rectangle
	heights []int           // of the letters
	area    int             // pixels of ink
	core    image.Rectangle // the box without marks
}

func (g *group) add(c Component) {
	g.box = g.box.Union(c.Box)
	g.heights = append(g.heights, c.Box.Dy())
	g.area += c.Area
}

func (g *group) absorb(o *group) {
	g.box = g.box.Union(o.box)
	g.heights = append(g.heights, o.heights...)
	g.area += o.area
}

func (g *group) medianHeight() int {
	h := slices.Clone(g.heights)
	slices.Sort(h)
	return h[len(h)/2]
}

// chainLetters groups letters that are side by side.
func chainLetters(letters []Component) []*group {
	slices.SortFunc(letters, func(a, b Component) int {
		return cmp.Or(cmp.Compare(a.Box.Min.X, b.Box.Min.X), cmp.Compare(a.Box.Min.Y, b.Box.Min.Y))
	})
	parent := make([]int, len(letters))
	for i := range parent {
		parent[i] = i
	}
	find := func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	for i, a := range letters {
		reach := a.Box.Max.X + 2*a.Box.Dy()
		for j := i + 1; j < len(letters) && letters[j].Box.Min.X <= reach; j++ {
			if areAdjacent(a.Box, letters[j].Box) {
				parent[find(j)] = find(i)
			}
		}
	}
	byRoot := map[int]*group{}
	var groups []*group
	for i, c := range letters {
		r := find(i)
		g, ok := byRoot[r]
		if !ok {
			g = &group{box: c.Box}
			byRoot[r] = g
			groups = append(groups, g)
		}
		g.add(c)
	}
	return groups
}

// areAdjacent reports whether two letters can be next to each other in a line.
func areAdjacent(a, b image.Rectangle) bool {
	small, large := min(a.Dy(), b.Dy()), max(a.Dy(), b.Dy())
	if large > 3*small {
		return false
	}
	overlap := min(a.Max.Y, b.Max.Y) - max(a.Min.Y, b.Min.Y)
	gap := max(a.Min.X, b.Min.X) - min(a.Max.X, b.Max.X)
	return 2*overlap >= small && 2*gap <= 3*large
}

// mergeGroups joins groups of one line that are further apart, such as words after a wide space,
// or that overlap.
func mergeGroups(groups []*group) []*group {
	for again := true; again; {
		again = false
		slices.SortFunc(groups, func(a, b *group) int { return cmp.Compare(a.box.Min.Y, b.box.Min.Y) })
		for i := 0; i < len(groups); i++ {
			a := groups[i]
			for j := i + 1; j < len(groups) && groups[j].box.Min.Y < a.box.Max.Y; j++ {
				if b := groups[j]; areInSameLine(a, b) {
					a.absorb(b)
					groups = slices.Delete(groups, j, j+1)
					j--
					again = true
				}
			}
		}
	}
	return groups
}

// areInSameLine reports whether two groups belong to one line.
func areInSameLine(a, b *group) bool {
	small, large := min(a.box.Dy(), b.box.Dy()), max(a.box.Dy(), b.box.Dy())
	overlap := min(a.box.Max.Y, b.box.Max.Y) - max(a.box.Min.Y, b.box.Min.Y)
	gap := max(a.box.Min.X, b.box.Min.X) - min(a.box.Max.X, b.box.Max.X)
	if gap < 0 { // they overlap: a stroke, or the inside of a letter
		return 10*overlap >= 7*small
	}
	return 10*overlap >= 6*small && large <= 2*small && gap <= 3*large
}

// absorbSmallGroups adds groups that are too large for a mark and too small for a line, such as a
// closing quote or a Chinese full stop, to the line that they are in.
func absorbSmallGroups(groups []*group) []*group {
	slices.SortFunc(groups, func(a, b *group) int { return cmp.Compare(b.box.Dy(), a.box.Dy()) })
	var kept []*group
	for _, small := range groups {
		i := slices.IndexFunc(kept, func(g *group) bool {
			return 10*small.box.Dy() <= 7*g.box.Dy() && small.box.Dx() <= 2*g.box.Dy() && small.box.In(surroundings(g.box))
		})
		if i < 0 {
			kept = append(kept, small)
			continue
		}
		kept[i].box = kept[i].box.Union(small.box)
		kept[i].area += small.area
	}
	return kept
}

// surroundings returns the area around a line in which components can belong to it.
func surroundings(line image.Rectangle) image.Rectangle {
	h := line.Dy()
	return image.Rect(line.Min.X-h, line.Min.Y-h/4, line.Max.X+h, line.Max.Y+h/4)
}

// attachMarks adds marks to the lines that they are in or close to.
func attachMarks(groups []*group, marks []Component) {
	for _, g := range groups {
		g.core = g.box
	}
	slices.SortFunc(groups, func(a, b *group) int { return cmp.Compare(a.core.Min.Y, b.core.Min.Y) })
	for _, m := range marks {
		for _, g := range groups {
			h := g.core.Dy()
			if g.core.Min.Y-h/2 > m.Box.Max.Y {
				break // the lines below are even further away
			}
			if m.Box.In(surroundings(g.core)) {
				g.box = g.box.Union(m.Box)
				g.area += m.Area
				break
			}
		}
	}
}

// score returns how much a group looks like text, from 0 (not at all) to 1.
func (g *group) score() float64 {
	w, h := g.box.Dx(), g.box.Dy()
	n := len(g.heights)
	fill := float64(g.area) / float64(w*h)
	switch {
	case h < minHeight+1, fill < 0.05, fill > 0.85:
		return 0
	case n < 2 && (w < h || fill > 0.6): // one component can be several letters that touch
		return 0
	case n < 3 && w < h:
		return 0
	}
	// The letters of a line have about the same height, and the line is not much higher.
	med := g.medianHeight()
	even := 0
	for _, x := range g.heights {
		if 2*x >= med && x <= 2*med {
			even++
		}
	}
	s := float64(even) / float64(n)
	if h > 3*med {
		s *= 3 * float64(med) / float64(h)
	}
	if n < 4 {
		s *= 0.5 + 0.125*float64(n)
	}
	if s < 0.4 {
		return 0
	}
	return s
}

// Order sorts lines into reading order: column by column if the page has columns, otherwise
// row by row from the top, and from the left within a row.
func Order(lines []Line) {
	if left, right, ok := splitColumns(lines); ok {
		Order(left)
		Order(right)
		copy(lines, slices.Concat(left, right))
		return
	}
	slices.SortFunc(lines, func(a, b Line) int {
		return cmp.Or(cmp.Compare(a.Box.Min.Y, b.Box.Min.Y), cmp.Compare(a.Box.Min.X, b.Box.Min.X))
	})
	for i := 0; i < len(lines); {
		j := i + 1
		for j < len(lines) && isInRow(lines[i:j], lines[j]) {
			j++
		}
		slices.SortFunc(lines[i:j], func(a, b Line) int { return cmp.Compare(a.Box.Min.X, b.Box.Min.X) })
		i = j
	}
}

// isInRow reports whether a line is beside each line of a row. Two lines below each other are
// two rows, even beside a line that is as high as both.
func isInRow(row []Line, l Line) bool {
	return !slices.ContainsFunc(row, func(o Line) bool { return !areInSameRow(o.Box, l.Box) })
}

// areInSameRow reports whether two boxes are beside each other.
func areInSameRow(a, b image.Rectangle) bool {
	overlap := min(a.Max.Y, b.Max.Y) - max(a.Min.Y, b.Min.Y)
	return 2*overlap > min(a.Dy(), b.Dy())
}

// splitColumns splits lines at a gutter that no line crosses, if both sides are columns beside
// each other. A column has three lines or more, or two lines that do not form rows with the
// lines of the other side, as on a sign. Two rows of two lines are not columns.
func splitColumns(lines []Line) (left, right []Line, ok bool) {
	const least = 2
	byLeft := slices.Clone(lines)
	slices.SortFunc(byLeft, func(a, b Line) int { return cmp.Compare(a.Box.Min.X, b.Box.Min.X) })
	edge := 0
	for i, l := range byLeft {
		left, right = byLeft[:i], byLeft[i:]
		if min(len(left), len(right)) >= least && l.Box.Min.X > edge && areSideBySide(left, right) &&
			(min(len(left), len(right)) > least || !haveSameRows(left, right)) {
			return slices.Clone(left), slices.Clone(right), true
		}
		edge = max(edge, l.Box.Max.X)
	}
	return nil, nil, false
}

// haveSameRows reports whether each line of the side with fewer lines is beside exactly one line
// of the other side.
func haveSameRows(a, b []Line) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	for _, l := range a {
		beside := 0
		for _, k := range b {
			if areInSameRow(l.Box, k.Box) {
				beside++
			}
		}
		if beside != 1 {
			return false
		}
	}
	return true
}

// areSideBySide reports whether the extents of two groups of lines overlap vertically by
// more than half of the lower one.
func areSideBySide(a, b []Line) bool {
	ea, eb := extent(a), extent(b)
	overlap := min(ea.Max.Y, eb.Max.Y) - max(ea.Min.Y, eb.Min.Y)
	return 2*overlap > min(ea.Dy(), eb.Dy())
}

// extent returns the smallest rectangle around lines.
func extent(lines []Line) image.Rectangle {
	var r image.Rectangle
	for _, l := range lines {
		r = r.Union(l.Box)
	}
	return r
}
