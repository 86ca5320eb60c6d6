//go:build clockshift

package run

import (
	"os"
	"sync"
	"time"
)

// localClock returns the time of this machine plus the duration in
// SIGHTMESH_CLOCK_SHIFT. It is for tests, which build the services with the tag
// clockshift.
func localClock() time.Time { return time.Now().Add(clockShift()) }

var clockShift = sync.OnceValue(func() time.Duration {
	d, err := time.ParseDuration(os.Getenv("SIGHTMESH_CLOCK_SHIFT"))
	if err != nil {
		return 0
	}
	return d
})
