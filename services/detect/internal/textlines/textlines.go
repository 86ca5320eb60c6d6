// Package textlines puts the ink of a picture together to lines of text. It is
// pure geometry: what comes in are the connected components of a binarised
// picture, what goes out are boxes in reading order.
//
// A line is a run of components of about the same height that stand side by
// side; what is smaller (dots, commas, strokes of a Chinese character) joins
// the line that it stands in. What does not look like a line, because too few
// components make it or they fill it too much or too little, is left out, so
// that noise and photos give few lines.
package textlines

import (
	"cmp"
	"image"
	"slices"
)

// Component is a connected piece of ink.
type Component struct {
	Box  image.Rectangle
	Area int // pixels of ink
}

// Line is a line of text.
type Line struct {
	Box image.Rectangle
	// Score, from 0 to 1, says how much it looks like one.
	Score float64
}

// Limits of what is looked at. A picture with more pieces of ink than this is
// noise, and would take long.
const maxComponents = 30_000

const minHeight = 6 // pixels of the smallest letter that is read

// Find puts components together to lines, in no particular order. size is that
// of the picture.
func Find(components []Component, size image.Point) []Line {
	if len(components) > maxComponents {
		return nil
	}
	letters, marks := sortOut(components, size)
	groups := chain(letters)
	groups = adopt(merge(groups))
	attach(groups, marks)
	var lines []Line
	for _, g := range groups {
		if s := g.score(); s > 0 {
			lines = append(lines, Line{Box: g.box, Score: s})
		}
	}
	return lines
}

