package httpapi

import (
	"errors"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// problemCodeAndField returns the code and the field of the problem in an error.
func problemCodeAndField(err error) (v1.Code, string) {
	var p *v1.Problem
	if errors.As(err, &p) {
		return p.Code, p.Field
	}
	return "", ""
}

// checkProblem fails the test unless err is a problem with this code and field.
func checkProblem(t *testing.T, name string, err error, code v1.Code, field string) {
	t.Helper()
	gotCode, gotField := problemCodeAndField(err)
	if gotCode != code {
		t.Errorf("%s: got %v, want the code %q", name, err, code)
	}
	if gotField != field {
		t.Errorf("%s: the field is %q, want %q", name, gotField, field)
	}
}

func TestServerTiming(t *testing.T) {
	t.Parallel()
	for want, in := range map[string]v1.Timings{
		"queue;dur=0.000, decode;dur=0.000, detect;dur=0.000, classify;dur=0.000, join;dur=0.000, reply;dur=0.000": {},
		"queue;dur=1.500, decode;dur=2.000, detect;dur=3.142, classify;dur=4.000, join;dur=5.000, reply;dur=1000000.000": {
			Queue: 1.5, Decode: 2, Detect: 3.14159, Classify: 4, Join: 5, Reply: 1e6},
	} {
		if got := serverTiming(in); got != want {
			t.Errorf("%+v:\ngot  %s\nwant %s", in, got, want)
		}
	}
}

func TestParseNumber(t *testing.T) {
	t.Parallel()
	const fallback, lowest, highest = 8, 0, 100
	for text, want := range map[string]int{"0": 0, "100": 100, "007": 7} {
		got, err := parseNumber(fields{"window": text}, "window", fallback, lowest, highest)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got != want {
			t.Errorf("%s: got %d, want %d", text, got, want)
		}
	}
	for _, text := range []string{"101", "-1", "-0", "+1", "0x1", "1_0", "1.0", "99999999999999999999"} {
		_, err := parseNumber(fields{"window": text}, "window", fallback, lowest, highest)
		checkProblem(t, text, err, v1.InvalidParameter, "window")
	}
	got, err := parseNumber(fields{}, "window", fallback, lowest, highest)
	if err != nil {
		t.Errorf("no value: %v", err)
	}
	if got != fallback {
		t.Errorf("no value: got %d, want %d", got, fallback)
	}
}
