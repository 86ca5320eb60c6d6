package httpapi

import (
	"errors"
	"testing"

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
