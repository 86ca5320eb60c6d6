package jobparams

import (
	"errors"
	"strings"
	"testing"
	"time"

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

const defaultWait, maxWait = 20 * time.Second, 60 * time.Second

var prefers = []struct {
	headers []string
	want    Preference
	wrong   bool
}{
	{nil, Preference{Wait: defaultWait}, false},
	{[]string{""}, Preference{Wait: defaultWait}, false},
	{[]string{"wait=5"}, Preference{Wait: 5 * time.Second, Applied: "wait=5"}, false},
	{[]string{"wait=0"}, Preference{Wait: 0, Applied: "wait=0"}, false},
	{[]string{`Wait = "5" ; strict`}, Preference{Wait: 5 * time.Second, Applied: "wait=5"}, false},
	{[]string{"wait=3600"}, Preference{Wait: maxWait, Applied: "wait=60"}, false},
	{[]string{"wait=2147483647"}, Preference{Wait: maxWait, Applied: "wait=60"}, false},
	{[]string{"respond-async"}, Preference{Async: true, Applied: "respond-async"}, false},
	{[]string{"RESPOND-ASYNC, respond-async"}, Preference{Async: true, Applied: "respond-async"}, false},
	{[]string{"respond-async, wait=5"},
		Preference{Async: true, Wait: 5 * time.Second, Applied: "respond-async, wait=5"}, false},
	{[]string{"wait=5", "respond-async"},
		Preference{Async: true, Wait: 5 * time.Second, Applied: "wait=5, respond-async"}, false},
	{[]string{"wait=5, wait=7"}, Preference{Wait: 5 * time.Second, Applied: "wait=5"}, false},
	{[]string{"return=minimal, handling=strict"}, Preference{Wait: defaultWait}, false},
	{[]string{"wait"}, Preference{}, true},
	{[]string{"wait=soon"}, Preference{}, true},
	{[]string{"wait=-1"}, Preference{}, true},
	{[]string{"wait=1.5"}, Preference{}, true},
	{[]string{"wait=99999999999999999999"}, Preference{}, true},
}

func TestParsePrefer(t *testing.T) {
	t.Parallel()
	for _, tt := range prefers {
		got, err := ParsePrefer(tt.headers, defaultWait, maxWait)
		if tt.wrong {
			code, field := problemCodeAndField(err)
			if code != v1.InvalidHeader {
				t.Errorf("%q: got %v, want %s", tt.headers, err, v1.InvalidHeader)
			}
			if field != "Prefer" {
				t.Errorf("%q: the field is %q, want Prefer", tt.headers, field)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tt.headers, err)
		}
		if got != tt.want {
			t.Errorf("%q: got %+v, want %+v", tt.headers, got, tt.want)
		}
	}
}

func FuzzParsePrefer(f *testing.F) {
	for _, tt := range prefers {
		f.Add(strings.Join(tt.headers, ","))
	}
	f.Fuzz(func(t *testing.T, header string) {
		p, err := ParsePrefer([]string{header}, defaultWait, maxWait)
		if err != nil {
			if code, _ := problemCodeAndField(err); code != v1.InvalidHeader {
				t.Errorf("%q: got %v, want %s", header, err, v1.InvalidHeader)
			}
			return
		}
		if p.Wait < 0 || p.Wait > maxWait {
			t.Errorf("%q: the wait is %v, want 0 to %v", header, p.Wait, maxWait)
		}
		again, err := ParsePrefer([]string{p.Applied}, defaultWait, maxWait)
		if err != nil {
			t.Errorf("%q: parse the applied preferences: %v", header, err)
		}
		if again != p {
			t.Errorf("%q: got %+v, but the applied preferences give %+v", header, p, again)
		}
	})
}
