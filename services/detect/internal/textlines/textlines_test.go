package textlines

import (
	"encoding/binary"
	"image"
	"math/rand/v2"
	"slices"
	"testing"
)

// letter returns a component that fills half of its box.
func letter(x, y, w, h int) Component {
	return Component{Box: image.Rect(x, y, x+w, y+h), Area: w * h / 2}
}

// word returns letters of 10 x h pixels side by side. The first one is at x, y.
func word(x, y, h, letters int) []Component {
	var out []Component
	for i := range letters {
		out = append(out, letter(x+14*i, y, 10, h))
	}
	return out
}

var page = image.Pt(800, 600)

func boxes(lines []Line) []image.Rectangle {
	out := make([]image.Rectangle, len(lines))
	for i, l := range lines {
		out[i] = l.Box
	}
	return out
}

func TestFind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		ink  []Component
		want []image.Rectangle
	}{
		{"nothing", nil, nil},
		{"a word", word(100, 100, 20, 5), []image.Rectangle{image.Rect(100, 100, 166, 120)}},
		{
			"words behind spaces",
			slices.Concat(word(100, 100, 20, 4), word(180, 100, 20, 4), word(280, 100, 20, 3)),
			[]image.Rectangle{image.Rect(100, 100, 318, 120)},
		},
		{
			"two lines",
			slices.Concat(word(100, 100, 20, 5), word(100, 140, 20, 5)),
			[]image.Rectangle{image.Rect(100, 100, 166, 120), image.Rect(100, 140, 166, 160)},
		},
		{
			"far apart is not a line",
			slices.Concat(word(100, 100, 20, 5), word(500, 100, 20, 5)),
			[]image.Rectangle{image.Rect(100, 100, 166, 120), image.Rect(500, 100, 566, 120)},
		},
		{
			"a full stop and an accent",
			slices.Concat(word(100, 100, 20, 5), []Component{letter(170, 117, 3, 3), letter(102, 97, 4, 2)}),
			[]image.Rectangle{image.Rect(100, 97, 173, 120)},
		},
		{
			"a closing quote",
			slices.Concat(word(100, 100, 24, 5), []Component{letter(170, 100, 3, 8), letter(175, 100, 3, 8)}),
			[]image.Rectangle{image.Rect(100, 100, 178, 124)},
		},
		{
			"a Chinese full stop",
			slices.Concat(word(100, 100, 30, 5), []Component{letter(172, 120, 9, 9)}),
			[]image.Rectangle{image.Rect(100, 100, 181, 130)},
		},
		{"a frame and a rule", []Component{letter(5, 5, 790, 590), letter(50, 300, 700, 3)}, nil},
		{"a stain", []Component{letter(100, 100, 300, 250)}, nil},
		{"one dot", []Component{letter(100, 100, 4, 4)}, nil},
		{"a solid bar", []Component{{Box: image.Rect(100, 100, 200, 120), Area: 2000}}, nil},
	} {
		got := boxes(Find(tt.ink, page))
		slices.SortFunc(got, func(a, b image.Rectangle) int { return (a.Min.Y-b.Min.Y)*1000 + a.Min.X - b.Min.X })
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestFind_NoiseHasNoLines checks that an image of noise has no lines: it must neither take long
// nor give the classifier a thousand lines.
func TestFind_NoiseHasNoLines(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var ink []Component
	for range maxComponents + 1 {
		ink = append(ink, letter(r.IntN(1200), r.IntN(700), 1+r.IntN(9), 1+r.IntN(9)))
	}
	if got := Find(ink, image.Pt(1280, 720)); got != nil {
		t.Errorf("%d lines of noise", len(got))
	}
}

func lines(r ...image.Rectangle) []Line {
	out := make([]Line, len(r))
	for i := range r {
		out[i] = Line{Box: r[i]}
	}
	return out
}

func TestOrder(t *testing.T) {
	t.Parallel()
	row := func(x, y int) image.Rectangle { return image.Rect(x, y, x+200, y+20) }
	for _, tt := range []struct {
		name string
		want []Line // in reading order
	}{
		{"from the top", lines(row(10, 10), row(10, 50), row(10, 90))},
		{"one row from the left", lines(
			image.Rect(10, 12, 60, 30), image.Rect(80, 8, 140, 32), image.Rect(160, 14, 200, 28), row(10, 50),
		)},
		{"two columns", lines(row(10, 10), row(10, 50), row(10, 90), row(300, 10), row(300, 50), row(300, 90))},
		{"a table of two rows is not columns", lines(row(10, 10), row(300, 10), row(10, 50), row(300, 50))},
		{"a sign of three blocks", lines(
			image.Rect(84, 80, 134, 126), image.Rect(74, 121, 137, 157), image.Rect(74, 169, 129, 215),
			image.Rect(178, 74, 468, 163), image.Rect(227, 172, 417, 211),
			image.Rect(512, 77, 569, 129), image.Rect(510, 120, 574, 157), image.Rect(529, 171, 570, 216),
		)},
		{"two lines beside one high line", lines(row(10, 12), image.Rect(300, 10, 350, 62), row(8, 38))},
		{"a headline over columns keeps rows", lines(
			image.Rect(10, 0, 500, 20), row(10, 40), row(300, 40), row(10, 80), row(300, 80), row(10, 120), row(300, 120),
		)},
	} {
		for seed := range uint64(5) {
			got := slices.Clone(tt.want)
			rand.New(rand.NewPCG(seed, 0)).Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
			Order(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.name, boxes(got), boxes(tt.want))
			}
		}
	}
}

func FuzzFindAndOrder(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Fuzz(func(t *testing.T, data []byte) {
		var ink []Component
		for ; len(data) >= 8; data = data[8:] {
			x, y := int(binary.LittleEndian.Uint16(data))%page.X, int(binary.LittleEndian.Uint16(data[2:]))%page.Y
			box := image.Rect(x, y, min(page.X, x+int(data[4])), min(page.Y, y+int(data[5])))
			ink = append(ink, Component{Box: box, Area: int(data[6]) * int(data[7])})
		}
		found := Find(ink, page)
		for _, l := range found {
			if l.Box.Empty() {
				t.Errorf("the line %+v is empty", l)
			}
			if !l.Box.In(image.Rectangle{Max: page}) {
				t.Errorf("the line %+v is not inside the page", l)
			}
			if l.Score <= 0 || l.Score > 1 {
				t.Errorf("the score of line %+v is not above 0 and at most 1", l)
			}
		}
		ordered := slices.Clone(found)
		Order(ordered)
		for _, l := range found {
			if !slices.Contains(ordered, l) {
				t.Errorf("%+v was lost by ordering", l)
			}
		}
	})
}

func BenchmarkFind(b *testing.B) {
	var ink []Component
	for y := range 26 {
		for x := range 10 {
			ink = append(ink, word(20+x*110, 20+y*40, 20, 6)...)
		}
	}
	for b.Loop() {
		if got := Find(slices.Clone(ink), image.Pt(1240, 1264)); len(got) != 26 {
			b.Fatalf("%d lines", len(got))
		}
	}
}
