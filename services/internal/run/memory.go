package run

import (
	"fmt"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// gcPercent is the default of GOGC. It trades memory for latency: images are
	// large and short-lived, and the work of the collector shows in the tail.
	gcPercent = 400
	// maxMemory is the most that the default of GOMEMLIMIT is a share of.
	maxMemory = 1 << 30
)

// setMemoryDefaults sets what GOGC and GOMEMLIMIT leave unset: 400 %, and nine
// tenths of the memory of the container, of which 1 GiB counts at most. The share
// is that of AUTOMEMLIMIT when it is set; off is for no limit.
func setMemoryDefaults(getenv func(string) string) error {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if _, err := memlimit.Set(memlimit.WithProvider(atMost(memlimit.FromCgroup))); err != nil {
		return fmt.Errorf("limit the memory of Go: %w", err)
	}
	return nil
}

// atMost returns the memory that container says, and maxMemory when that is less
// or container fails, as it does outside of one and without a limit.
func atMost(container memlimit.Provider) memlimit.Provider {
	return func() (uint64, error) {
		limit, err := container()
		if err != nil {
			return maxMemory, nil //nolint:nilerr // there is no limit to keep
		}
		return min(limit, maxMemory), nil
	}
}
