package jobparams

import (
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("k", intake.MaxKey)
	for name, tt := range map[string]struct {
		values []string
		want   string
		code   v1.Code
	}{
		"none":     {nil, "", ""},
		"one":      {[]string{"a"}, "a", ""},
		"longest":  {[]string{longest}, longest, ""},
		"empty":    {[]string{""}, "", v1.InvalidHeader},
		"two":      {[]string{"a", "b"}, "", v1.InvalidHeader},
		"too long": {[]string{longest + "k"}, "", v1.InvalidHeader},
	} {
		got, err := ParseKey(tt.values)
		code, field := problemCodeAndField(err)
		if code != tt.code {
			t.Errorf("%s: got the error %v, want the code %q", name, err, tt.code)
		}
		if code != "" && field != "Idempotency-Key" {
			t.Errorf("%s: the field is %q, want Idempotency-Key", name, field)
		}
		if code == "" && got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestCheckHeaders(t *testing.T) {
	t.Parallel()
	known := []string{"Sight-Priority", MetadataHeaders}
	for name, want := range map[string]string{
		"Sight-Priority":                    "",
		"sight-priority":                    "",
		"X-Sight-Meta-A":                    "",
		"x-sight-meta-a":                    "",
		"X-Sight":                           "",
		"Sightseeing":                       "",
		"X-Other":                           "",
		"Sight-Labels":                      "Sight-Labels",
		"X-Sight-Prio":                      "X-Sight-Prio",
		"x-sight-meta":                      "x-sight-meta",
		"X-Sight-Deadline":                  "X-Sight-Deadline",
		"Sight-" + strings.Repeat("a", 100): "Sight-" + strings.Repeat("a", 54),
	} {
		err := CheckHeaders(map[string][]string{name: {"x"}}, known)
		code, field := problemCodeAndField(err)
		if want != "" && code != v1.UnknownField {
			t.Errorf("%s: got the error %v, want %s", name, err, v1.UnknownField)
		}
		if want == "" && err != nil {
			t.Errorf("%s: got the error %v, want none", name, err)
		}
		if field != want {
			t.Errorf("%s: the field is %q, want %q", name, field, want)
		}
	}
	want := `unknown-field: "Sight-Top" is not known here; known are Sight-Priority, X-Sight-Meta-NAME`
	if err := CheckHeaders(map[string][]string{"Sight-Top": {"3"}}, known); err == nil || err.Error() != want {
		t.Errorf("got the error %v, want %s", err, want)
	}
}
