package quality

import (
	"cmp"
	"slices"
	"strings"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Score compares the result of a pipeline with the expectation of an image. It can be the
// sum for several images.
type Score struct {
	Expected int // faces, objects, codes or lines of text
	Found    int // how many of them were found
	False    int // results that are not expected
	// AnimalFaces counts the false faces that are on animals.
	AnimalFaces int
	// Missed has the labels of which no object was found, each with its image.
	Missed []string
	// Text is nil when no text is expected.
	Text *TextErrors
}

// TextErrors has numbers of expected characters and of edits. The strict numbers are 0 when
// the whole text is not known.
type TextErrors struct {
	Chars       int `json:"chars"`
	AnyOrder    int `json:"any_order"`
	StrictChars int `json:"strict_chars"`
	Strict      int `json:"strict"`
}

// add adds o to s.
func (s *Score) add(o Score) {
	s.Expected += o.Expected
	s.Found += o.Found
	s.False += o.False
	s.AnimalFaces += o.AnimalFaces
	s.Missed = append(s.Missed, o.Missed...)
	if o.Text == nil {
		return
	}
	if s.Text == nil {
		s.Text = &TextErrors{}
	}
	s.Text.Chars += o.Text.Chars
	s.Text.AnyOrder += o.Text.AnyOrder
	s.Text.StrictChars += o.Text.StrictChars
	s.Text.Strict += o.Text.Strict
}

// score compares a result with the expectation of the image. It returns false when the
// image has no expectation for the pipeline.
func (p Pipeline) score(img Image, r v1.Result) (Score, bool) {
	e := img.Expected
	switch p.Finds {
	case text:
		if !e.hasText() {
			return Score{}, false
		}
		var lines []string
		if r.Text != nil {
			lines = strings.Split(strings.TrimSuffix(*r.Text, "\n"), "\n")
		}
		return scoreText(e, lines), true
	case faces:
		return scoreFaces(e, r.Regions)
	case objects:
		return scoreObjects(img.Name, e, r.Regions)
	default:
		return scoreCodes(e, r.Regions), true
	}
}

// scoreFaces scores every image, except images with persons whose faces are not listed.
func scoreFaces(e Expected, regions []v1.Region) (Score, bool) {
	persons := e.count("person")
	if e.Faces == nil && persons > 0 {
		return Score{}, false
	}
	var found []v1.Box
	for _, r := range regions {
		if r.Label == labelFace {
			found = append(found, r.Box)
		}
	}
	if e.Faces == nil {
		return Score{False: len(found), AnimalFaces: len(e.facesOnAnimals(found))}, true
	}
	matched, left := match(e.Faces.Boxes, found)
	return Score{
		Expected: len(e.Faces.Boxes), Found: matched, False: len(left), AnimalFaces: len(e.facesOnAnimals(left)),
	}, true
}

// animals are labels of COCO.
var animals = []string{"bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"}

// facesOnAnimals returns the boxes that have their centre in the box of an animal. If an
// animal is expected without its box, it returns every box.
func (e Expected) facesOnAnimals(found []v1.Box) []v1.Box {
	var on []v1.Box
	for _, b := range found {
		if slices.ContainsFunc(animals, func(animal string) bool {
			n := e.count(animal)
			boxes := e.boxes(animal)
			return n > 0 && (len(boxes) == 0 || slices.ContainsFunc(boxes, func(a box) bool { return hasCentre(a, b) }))
		}) {
			on = append(on, b)
		}
	}
	return on
}

// scoreObjects scores the images with expected objects. It counts the objects, because few
// images have a box for each. Objects with a label that is not expected are false, and so
// are objects above an exact number.
func scoreObjects(name string, e Expected, regions []v1.Region) (Score, bool) {
	labels := e.objectLabels()
	if len(labels) == 0 {
		return Score{}, false
	}
	left := map[string]int{}
	for _, r := range regions {
		left[r.Label]++
	}
	found := map[string]int{}
	match := func(label, as string) {
		want := e.count(label)
		n := min(left[as], want-found[label])
		found[label] += n
		left[as] -= n
	}
	for _, label := range labels { // the label itself, before its alternatives
		match(label, label)
	}
	for _, label := range labels {
		for _, as := range e.Alternatives[label] {
			match(label, as)
		}
	}
	var s Score
	for _, label := range labels {
		want := e.count(label)
		s.Expected += want
		s.Found += found[label]
		if found[label] == 0 {
			s.Missed = append(s.Missed, name+": "+label)
		}
	}
	for label := range e.AtLeast {
		delete(left, label)
	}
	for _, n := range left {
		s.False += n
	}
	return s, true
}

// scoreCodes scores every image. An image without expected codes has none.
func scoreCodes(e Expected, regions []v1.Region) Score {
	found := make([]v1.Box, 0, len(regions))
	texts := map[string]int{}
	for _, r := range regions {
		found = append(found, r.Box)
		texts[r.Text]++
	}
	want := e.count(labelCode)
	s := Score{Expected: max(want, len(e.Codes))}
	matched := min(s.Expected, len(found))
	if boxes := e.boxes(labelCode); len(boxes) == s.Expected {
		matched, _ = match(boxes, found)
	}
	s.False = len(found) - matched
	s.Found = matched
	read := 0
	for _, text := range e.Codes {
		if texts[text] > 0 {
			texts[text]--
			read++
		}
	}
	if len(e.Codes) > 0 {
		s.Found = min(s.Found, read)
	}
	return s
}

// match pairs expected boxes with found boxes. Boxes that overlap most are paired first. It
// returns the number of pairs, and the found boxes without a pair.
func match(want []box, found []v1.Box) (matched int, left []v1.Box) {
	type pair struct {
		want, found int
		overlap     float64
	}
	var pairs []pair
	for i, w := range want {
		for j, f := range found {
			if o := intersectionOverUnion(w, f); o >= leastOverlap || hasCentre(w, f) {
				pairs = append(pairs, pair{i, j, o})
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return cmp.Compare(b.overlap, a.overlap) })
	wanted, used := map[int]bool{}, map[int]bool{}
	for _, p := range pairs {
		if !wanted[p.want] && !used[p.found] {
			wanted[p.want], used[p.found] = true, true
		}
	}
	for j, f := range found {
		if !used[j] {
			left = append(left, f)
		}
	}
	return len(used), left
}

// leastOverlap is the smallest overlap of a region with an expected box that it finds.
const leastOverlap = 0.4

// intersectionOverUnion returns the intersection over union of two boxes.
func intersectionOverUnion(w box, f v1.Box) float64 {
	width := min(w[2], f.X+f.Width) - max(w[0], f.X)
	height := min(w[3], f.Y+f.Height) - max(w[1], f.Y)
	if width <= 0 || height <= 0 {
		return 0
	}
	both := width * height
	return float64(both) / float64((w[2]-w[0])*(w[3]-w[1])+f.Width*f.Height-both)
}

// hasCentre reports whether the centre of f is in w.
func hasCentre(w box, f v1.Box) bool {
	x, y := 2*f.X+f.Width, 2*f.Y+f.Height // in half pixels
	return x >= 2*w[0] && x <= 2*w[2] && y >= 2*w[1] && y <= 2*w[3]
}
