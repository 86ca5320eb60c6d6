package httpapi

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// preference is what a client asks for with Prefer (RFC 7240).
type preference struct {
	async   bool
	wait    time.Duration // 0 for respond-async alone
	applied string        // for Preference-Applied; empty when nothing was asked
}

// parsePrefer reads respond-async and wait. Preferences that are not known
// are ignored, as the RFC wants; of one given twice the first counts. A wait
// over maxWait is shortened, and Preference-Applied says so. Both together ask for
// the result if it is there within the wait (section 4.3 of the RFC).
func parsePrefer(headers []string, defaultWait, maxWait time.Duration) (preference, error) {
	p := preference{wait: defaultWait}
	waitSeen := false
	var applied []string
	for _, item := range strings.Split(strings.Join(headers, ","), ",") {
		item, _, _ = strings.Cut(item, ";") // parameters of a preference
		name, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "respond-async":
			if !p.async {
				p.async = true
				applied = append(applied, "respond-async")
			}
		case "wait":
			if waitSeen {
				continue
			}
			waitSeen = true
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return p, v1.NewProblem(v1.InvalidHeader, "Prefer: wait=%.20s: want a whole number of seconds", value).WithField("Prefer")
			}
			p.wait = min(time.Duration(n)*time.Second, maxWait)
			applied = append(applied, fmt.Sprintf("wait=%d", int(p.wait.Seconds())))
		}
	}
	if p.async && !waitSeen {
		p.wait = 0
	}
	p.applied = strings.Join(applied, ", ")
	return p, nil
}

// serverTiming writes timings as a Server-Timing header.
func serverTiming(t v1.Timings) string {
	var b strings.Builder
	for _, e := range []struct {
		name string
		ms   float64
	}{{"queue", t.Queue}, {"decode", t.Decode}, {"detect", t.Detect}, {"classify", t.Classify}, {"join", t.Join}, {"reply", t.Reply}} {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s;dur=%.3f", e.name, e.ms)
	}
	return b.String()
}
