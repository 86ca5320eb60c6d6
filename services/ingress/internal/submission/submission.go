// Package submission reads what requests say of their images besides the bytes. Its
// rules are those of HTTP and NATS alike. Its errors are problems that name the
// parameter or header, and the limit.
package submission

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

// ParsePriority reads a priority.
func ParsePriority(value string) (subject.Priority, error) {
	p := subject.Priority(value)
	if !p.Valid() {
		return "", v1.NewProblem(v1.InvalidParameter, "priority is %.40q, want interactive or bulk", value).
			WithField("priority")
	}
	return p, nil
}

// CheckCallback rejects now what would be rejected when the job is done.
func CheckCallback(i *intake.Intake, raw string) error {
	err := i.CheckCallback(raw)
	switch {
	case errors.Is(err, intake.ErrNoCallbacks):
		return v1.NewProblem(v1.InvalidParameter, "%v", err).WithField("callback")
	case err != nil:
		return v1.NewProblem(v1.InvalidParameter, "callback %v", err).WithField("callback")
	}
	return nil
}

// CheckKey checks the value of the header Idempotency-Key.
func CheckKey(value string) error {
	if len(value) > intake.MaxKey {
		return v1.NewProblem(v1.InvalidHeader, "%s may have %d bytes", v1.HeaderKey, intake.MaxKey).
			WithField(v1.HeaderKey).WithLimit(intake.MaxKey)
	}
	return nil
}

// ParseMetadata reads the headers X-Sight-Meta-*, whose names may be in any case. The
// names of the metadata are in lower case.
func ParseMetadata(h map[string][]string) (map[string]string, error) {
	out := map[string]string{}
	for name, values := range h {
		if !IsMetadata(name) {
			continue
		}
		key := strings.ToLower(name[len(v1.HTTPMetadataPrefix):])
		if _, twice := out[key]; twice || len(values) > 1 {
			return nil, v1.NewProblem(v1.InvalidHeader, "%s is given %d times", name, max(len(values), 2)).WithField(name)
		}
		out[key] = values[0]
	}
	if field, err := intake.CheckMetadata(out); err != nil {
		return nil, v1.NewProblem(v1.InvalidHeader, "%s%s %v", v1.HTTPMetadataPrefix, field, err).
			WithField(v1.HTTPMetadataPrefix + field)
	}
	return out, nil
}

// IsMetadata reports whether a header is metadata.
func IsMetadata(name string) bool {
	n := len(v1.HTTPMetadataPrefix)
	return len(name) >= n && strings.EqualFold(name[:n], v1.HTTPMetadataPrefix)
}

// Preference is what a client asks for with Prefer (RFC 7240).
type Preference struct {
	Async   bool
	Wait    time.Duration // 0 for respond-async alone
	Applied string        // for Preference-Applied; empty when nothing was asked
}

// ParsePrefer reads respond-async and wait. Preferences that are not known
// are ignored, as the RFC wants; of one given twice the first counts. A wait
// over maxWait is shortened, and Applied says so. Both together ask for
// the result if it is there within the wait (section 4.3 of the RFC).
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
				return p, v1.NewProblem(v1.InvalidHeader, "Prefer: wait=%.20s: want a whole number of seconds", value).WithField("Prefer")
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
