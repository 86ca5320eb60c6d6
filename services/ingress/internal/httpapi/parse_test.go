package httpapi

import (
	"errors"
	"strings"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// problemOf gives code and field of an error that is a problem.
func problemOf(err error) (v1.Code, string) {
	var p *v1.Problem
	if errors.As(err, &p) {
		return p.Code, p.Field
	}
	return "", ""
}

const defaultWait, maxWait = 20 * time.Second, 60 * time.Second

var prefers = []struct {
	headers []string
	want    preference
	wrong   bool
}{
	{nil, preference{wait: defaultWait}, false},
	{[]string{""}, preference{wait: defaultWait}, false},
	{[]string{"wait=5"}, preference{wait: 5 * time.Second, applied: "wait=5"}, false},
	{[]string{"wait=0"}, preference{wait: 0, applied: "wait=0"}, false},
	{[]string{`Wait = "5" ; strict`}, preference{wait: 5 * time.Second, applied: "wait=5"}, false},
	{[]string{"wait=3600"}, preference{wait: maxWait, applied: "wait=60"}, false},
	{[]string{"wait=2147483647"}, preference{wait: maxWait, applied: "wait=60"}, false},
	{[]string{"respond-async"}, preference{async: true, applied: "respond-async"}, false},
	{[]string{"RESPOND-ASYNC, respond-async"}, preference{async: true, applied: "respond-async"}, false},
	{[]string{"respond-async, wait=5"}, preference{async: true, wait: 5 * time.Second, applied: "respond-async, wait=5"}, false},
	{[]string{"wait=5", "respond-async"}, preference{async: true, wait: 5 * time.Second, applied: "wait=5, respond-async"}, false},
	{[]string{"wait=5, wait=7"}, preference{wait: 5 * time.Second, applied: "wait=5"}, false},
	{[]string{"return=minimal, handling=strict"}, preference{wait: defaultWait}, false},
	{[]string{"wait"}, preference{}, true},
	{[]string{"wait=soon"}, preference{}, true},
	{[]string{"wait=-1"}, preference{}, true},
	{[]string{"wait=1.5"}, preference{}, true},
	{[]string{"wait=99999999999999999999"}, preference{}, true},
}

func TestParsePrefer(t *testing.T) {
	t.Parallel()
	for _, tt := range prefers {
		got, err := parsePrefer(tt.headers, defaultWait, maxWait)
		if tt.wrong {
			if code, field := problemOf(err); code != v1.InvalidHeader || field != "Prefer" {
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
		p, err := parsePrefer([]string{header}, defaultWait, maxWait)
		if err != nil {
			if code, _ := problemOf(err); code != v1.InvalidHeader {
				t.Errorf("%q: %v is no problem with the header", header, err)
			}
			return
		}
		if p.wait < 0 || p.wait > maxWait {
			t.Errorf("%q: waits %v", header, p.wait)
		}
		// What is said to be applied gives the same when it is asked for.
		if again, err := parsePrefer([]string{p.applied}, defaultWait, maxWait); err != nil || again != p {
			t.Errorf("%q: %+v, but what it applied gives %+v, %v", header, p, again, err)
		}
	})
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
