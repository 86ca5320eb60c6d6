package quality

import "testing"

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b          string
		whole, within int
	}{
		{"kitten", "sitting", 3, 2}, // 2 within "sittin"
		{"", "abc", 3, 0},
		{"abc", "", 3, 3},
		{"same", "same", 0, 0},
		{"路", "愚园路315", 5, 0},
		{"Total Fat", "xxTotal Fatyy", 4, 0},
		{"abcd", "zzabxdzz", 5, 1},
		{"abc", "zzz", 3, 3}, // at most the length of a
	} {
		if got := distance([]rune(tt.a), []rune(tt.b)); got != tt.whole {
			t.Errorf("the distance of %q and %q is %d, want %d", tt.a, tt.b, got, tt.whole)
		}
		if got := distanceWithin([]rune(tt.a), []rune(tt.b)); got != tt.within {
			t.Errorf("the distance of %q within %q is %d, want %d", tt.a, tt.b, got, tt.within)
		}
	}
}

func TestNormalize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"  two\n\tlines  ": "two lines",
		"“it’s” — ‘so’":    `"it's" - 'so'`,
		"不亦说乎？有，朋。自、远":     "不亦说乎?有,朋.自,远",
		"ＡＢＣ １２３":          "ABC 123",
		"-40℃":             "-40°C",
		"e\u0301":          "é",
		"a´b":              "a'b", // NFKC alone replaces it by a space
	} {
		if got := normalize(in); got != want {
			t.Errorf("normalize(%q) is %q, want %q", in, got, want)
		}
	}
}

func TestScoreText_InAnyOrder(t *testing.T) {
	t.Parallel()
	e := Expected{Text: []string{"Yuyuan Rd.", "W", "315"}}
	for name, tt := range map[string]struct {
		read       []string
		wrong      int
		found      int
		unexpected int
	}{
		"as expected":        {[]string{"Yuyuan Rd.", "W", "315"}, 0, 3, 0},
		"another order":      {[]string{"315", "W", "YuyuanRd."}, 0, 3, 0},
		"a line left out":    {[]string{"Yuyuan Rd.", "W"}, 3, 2, 0},
		"an unexpected line": {[]string{"Yuyuan Rd.", "nonsense", "W", "315"}, 0, 3, 1},
		"a letter wrong":     {[]string{"Yuyuan Bd.", "W", "315"}, 1, 3, 0},
		"nothing":            {nil, 13, 0, 0},
	} {
		s := scoreText(e, tt.read)
		if s.Text.Chars != 13 {
			t.Errorf("%s: %d characters expected, want 13", name, s.Text.Chars)
		}
		if s.Text.AnyOrder != tt.wrong {
			t.Errorf("%s: %d errors, want %d", name, s.Text.AnyOrder, tt.wrong)
		}
		if s.Found != tt.found {
			t.Errorf("%s: %d lines found, want %d", name, s.Found, tt.found)
		}
		if s.False != tt.unexpected {
			t.Errorf("%s: %d false lines, want %d", name, s.False, tt.unexpected)
		}
	}
}

func TestScoreText_Strict(t *testing.T) {
	t.Parallel()
	e := Expected{Text: []string{"name", "west 1", "east 2"}}
	if err := e.setOrder(order{Orders: [][]int{{1, 0, 2}, {1, 2, 0}}}); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		read  []string
		wrong int
	}{
		"first order":      {[]string{"west 1", "name", "east 2"}, 0},
		"second order":     {[]string{"west 1", "east 2", "name"}, 0},
		"order of no line": {[]string{"name west 1 east 2"}, 10}, // either order, with the name moved
		"lines joined":     {[]string{"west 1 name", "east 2"}, 0},
		"a space lost":     {[]string{"west1", "name", "east 2"}, 1},
		"a line too many":  {[]string{"west 1", "name", "x", "east 2"}, 2},
		"nothing":          {nil, 18},
	} {
		s := scoreText(e, tt.read)
		if s.Text.Strict != tt.wrong {
			t.Errorf("%s: %d errors, want %d", name, s.Text.Strict, tt.wrong)
		}
		if s.Text.StrictChars != 18 {
			t.Errorf("%s: %d characters, want 18", name, s.Text.StrictChars)
		}
	}
}

// TestScoreText_Phrases checks an image with only known phrases: neither their order nor
// other text is judged.
func TestScoreText_Phrases(t *testing.T) {
	t.Parallel()
	s := scoreText(Expected{TextContains: []string{"Sodium 20mg", "Calories"}},
		[]string{"more", "sodium 20mg", "Calories 190"})
	if s.Text.AnyOrder != 1 {
		t.Errorf("%d errors, want 1 for the small letter", s.Text.AnyOrder)
	}
	if s.Text.StrictChars != 0 {
		t.Errorf("%d characters are counted strictly, want 0", s.Text.StrictChars)
	}
	if s.False != 0 {
		t.Errorf("%d lines are false, want 0", s.False)
	}
}
