package decoders

import (
	"slices"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// alphabet has the characters of the network.
const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789.,-é字句"

// newLineOutput returns the output of a network that reads a text: one character at each step, '_'
// for blank, each with the probability sure. spaces has the probabilities of a space at
// steps at which it is not the best class.
func newLineOutput(text string, sure float32, spaces map[int]float32) nets.Tensor {
	characters := strings.Split(alphabet, "")
	classes := len(characters) + 2
	steps := strings.Split(text, "")
	t := nets.NewTensor(1, len(steps), classes)
	for s, c := range steps {
		class := slices.Index(characters, c) + 1
		switch c {
		case "_":
			class = 0
		case " ":
			class = classes - 1
		}
		p := t.Data[s*classes : (s+1)*classes]
		p[class] = sure
		if space, ok := spaces[s]; ok {
			p[classes-1] = space
		}
	}
	return t
}

// newReaderDecoder returns the decoder of the network. space is output.space of the model.
func newReaderDecoder(t *testing.T, space float64, o Options) Decoder {
	t.Helper()
	m := &model.Model{
		Kind: CTCText, Dictionary: "keys.txt", Characters: strings.Split(alphabet, ""), Threshold: 0.65,
		Output: model.Output{Space: space},
	}
	d, err := newCTCText(m, []string{"out"}, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCTCText_Reads(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		steps string
		want  string // "" for a line that is dropped
	}{
		"repeated and blank":        {"_aa_ab__b_", "aabb"},
		"spaces at the ends":        {" _a_ b_ _", "a b"},
		"spaces next to each other": {"a _ b", "a b"},
		"other scripts":             {"字_句_é", "字句é"},
		"nothing":                   {"____", ""},
		"only marks":                {".-_,", ""},
		"one step":                  {"7", "7"},
	} {
		outputs := []nets.Tensor{newLineOutput(tt.steps, 0.9, nil)}
		got, err := newReaderDecoder(t, 0, Options{}).Decode(outputs, lane.Crop{Width: 100, Height: 48})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Text != tt.want {
			t.Errorf("%s: %q, want %q", name, got.Text, tt.want)
		}
		if got.Drop != (tt.want == "") {
			t.Errorf("%s: drop is %v", name, got.Drop)
		}
	}
}

func TestCTCText_DropsLinesBelowThreshold(t *testing.T) {
	t.Parallel()
	sure := 0.95
	for name, tt := range map[string]struct {
		p    float32
		o    Options
		drop bool
	}{
		"above that of the model":    {0.66, Options{}, false},
		"below that of the model":    {0.64, Options{}, true},
		"above that of the settings": {0.96, Options{Threshold: &sure}, false},
		"below that of the settings": {0.94, Options{Threshold: &sure}, true},
	} {
		outputs := []nets.Tensor{newLineOutput("a_b", tt.p, nil)}
		got, err := newReaderDecoder(t, 0, tt.o).Decode(outputs, lane.Crop{Width: 100, Height: 48})
		if err != nil {
			t.Fatal(err)
		}
		if got.Drop != tt.drop {
			t.Errorf("%s: drop is %v", name, got.Drop)
		}
		if want := float64(int(tt.p*100+0.5)) / 100; got.Score != want {
			t.Errorf("%s: the score is %v, want %v", name, got.Score, want)
		}
	}
}

// TestCTCText_UnlikelySpaces decodes outputs of networks that join English words, as
// PP-OCRv4 does: they contain a probability of a space, but blank is more likely.
func TestCTCText_UnlikelySpaces(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		steps  string
		spaces map[int]float32
		least  float64
		want   string
	}{
		"between letters":                {"a_b", map[int]float32{1: 0.02}, 0.01, "a b"},
		"in the second step of a letter": {"aa_b", map[int]float32{1: 0.02}, 0.01, "a b"},
		"below output.space":             {"a_b", map[int]float32{1: 0.009}, 0.01, "ab"},
		"without output.space":           {"a_b", map[int]float32{1: 0.3}, 0, "ab"},
		"at a letter":                    {"a_b", map[int]float32{2: 0.3}, 0.01, "ab"},
		"between Chinese characters":     {"字_句", map[int]float32{1: 0.3}, 0.01, "字句"},
		"Chinese and Latin":              {"字_a", map[int]float32{1: 0.3}, 0.01, "字a"},
		"after a likely space":           {"a _b", map[int]float32{2: 0.3}, 0.01, "a b"},
		"before the first letter":        {"_a_b", map[int]float32{0: 0.3}, 0.01, "ab"},
	} {
		outputs := []nets.Tensor{newLineOutput(tt.steps, 0.9, tt.spaces)}
		got, err := newReaderDecoder(t, tt.least, Options{}).Decode(outputs, lane.Crop{Width: 90, Height: 9})
		if err != nil {
			t.Fatal(err)
		}
		if got.Text != tt.want {
			t.Errorf("%s: %q, want %q", name, got.Text, tt.want)
		}
		if got.Score != 0.9 {
			t.Errorf("%s: the score is %v, want that of the letters", name, got.Score)
		}
	}
}

// TestCTCText_WordBoxes decodes a line of 19 steps on a crop 190 pixels wide, in which
// letters are two steps apart.
func TestCTCText_WordBoxes(t *testing.T) {
	t.Parallel()
	outputs := []nets.Tensor{newLineOutput("_a_b__ __c_d_e_____", 0.8, nil)}
	got, err := newReaderDecoder(t, 0, Options{}).Decode(outputs, lane.Crop{Width: 190, Height: 40})
	if err != nil {
		t.Fatal(err)
	}
	want := []v1.Word{
		{Text: "ab", Score: 0.8, Box: v1.Box{X: 5, Width: 40, Height: 40}},
		{Text: "cde", Score: 0.8, Box: v1.Box{X: 85, Width: 60, Height: 40}},
	}
	if !slices.Equal(got.Words, want) {
		t.Errorf("got %+v, want %+v", got.Words, want)
	}
	outputs = []nets.Tensor{newLineOutput("a b c d e", 0.8, nil)}
	for width := 1; width < 30; width++ { // some words are less than a pixel wide
		got, err := newReaderDecoder(t, 0, Options{}).Decode(outputs, lane.Crop{Width: width, Height: 4})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range got.Words {
			if w.Box.Width < 1 {
				t.Errorf("a crop %d wide: %+v has no width", width, w)
			}
			if w.Box.X < 0 || w.Box.X+w.Box.Width > width {
				t.Errorf("a crop %d wide: %+v is not inside", width, w)
			}
		}
	}
}

// checkError checks that err contains want.
func checkError(t *testing.T, name string, err error, want string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %q", name, want)
	} else if !strings.Contains(err.Error(), want) {
		t.Errorf("%s: the error is %q, want %q in it", name, err, want)
	}
}

