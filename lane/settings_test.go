package lane

import (
	"encoding/json"
	"testing"
	"time"
)

// shared are settings that several kinds have.
type shared struct {
	Model string `json:"model"`
}

// own is embedded by its address.
type own struct {
	LongSide int `json:"long_side"`
}

// twice has a number as JSON, and rejects the names of others itself.
type twice struct{ n int }

func (d *twice) UnmarshalJSON(b []byte) error {
	var in struct{ Half int }
	err := json.Unmarshal(b, &in)
	d.n = 2 * in.Half
	return err
}

// testSettings has a field of each type that kinds of detectors and classifiers have.
type testSettings struct {
	shared
	*own
	Languages []string       `json:"languages"`
	Score     *float64       `json:"score,omitempty"`
	Dark      bool           `json:"dark"`
	Fallback  *Setup         `json:"fallback"`
	ByName    map[string]own `json:"by_name"`
	Steps     []own          `json:"steps"`
	Sides     [2]uint8       `json:"sides"`
	Twice     twice          `json:"twice"`
	Since     time.Time      `json:"since"`
	Any       any            `json:"any"`
	Plain     string
	Skipped   string `json:"-"`

	label string
}

func newTestSettings() testSettings {
	return testSettings{own: &own{LongSide: 2400}, label: "face", Skipped: "default"}
}

func TestDecodeSettings(t *testing.T) {
	t.Parallel()
	s := newTestSettings()
	if err := DecodeSettings(json.RawMessage(`{
		"model": "yunet", "languages": ["eng"], "score": 0.5, "dark": true,
		"fallback": {"kind": "codes", "settings": {"of": "another"}, "by_label": {"a": {"kind": "model"}}},
		"by_name": {"a": {"long_side": 1}}, "steps": [{"long_side": 2}, {}], "sides": [3, 4],
		"twice": {"half": 5, "other": 6}, "since": "2026-11-28T12:00:00Z", "any": {"long": 7}, "plain": "p"
	}`), &s); err != nil {
		t.Fatal(err)
	}
	if s.Model != "yunet" {
		t.Errorf("the embedded model is %q, want yunet", s.Model)
	}
	if s.LongSide != 2400 {
		t.Errorf("long_side is %d, want the default 2400", s.LongSide)
	}
	if s.Twice.n != 10 {
		t.Errorf("twice is %d, want 10", s.Twice.n)
	}
	if got := string(s.Fallback.Settings); got != `{"of": "another"}` {
		t.Errorf("the settings of the fallback are %s", got)
	}
}

func TestDecodeSettings_AbsentKeepDefaults(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"", "null", "{}", `{"long_side": null}`} {
		s := newTestSettings()
		if err := DecodeSettings(json.RawMessage(raw), &s); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
		if s.LongSide != 2400 {
			t.Errorf("%q: long_side is %d, want the default 2400", raw, s.LongSide)
		}
	}
}

func TestDecodeSettings_Rejects(t *testing.T) {
	t.Parallel()
	const all = "; known are " +
		"Plain, any, by_name, dark, fallback, languages, long_side, model, score, sides, since, steps, twice"
	for _, tt := range []struct{ raw, want string }{
		{`{"longside": 1}`, "settings.longside: no such setting" + all},
		{`{"label": "a"}`, "settings.label: no such setting" + all},
		{`{"Skipped": "a"}`, "settings.Skipped: no such setting" + all},
		{`{"own": {}}`, "settings.own: no such setting" + all},
		{`{"fallback": {"kinds": "a"}}`,
			"settings.fallback.kinds: no such setting; known are batch, by_label, kind, settings"},
		{`{"fallback": {"by_label": {"car": {"kinds": "a"}}}}`,
			"settings.fallback.by_label.car.kinds: no such setting; known are batch, by_label, kind, settings"},
		{`{"by_name": {"a": {"long": 1}}}`, "settings.by_name.a.long: no such setting; known are long_side"},
		{`{"steps": [{}, {"long": 1}]}`, "settings.steps.1.long: no such setting; known are long_side"},
		{`{"long_side": "x"}`, `settings.long_side: "x", want an integer`},
		{`{"long_side": 1.5}`, `settings.long_side: 1.5, want an integer`},
		{`{"long_side": [1]}`, `settings.long_side: a list, want an integer`},
		{`{"languages": "eng"}`, `settings.languages: "eng", want a list`},
		{`{"languages": {"eng": 1}}`, `settings.languages: an object, want a list`},
		{`{"languages": ["eng", 7]}`, `settings.languages.1: 7, want a string`},
		{`{"score": "high"}`, `settings.score: "high", want a number`},
		{`{"dark": "yes"}`, `settings.dark: "yes", want true or false`},
		{`{"fallback": "tesseract"}`, `settings.fallback: "tesseract", want an object`},
		{`{"fallback": {"kind": 7}}`, `settings.fallback.kind: 7, want a string`},
		{`{"sides": 3}`, `settings.sides: 3, want a list`},
		{`["long_side"]`, `settings: a list, want an object`},
		{`"long_side"`, `settings: "long_side", want an object`},
		{`{"model": 1, "long": 2}`, `settings.model: 1, want a string`},
		{`{`, "settings: unexpected end of JSON input"},
	} {
		s := newTestSettings()
		if err := DecodeSettings(json.RawMessage(tt.raw), &s); err == nil || err.Error() != tt.want {
			t.Errorf("%s: the error is %q, want %q", tt.raw, err, tt.want)
		}
	}
}

func TestDecodeSettings_KindWithoutSettings(t *testing.T) {
	t.Parallel()
	err := DecodeSettings(json.RawMessage(`{"x": 1}`), &struct{}{})
	if want := "settings.x: no such setting; this kind has none"; err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %q", err, want)
	}
}

// TestDecodeSettings_OtherTypes checks that a map and any have all names.
func TestDecodeSettings_OtherTypes(t *testing.T) {
	t.Parallel()
	raw := json.RawMessage(`{"x": {"y": 1}}`)
	var values map[string]any
	if err := DecodeSettings(raw, &values); err != nil {
		t.Errorf("a map: %v", err)
	}
	var value any
	if err := DecodeSettings(raw, &value); err != nil {
		t.Errorf("any: %v", err)
	}
	if err := DecodeSettings(raw, nil); err == nil {
		t.Error("nil was accepted")
	}
}
