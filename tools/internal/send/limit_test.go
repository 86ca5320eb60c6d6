package send

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestLimit_IgnoresFailures checks that quick failures do not count as fast images, with
// which every later image would seem slow.
func TestLimit_IgnoresFailures(t *testing.T) {
	t.Parallel()
	down := true
	r := run{cfg: Config{}, limit: newLimit(0, true), send: func(context.Context, string, []byte) (v1.Result, error) {
		if down {
			return v1.Result{}, retry.After(errors.New("connection refused"), 0)
		}
		return v1.Result{}, nil
	}}
	for range 16 { // the mesh is unreachable
		r.attempt(t.Context(), "", nil)
	}
	down = false
	for range 2000 { // 32 lanes, 200 ms each
		at := r.limit.current()
		r.limit.observe(time.Duration(float64(200*time.Millisecond)*max(1, float64(at)/32)), false)
	}
	if n := r.limit.current(); n < 32 {
		t.Errorf("the limit is %d, want at least 32", n)
	}
}