func TestCTCText_ErrorNamesField(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*model.Model, *Options)
		want   string
	}{
		"no dictionary": {func(m *model.Model, _ *Options) { m.Characters = nil }, "dictionary: missing"},
		"no threshold":  {func(m *model.Model, _ *Options) { m.Threshold = 0 }, "threshold: 0"},
		"top":           {func(_ *model.Model, o *Options) { o.Top = 3 }, "top: not used"},
	} {
		m, o := &model.Model{Kind: CTCText, Characters: []string{"a"}, Threshold: 0.5}, Options{}
		tt.change(m, &o)
		_, err := newCTCText(m, []string{"out"}, o)
		checkError(t, name, err, tt.want)
	}
	d := newReaderDecoder(t, 0, Options{})
	for name, tt := range map[string]struct {
		out  nets.Tensor
		want string
	}{
		"another dictionary": {nets.NewTensor(1, 3, 7), "blank, 42 characters of the dictionary, space"},
		"no steps":           {nets.NewTensor(1, 44), "output out has the shape [1 44]"},
		"logits":             {newLineOutput("abc", 7.5, nil), "output out has a value of 7.5, want probabilities"},
	} {
		_, err := d.Decode([]nets.Tensor{tt.out}, lane.Crop{Width: 90, Height: 9})
		checkError(t, name, err, tt.want)
	}
}
