package jobparams

import (
	"errors"
	"strings"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// problemCodeAndField gives code and field of an error that is a problem.
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
	{[]string{"respond-async, wait=5"}, Preference{Async: true, Wait: 5 * time.Second, Applied: "respond-async, wait=5"}, false},
	{[]string{"wait=5", "respond-async"}, Preference{Async: true, Wait: 5 * time.Second, Applied: "wait=5, respond-async"}, false},
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
			if code, field := problemCodeAndField(err); code != v1.InvalidHeader || field != "Prefer" {
				t.Errorf("%q: got %v, want a problem with Prefer", tt.headers, err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%q: got %+v, %v, want %+v", tt.headers, got, err, tt.want)
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
				t.Errorf("%q: %v is no problem with the header", header, err)
			}
			return
		}
		if p.Wait < 0 || p.Wait > maxWait {
			t.Errorf("%q: waits %v", header, p.Wait)
		}
		// What is said to be applied gives the same when it is asked for.
		if again, err := ParsePrefer([]string{p.Applied}, defaultWait, maxWait); err != nil || again != p {
			t.Errorf("%q: %+v, but what it applied gives %+v, %v", header, p, again, err)
		}
	})
}
