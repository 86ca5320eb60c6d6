// Package outcomes says what has become of the images of a report, from the
// subjects on which their outcomes are stored.
package outcomes

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Outcomes are the images of a report that have one, by their number: done or
// failed.
type Outcomes map[int]v1.Status

// Read gives the outcomes of a report. An image that was worked on twice may
// have both stored, and is done.
func Read(ctx context.Context, js jetstream.JetStream, report string) (Outcomes, error) {
	s, err := js.Stream(ctx, streams.Reports)
	if err != nil {
		return nil, fmt.Errorf("read outcomes of %s: %w", report, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(subject.AllOutcomes(report)))
	if err != nil {
		return nil, fmt.Errorf("read outcomes of %s: %w", report, err)
	}
	out := Outcomes{}
	for name := range info.State.Subjects {
		status, number, _ := strings.Cut(strings.TrimPrefix(name, subject.Report(report)+"."), ".")
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("read outcomes of %s: subject %q: %w", report, name, err)
		}
		if out[n] != v1.Done {
			out[n] = v1.Status(status)
		}
	}
	return out, nil
}

// Counts counts those of the images 0 to total-1.
func (o Outcomes) Counts(total int) v1.Counts {
	c := v1.Counts{Total: total}
	for n, status := range o {
		if n >= total {
			continue // no image of the report
		}
		if status == v1.Done {
			c.Done++
		} else {
			c.Failed++
		}
	}
	return c
}
