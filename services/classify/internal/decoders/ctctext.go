package decoders

import (
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// ctcText decodes networks that were trained with connectionist temporal classification
// (CTC; Graves and others, 2006), such as those of PP-OCR. For each step along a line of
// text they output the probabilities of blank, of each character of the dictionary, and of
// space. A step whose best class is blank, or that of the step before, adds no character.
type ctcText struct {
	names      []string
	characters []string
	threshold  float64
	space      float64
}

func newCTCText(m *model.Model, outputs []string, o Options) (Decoder, error) {
	if err := m.CheckNetwork("dictionary", "threshold", "output.space", "output.names"); err != nil {
		return nil, err
	}
	if len(m.Characters) == 0 {
		return nil, fmt.Errorf("dictionary: missing, want a file with a line for each character")
	}
	if o.Top != 0 {
		return nil, fmt.Errorf("top: not used by %s, which has no labels", CTCText)
	}
	d := &ctcText{characters: m.Characters, space: m.Output.Space}
	var err error
	if d.threshold, err = m.EffectiveThreshold(o.Threshold); err != nil {
		return nil, err
	}
	d.names, err = m.OnlyOutput(outputs)
	return d, err
}

func (d *ctcText) Outputs() []string { return d.names }

// Decode drops crops that are not text: lines with a score below the threshold, and lines
// without a letter or a digit.
func (d *ctcText) Decode(outputs []nets.Tensor, crop lane.Crop) (lane.CropLabel, error) {
	classes := len(d.characters) + 2
	out := outputs[0]
	if err := out.CheckShape(d.names[0], 1, -1, classes); err != nil {
		return lane.CropLabel{}, fmt.Errorf("%w: blank, %d characters of the dictionary, space", err, len(d.characters))
	}
	steps := out.Shape[1]
	var r reading
	for s := range steps {
		p := out.Data[s*classes : (s+1)*classes]
		at, score := nets.ArgMax(p)
		if score < 0 || score > 1.001 {
			return lane.CropLabel{}, fmt.Errorf("output %s has a value of %v, want probabilities", d.names[0], score)
		}
		r.addStep(s, d.character(at), score, float64(p[classes-1]), d.space)
	}
	label := lane.CropLabel{Score: roundScore(r.score())}
	text := strings.TrimSpace(r.text())
	if label.Score < d.threshold || !Readable(text) {
		label.Drop = true
		return label, nil
	}
	label.Text = text
	label.Words = r.words(steps, crop)
	return label, nil
}

// character returns the character of a class, or "" for blank.
func (d *ctcText) character(class int) string {
	switch class {
	case 0:
		return ""
	case len(d.characters) + 1:
		return " "
	}
	return d.characters[class-1]
}

// roundScore limits a score to 1 and rounds it to three decimals.
func roundScore(f float64) float64 { return math.Round(min(f, 1)*1000) / 1000 }

// Readable reports whether a text contains a letter or a digit. Texture is often read as
// strokes and dots.
func Readable(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) })
}

// letter is a character of a line.
type letter struct {
	text  string
	step  int
	score float64
}

// reading is a line that is being decoded.
type reading struct {
	letters []letter
	last    string  // character of the previous step, "" for blank
	space   float64 // largest probability of a space since the last letter
}

// addStep adds the character of step s, which is its best one. space is the probability of a
// space in this step. A probability above least means a space between two Latin letters
// although another character is more likely; a least of 0 disables this.
func (r *reading) addStep(s int, character string, score, space, least float64) {
	same := character == r.last
	r.last = character
	if character == "" || same {
		r.space = max(r.space, space)
		return
	}
	before := ""
	if n := len(r.letters); n > 0 {
		before = r.letters[n-1].text
	}
	if least > 0 && r.space > least && isLatin(character) && isLatin(before) {
		r.letters = append(r.letters, letter{text: " ", step: s, score: -1})
	}
	r.space = 0
	if character != " " || before != " " {
		r.letters = append(r.letters, letter{text: character, step: s, score: score})
	}
}

// isLatin reports whether a character is a Latin letter, a digit or a punctuation mark:
// Latin text has spaces between words.
func isLatin(s string) bool {
	const latinExtendedB = 0x24f
	r, _ := utf8.DecodeRuneInString(s)
	return r > ' ' && r <= latinExtendedB
}

// score returns the mean score of the letters, without added spaces.
func (r *reading) score() float64 {
	sum, n := 0.0, 0
	for _, l := range r.letters {
		if l.score >= 0 {
			sum += l.score
			n++
		}
	}
	return sum / float64(max(n, 1))
}

// text returns the characters of the line.
func (r *reading) text() string {
	var b strings.Builder
	for _, l := range r.letters {
		b.WriteString(l.text)
	}
	return b.String()
}

// words returns the words of the line with their boxes. The center of a letter is assumed in
// the middle of its step. Each letter is as wide as the mean distance of letters, and each
// word as high as the crop.
func (r *reading) words(steps int, crop lane.Crop) []v1.Word {
	pitch := r.pitch()
	width := float64(crop.Width) / float64(steps) // of a step
	place := func(step float64) int { return int(math.Round(min(max(step*width, 0), float64(crop.Width)))) }
	var words []v1.Word
	for _, w := range splitWords(r.letters) {
		first, last := w[0], w[len(w)-1]
		left, right := place(float64(first.step)+0.5-pitch/2), place(float64(last.step)+0.5+pitch/2)
		if n := len(words); n > 0 {
			left = max(left, words[n-1].Box.X+words[n-1].Box.Width)
		}
		left = min(left, crop.Width-1)
		one := reading{letters: w}
		words = append(words, v1.Word{
			Text: one.text(), Score: roundScore(one.score()),
			Box: v1.Box{X: left, Width: max(right-left, 1), Height: crop.Height},
		})
	}
	return words
}

// pitch returns the mean distance of adjacent letters, in steps.
func (r *reading) pitch() float64 {
	sum, n := 0, 0
	for i := 1; i < len(r.letters); i++ {
		if r.letters[i].text != " " && r.letters[i-1].text != " " {
			sum += r.letters[i].step - r.letters[i-1].step
			n++
		}
	}
	return max(float64(sum)/float64(max(n, 1)), 1)
}

// splitWords returns the letters of each word.
func splitWords(letters []letter) [][]letter {
	var words [][]letter
	start := 0
	for i, l := range letters {
		if strings.TrimSpace(l.text) != "" {
			continue
		}
		if i > start {
			words = append(words, letters[start:i])
		}
		start = i + 1
	}
	if len(letters) > start {
		words = append(words, letters[start:])
	}
	return words
}
