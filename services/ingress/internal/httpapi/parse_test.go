package httpapi

import (
	"errors"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestParsePrefer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		headers []string
		want    preference
		bad     bool
	}{
		{nil, preference{wait: 20 * time.Second}, false},
		{[]string{"wait=5"}, preference{wait: 5 * time.Second, applied: "wait=5"}, false},
		{[]string{`wait="5"`}, preference{wait: 5 * time.Second, applied: "wait=5"}, false},
		{[]string{"Wait = 5 ; x=y"}, preference{wait: 5 * time.Second, applied: "wait=5"}, false},
		{[]string{"wait=0"}, preference{applied: "wait=0"}, false},
		{[]string{"wait=600"}, preference{wait: time.Minute, applied: "wait=60"}, false},
		{[]string{"respond-async"}, preference{async: true, wait: 20 * time.Second, applied: "respond-async"}, false},
		{[]string{"respond-async, wait=3"}, preference{async: true, wait: 3 * time.Second, applied: "respond-async, wait=3"}, false},
		{[]string{"handling=lenient", "wait=7"}, preference{wait: 7 * time.Second, applied: "wait=7"}, false},
		{[]string{"wait=7, wait=8"}, preference{wait: 7 * time.Second, applied: "wait=7"}, false},
		{[]string{"wait"}, preference{}, true},
		{[]string{"wait=-1"}, preference{}, true},
		{[]string{"wait=1.5"}, preference{}, true},
		{[]string{"wait=99999999999999999999"}, preference{}, true},
	} {
		got, err := parsePrefer(tt.headers, 20*time.Second, time.Minute)
		var p *v1.Problem
		if tt.bad {
			if !errors.As(err, &p) || p.Code != v1.InvalidHeader || p.Field != "Prefer" {
				t.Errorf("%q: %v, want a problem of Prefer", tt.headers, err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%q: got %+v, %v, want %+v", tt.headers, got, err, tt.want)
		}
	}
}

func FuzzParsePrefer(f *testing.F) {
	f.Add("respond-async, wait=3; x")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePrefer([]string{s}, time.Second, time.Minute)
		if err == nil && (p.wait < 0 || p.wait > time.Minute) {
			t.Errorf("%q: wait %v", s, p.wait)
		}
	})
}

func TestParseQuery(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"": "", "pipeline=text": "", "utm=x&utm=y&pipeline=a": "", // what is not known is not ours to judge
		"pipeline=a&pipeline=b": "pipeline", "pipeline=": "pipeline", "pipeline": "pipeline", "a=%zz": "query", "a;b": "query",
	} {
		_, err := parseQuery(raw, "pipeline")
		var p *v1.Problem
		field := ""
		if errors.As(err, &p) {
			field = p.Field
		}
		if field != want || (err != nil && p.Code != v1.InvalidParameter) {
			t.Errorf("%q: %v, want a problem of %q", raw, err, want)
		}
	}
}

func TestServerTiming(t *testing.T) {
	t.Parallel()
	got := serverTiming(v1.Timings{Queue: 1.5, Decode: 2, Detect: 3, Classify: 4, Reply: 0.25})
	if want := "queue;dur=1.500, decode;dur=2.000, detect;dur=3.000, classify;dur=4.000, join;dur=0.000, reply;dur=0.250"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
