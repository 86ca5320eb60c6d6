package requestfields

import (
	"errors"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

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

// TestCheckHeaders_NoneKnown checks that metadata is rejected like other headers where it is not known.
func TestCheckHeaders_NoneKnown(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Sight-Note", "X-Sight-Meta-A"} {
		code, field := problemCodeAndField(CheckHeaders(map[string][]string{name: {"x"}}, nil))
		if code != v1.UnknownField {
			t.Errorf("%s: the code is %q, want %s", name, code, v1.UnknownField)
		}
		if field != name {
			t.Errorf("%s: the field is %q, want %s", name, field, name)
		}
	}
}

// problemCodeAndField returns the code and the field of the problem in an error.
func problemCodeAndField(err error) (v1.Code, string) {
	p, ok := errors.AsType[*v1.Problem](err)
	if !ok {
		return "", ""
	}
	return p.Code, p.Field
}
