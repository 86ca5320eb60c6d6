package classifiers

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/classify/internal/decoders"
	"github.com/sightmesh/sightmesh/services/classify/internal/tesseract"
	"github.com/sightmesh/sightmesh/services/internal/model"
)

// reader reads a line of text with Tesseract, in the language with the highest score.
type reader struct {
	// MinScore is the minimum score; crops below it are dropped. The default is 0.6.
	MinScore float64 `json:"min_score"`
	// SureScore is the score from which on the following languages are not tried. The
	// default is 0.85.
	SureScore float64 `json:"sure_score"`

	engines []*tesseract.Engine
}

func newReader(settings json.RawMessage) (classifier, lane.Loaded, error) {
	s := struct {
		// Languages are tried in this order. The default is eng.
		Languages []string `json:"languages"`
		// Dir is the folder of the language data; empty means the library's default.
		Dir string `json:"dir"`
		*reader
	}{Languages: []string{"eng"}, reader: defaultReader()}
	if err := lane.DecodeSettings(settings, &s); err != nil {
		return nil, lane.Loaded{}, err
	}
	if len(s.Languages) == 0 {
		return nil, lane.Loaded{}, errors.New("settings.languages: none, want one or more")
	}
	r := s.reader
	if err := r.validate(); err != nil {
		return nil, lane.Loaded{}, fmt.Errorf("settings.%w", err)
	}
	var models []v1.Model
	for _, l := range s.Languages {
		e, err := tesseract.New(s.Dir, l)
		if err != nil {
			return nil, lane.Loaded{}, fmt.Errorf("settings.languages: %w%s", err, packageHint(l))
		}
		r.engines = append(r.engines, e)
		models = append(models, v1.Model{Name: "tesseract-" + l, Version: tesseract.Version()})
	}
	return r, lane.Loaded{Models: models}, nil
}

// languageName matches the names of languages for which Debian may have a package.
var languageName = regexp.MustCompile(`^[a-z_]+$`)

// packageHint returns the end of the error for a language without data. It is empty for a name that cannot be that of
// a language.
func packageHint(language string) string {
	if !languageName.MatchString(language) {
		return ""
	}
	return "; the Debian package may be tesseract-ocr-" + strings.ReplaceAll(language, "_", "-")
}

// openReader creates the reader of a model folder whose weights are the data of a language.
func openReader(m *model.Model, s modelSettings) (classifier, error) {
	if s.Threshold != nil || s.Top != 0 {
		return nil, fmt.Errorf("settings: threshold and top: not used by %s", m.Kind)
	}
	if err := m.CheckFields("weights", "settings"); err != nil {
		return nil, m.FieldError(err)
	}
	if err := m.RequireFields("weights"); err != nil {
		return nil, err
	}
	r := defaultReader()
	if err := m.DecodeSettings(r); err != nil {
		return nil, err
	}
	if err := r.validate(); err != nil {
		return nil, m.FieldError(fmt.Errorf("settings.%w", err))
	}
	const extension = ".traineddata"
	language, ok := strings.CutSuffix(filepath.Base(m.Weights), extension)
	if !ok || language == "" {
		return nil, m.FieldError(fmt.Errorf("weights: %q, want the name of a language and %s", m.Weights, extension))
	}
	if _, _, err := m.ReadWeights(); err != nil { // checks the file
		return nil, err
	}
	e, err := tesseract.New(filepath.Dir(m.WeightsPath()), language)
	if err != nil {
		return nil, m.FieldError(fmt.Errorf("weights: %w", err))
	}
	r.engines = []*tesseract.Engine{e}
	return r, nil
}

func defaultReader() *reader { return &reader{MinScore: 0.6, SureScore: 0.85} }

func (r *reader) validate() error {
	for name, score := range map[string]float64{"min_score": r.MinScore, "sure_score": r.SureScore} {
		if score < 0 || score > 1 {
			return fmt.Errorf("%s: %v, want 0 to 1", name, score)
		}
	}
	return nil
}

// border is the width of the white border around the line, in pixels. Letters that touch the
// edge are misread. Of widths from 3 to 16, 3 gave the best results on the test pages.
const border = 3

func (r *reader) channels() int { return 1 }

func (r *reader) classify(crops []crop) ([]lane.CropLabel, error) { return classifyEach(crops, r.read) }

func (r *reader) read(c crop) (lane.CropLabel, error) {
	framed, w, h := addBorder(c.pixels, c.Width, c.Height)
	var best reading
	for _, e := range r.engines {
		text, words, err := e.Read(framed, w, h)
		if err != nil {
			return lane.CropLabel{}, err
		}
		if now := newReading(text, words); now.score > best.score {
			best = now
		}
		if best.score >= r.SureScore {
			break
		}
	}
	if best.text == "" || best.score < r.MinScore || !decoders.Readable(best.text) {
		return lane.CropLabel{Drop: true, Score: best.score}, nil
	}
	for i := range best.words {
		b := &best.words[i].Box
		b.X, b.Y = max(0, b.X-border), max(0, b.Y-border)
		b.Width, b.Height = min(b.Width, c.Width-b.X), min(b.Height, c.Height-b.Y)
	}
	return lane.CropLabel{Score: best.score, Text: best.text, Words: best.words}, nil
}

// addBorder adds a white border to a grey image.
func addBorder(pixels []byte, width, height int) (framed []byte, w, h int) {
	w, h = width+2*border, height+2*border
	framed = make([]byte, w*h)
	for i := range framed {
		framed[i] = 255
	}
	for y := range height {
		copy(framed[(y+border)*w+border:], pixels[y*width:(y+1)*width])
	}
	return framed, w, h
}

// reading is the result of one engine for a line.
type reading struct {
	text  string
	score float64
	words []v1.Word
}

// newReading returns a reading. Its score is the mean over the letters, so that a long word
// has more weight than a stray dot.
func newReading(text string, words []tesseract.Word) reading {
	r := reading{text: text}
	letters, sum := 0, 0.0
	for _, w := range words {
		n := utf8.RuneCountInString(w.Text)
		letters += n
		sum += float64(n) * w.Confidence
		r.words = append(r.words, v1.Word{
			Text: w.Text, Score: roundScore(w.Confidence),
			Box: v1.Box{X: w.Box.Min.X, Y: w.Box.Min.Y, Width: w.Box.Dx(), Height: w.Box.Dy()},
		})
	}
	if letters > 0 {
		r.score = roundScore(sum / float64(letters))
	}
	return r
}

// roundScore rounds a score to three decimals.
func roundScore(f float64) float64 { return math.Round(f*1000) / 1000 }
