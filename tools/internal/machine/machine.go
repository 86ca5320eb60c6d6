// Package machine names the machine on which something was measured.
package machine

import (
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
