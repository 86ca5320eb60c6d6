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

// alphabet are the characters of the test's network.
const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789.,-é字句"

// line is the output of a network that reads a text: a character of it at each step, '_'
// for blank. spaces has the probabilities of a space at some steps where it is not the
// best one.
func line(text string, sure float32, spaces map[int]float32) nets.Tensor {
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

// reader returns the decoder of the test's network.
func reader(t *testing.T, space float64, o Options) Decoder {
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
		got, err := reader(t, 0, Options{}).Decode([]nets.Tensor{line(tt.steps, 0.9, nil)}, lane.Crop{Width: 100, Height: 48})
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

func TestCTCText_DropsWhatIsUnsure(t *testing.T) {
	t.Parallel()
	sure := 0.95
	for name, tt := range map[string]struct {
		p    float32
		o    Options
		drop bool
	}{
		"as the model says":           {0.66, Options{}, false},
		"below that":                  {0.64, Options{}, true},
		"as the settings say":         {0.96, Options{Threshold: &sure}, false},
		"below what the settings say": {0.94, Options{Threshold: &sure}, true},
	} {
		got, err := reader(t, 0, tt.o).Decode([]nets.Tensor{line("a_b", tt.p, nil)}, lane.Crop{Width: 100, Height: 48})
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

// TestCTCText_SpacesThatAreNotTheBest reads English of networks that join words, as those
// of PP-OCRv4 do: the space is in the output, and blank is more likely.
func TestCTCText_SpacesThatAreNotTheBest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		steps  string
		spaces map[int]float32
		least  float64
		want   string
	}{
		"between letters":      {"a_b", map[int]float32{1: 0.02}, 0.01, "a b"},
		"while a letter lasts": {"aa_b", map[int]float32{1: 0.02}, 0.01, "a b"},
		"not as likely":        {"a_b", map[int]float32{1: 0.009}, 0.01, "ab"},
		"not asked for":        {"a_b", map[int]float32{1: 0.3}, 0, "ab"},
		"at a letter":          {"a_b", map[int]float32{2: 0.3}, 0.01, "ab"},
		"between signs":        {"字_句", map[int]float32{1: 0.3}, 0.01, "字句"},
		"a sign and a letter":  {"字_a", map[int]float32{1: 0.3}, 0.01, "字a"},
		"a space is there":     {"a _b", map[int]float32{2: 0.3}, 0.01, "a b"},
		"before the first":     {"_a_b", map[int]float32{0: 0.3}, 0.01, "ab"},
	} {
		got, err := reader(t, tt.least, Options{}).Decode([]nets.Tensor{line(tt.steps, 0.9, tt.spaces)}, lane.Crop{Width: 90, Height: 9})
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

// TestCTCText_WordsHavePlaces reads a line of 20 steps on a crop of 200 pixels: letters
// are two steps apart.
func TestCTCText_WordsHavePlaces(t *testing.T) {
	t.Parallel()
	got, err := reader(t, 0, Options{}).Decode([]nets.Tensor{line("_a_b__ __c_d_e_____", 0.8, nil)}, lane.Crop{Width: 190, Height: 40})
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
	for width := 1; width < 30; width++ { // words of less than a pixel
		got, err := reader(t, 0, Options{}).Decode([]nets.Tensor{line("a b c d e", 0.8, nil)}, lane.Crop{Width: width, Height: 4})
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

func TestCTCText_NamesWhatIsWrong(t *testing.T) {
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
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	d := reader(t, 0, Options{})
	for name, tt := range map[string]struct {
		out  nets.Tensor
		want string
	}{
		"another dictionary": {nets.NewTensor(1, 3, 7), "blank, 42 characters of the dictionary, space"},
		"no steps":           {nets.NewTensor(1, 44), "output out has the shape [1 44]"},
		"logits":             {line("abc", 7.5, nil), "output out has a value of 7.5, want probabilities"},
	} {
		_, err := d.Decode([]nets.Tensor{tt.out}, lane.Crop{Width: 90, Height: 9})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
