package jobparams

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Preference is the content of the header Prefer (RFC 7240).
type Preference struct {
	Async   bool
	Wait    time.Duration // 0 for respond-async alone
	Applied string        // value of Preference-Applied; "" when no preference was given
}

// ParsePrefer parses respond-async and wait. As the RFC requires, it ignores
// unknown preferences and uses the first of repeated ones. It reduces a wait to
// maxWait, and Applied has the reduced value. Both preferences together request
// the result if it is available within the wait (section 4.3 of the RFC).
func ParsePrefer(headers []string, defaultWait, maxWait time.Duration) (Preference, error) {
	p := Preference{Wait: defaultWait}
	waitSeen := false
	var applied []string
	for _, item := range strings.Split(strings.Join(headers, ","), ",") {
		item, _, _ = strings.Cut(item, ";") // parameters of a preference
		name, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "respond-async":
			if !p.Async {
				p.Async = true
				applied = append(applied, "respond-async")
			}
		case "wait":
			if waitSeen {
				continue
			}
			waitSeen = true
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return p, v1.NewProblem(v1.InvalidHeader, "Prefer: wait=%.20s: want a whole number of seconds",
					value).WithField("Prefer")
			}
			p.Wait = min(time.Duration(n)*time.Second, maxWait)
			applied = append(applied, fmt.Sprintf("wait=%d", int(p.Wait.Seconds())))
		}
	}
	if p.Async && !waitSeen {
		p.Wait = 0
	}
	p.Applied = strings.Join(applied, ", ")
	return p, nil
}