// sortOut tells letters from smaller marks and drops what is neither.
func sortOut(components []Component, size image.Point) (letters, marks []Component) {
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

// group is a line in the making.
type group struct {
	box     image.Rectangle
	heights []int
	area    int // ink
	core    image.Rectangle
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

// chain joins letters that stand side by side.
func chain(letters []Component) []*group {
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
			if sideBySide(a.Box, letters[j].Box) {
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

// sideBySide reports whether two letters can be neighbours in a line.
func sideBySide(a, b image.Rectangle) bool {
	small, large := min(a.Dy(), b.Dy()), max(a.Dy(), b.Dy())
	if large > 3*small {
		return false
	}
	overlap := min(a.Max.Y, b.Max.Y) - max(a.Min.Y, b.Min.Y)
	gap := max(a.Min.X, b.Min.X) - min(a.Max.X, b.Max.X)
	return 2*overlap >= small && 2*gap <= 3*large
}

// merge joins pieces of one line that stand further apart, such as words
// behind a wide space, or that lie over each other.
func merge(groups []*group) []*group {
	for again := true; again; {
		again = false
		slices.SortFunc(groups, func(a, b *group) int { return cmp.Compare(a.box.Min.Y, b.box.Min.Y) })
		for i := 0; i < len(groups); i++ {
			a := groups[i]
			for j := i + 1; j < len(groups) && groups[j].box.Min.Y < a.box.Max.Y; j++ {
				if b := groups[j]; sameLine(a, b) {
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

func sameLine(a, b *group) bool {
	small, large := min(a.box.Dy(), b.box.Dy()), max(a.box.Dy(), b.box.Dy())
	overlap := min(a.box.Max.Y, b.box.Max.Y) - max(a.box.Min.Y, b.box.Min.Y)
	gap := max(a.box.Min.X, b.box.Min.X) - min(a.box.Max.X, b.box.Max.X)
	if gap < 0 { // over each other: a stroke, or the inside of a letter
		return 10*overlap >= 7*small
	}
	return 10*overlap >= 6*small && large <= 2*small && gap <= 3*large
}

// adopt gives what is too large for a mark and too small for a line of its
// own, such as a closing quote or a Chinese full stop, to the line it stands
// in.
func adopt(groups []*group) []*group {
	slices.SortFunc(groups, func(a, b *group) int { return cmp.Compare(b.box.Dy(), a.box.Dy()) })
	var kept []*group
	for _, small := range groups {
		i := slices.IndexFunc(kept, func(g *group) bool {
			return 10*small.box.Dy() <= 7*g.box.Dy() && small.box.Dx() <= 2*g.box.Dy() && small.box.In(near(g.box))
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

// near is where something that belongs to a line can stand.
func near(line image.Rectangle) image.Rectangle {
	h := line.Dy()
	return image.Rect(line.Min.X-h, line.Min.Y-h/4, line.Max.X+h, line.Max.Y+h/4)
}

// attach adds marks to the lines that they stand in: as high as the line or a
// little below it, and close.
func attach(groups []*group, marks []Component) {
	for _, g := range groups {
		g.core = g.box
	}
	slices.SortFunc(groups, func(a, b *group) int { return cmp.Compare(a.core.Min.Y, b.core.Min.Y) })
	for _, m := range marks {
		for _, g := range groups {
			h := g.core.Dy()
			if g.core.Min.Y-h/2 > m.Box.Max.Y {
				break // the lines below are further away still
			}
			if m.Box.In(near(g.core)) {
				g.box = g.box.Union(m.Box)
				g.area += m.Area
				break
			}
		}
	}
}

// score says how much a group looks like text; 0 is not at all.
func (g *group) score() float64 {
	w, h := g.box.Dx(), g.box.Dy()
	n := len(g.heights)
	fill := float64(g.area) / float64(w*h)
	switch {
	case h < minHeight+1, fill < 0.05, fill > 0.85:
		return 0
	case n < 2 && (w < h || fill > 0.6): // one piece: letters that touch
		return 0
	case n < 3 && w < h:
		return 0
	}
	// Letters of a line are about equally high, the line not much higher.
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

// Order sorts lines as they are read: column by column where the page has
// columns, else from the top, and in one row from the left.
func Order(lines []Line) {
	if left, right, ok := columns(lines); ok {
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
		for j < len(lines) && inRow(lines[i:j], lines[j]) {
			j++
		}
		slices.SortFunc(lines[i:j], func(a, b Line) int { return cmp.Compare(a.Box.Min.X, b.Box.Min.X) })
		i = j
	}
}

// inRow reports whether a line stands beside each of a row: two lines below each other
// are two rows also next to something that is as high as both.
func inRow(row []Line, l Line) bool {
	return !slices.ContainsFunc(row, func(o Line) bool { return !sameRow(o.Box, l.Box) })
}

func sameRow(a, b image.Rectangle) bool {
	overlap := min(a.Max.Y, b.Max.Y) - max(a.Min.Y, b.Min.Y)
	return 2*overlap > min(a.Dy(), b.Dy())
}

// columns splits lines at a gutter that none of them crosses, when both sides
// are columns that stand beside each other: three lines or more, or two whose rows are
// not those of the other side, as on a sign. Two rows of two are read as rows.
func columns(lines []Line) (left, right []Line, ok bool) {
	const least = 2
	byLeft := slices.Clone(lines)
	slices.SortFunc(byLeft, func(a, b Line) int { return cmp.Compare(a.Box.Min.X, b.Box.Min.X) })
	edge := 0
	for i, l := range byLeft {
		left, right = byLeft[:i], byLeft[i:]
		if min(len(left), len(right)) >= least && l.Box.Min.X > edge && besideEachOther(left, right) &&
			(min(len(left), len(right)) > least || !sameRows(left, right)) {
			return slices.Clone(left), slices.Clone(right), true
		}
		edge = max(edge, l.Box.Max.X)
	}
	return nil, nil, false
}

// sameRows reports whether each line of the side with fewer lines stands in a row with
// just one of the other side.
func sameRows(a, b []Line) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	for _, l := range a {
		beside := 0
		for _, k := range b {
			if sameRow(l.Box, k.Box) {
				beside++
			}
		}
		if beside != 1 {
			return false
		}
	}
	return true
}

func besideEachOther(a, b []Line) bool {
	ea, eb := extent(a), extent(b)
	overlap := min(ea.Max.Y, eb.Max.Y) - max(ea.Min.Y, eb.Min.Y)
	return 2*overlap > min(ea.Dy(), eb.Dy())
}

func extent(lines []Line) image.Rectangle {
	var r image.Rectangle
	for _, l := range lines {
		r = r.Union(l.Box)
	}
	return r
}
