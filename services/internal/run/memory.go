package run

import (
	"fmt"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// gcPercent is the default of GOGC. It trades memory for latency: images are
	// large and short-lived, and garbage collection increases the tail latency.
	gcPercent = 400
	// maxMemory limits the memory from which the default of GOMEMLIMIT is computed.
	maxMemory = 1 << 30
)

// setMemoryDefaults sets GOGC and GOMEMLIMIT when they are unset: GOGC to 400 %,
// GOMEMLIMIT to 90 % of the memory of the container or of 1 GiB, whichever is less.
// AUTOMEMLIMIT sets another share than 90 %; with off there is no limit.
func setMemoryDefaults(getenv func(string) string) error {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if _, err := memlimit.Set(memlimit.WithProvider(capMemory(memlimit.FromCgroup))); err != nil {
		return fmt.Errorf("limit the memory of Go: %w", err)
	}
	return nil
}

// capMemory returns a provider of the limit of container, at most maxMemory. When
// container fails, which it does outside of a container and without a limit, the
// provider returns maxMemory.
func capMemory(container memlimit.Provider) memlimit.Provider {
	return func() (uint64, error) {
		limit, err := container()
		if err != nil {
			return maxMemory, nil //nolint:nilerr // there is no limit
		}
		return min(limit, maxMemory), nil
	}
}
