package httpapi

import (
	"fmt"
	"strings"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// serverTiming returns timings as the value of the header Server-Timing.
func serverTiming(t v1.Timings) string {
	var b strings.Builder
	for _, e := range []struct {
		name string
		ms   float64
	}{{"queue", t.Queue}, {"decode", t.Decode}, {"detect", t.Detect}, {"classify", t.Classify}, {"join", t.Join},
		{"reply", t.Reply}} {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s;dur=%.3f", e.name, e.ms)
	}
	return b.String()
}
