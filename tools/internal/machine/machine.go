// Package machine reads the processor, the load and the CPU time of the machine on which something is measured.
package machine

import (
	"fmt"
	"os"
	"strings"
)

// Processor returns the name of the processor, or "unknown processor".
func Processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name\t: "); ok {
			return strings.TrimSpace(name)
		}
	}
	return "unknown processor"
}

// Load returns the load average of the last minute: the mean number of processes that run or are ready to run.
func Load() (float64, error) {
	const file = "/proc/loadavg"
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read the load of the machine: %w", err)
	}
	var minute float64
	if _, err := fmt.Sscan(string(data), &minute); err != nil {
		return 0, fmt.Errorf("read the load of the machine: %s: %w", file, err)
	}
	return minute, nil
}
