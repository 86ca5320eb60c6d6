// Package reportoutcomes reads which images of a report have an outcome, from the
// subjects of the stream REPORTS on which these are stored, and reads their
// results. It counts them too.
package reportoutcomes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

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
		_, status, n, err := subject.ParseReportOutcome(name)
		if err != nil {
			return nil, fmt.Errorf("read outcomes of %s: %w", report, err)
		}
		if out[n] != v1.Done {
			out[n] = v1.Status(status)
		}
	}
	return out, nil
}

// enough is from how many results on a consumer takes fewer requests than they
// do one by one: it is created, asked once and deleted.
const enough = 8

// Results returns the stored results of the images from to to-1 of a report, by
// their number. An image without an outcome has none. Memory has to hold all of
// them. stream is REPORTS.
//
// A consumer delivers them together. On a replicated stream it may be that of a
// server which does not have the latest yet: o says which there are, and what
// the consumer does not deliver is read from the leader.
func (o Outcomes) Results(ctx context.Context, stream jetstream.Stream, report string, from, to int) (map[int][]byte, error) {
	missing := map[string]int{}
	for n := from; n < to; n++ {
		if status, ok := o[n]; ok {
			missing[subject.ReportOutcome(report, string(status), n)] = n
		}
	}
	out := make(map[int][]byte, len(missing))
	if len(missing) >= enough {
		if err := deliver(ctx, stream, slices.Collect(maps.Keys(missing)), func(m jetstream.Msg) {
			out[missing[m.Subject()]] = m.Data()
			delete(missing, m.Subject())
		}); err != nil {
			return nil, fmt.Errorf("read outcomes of %s: %w", report, err)
		}
	}
	for subj, n := range missing {
		m, err := stream.GetLastMsgForSubject(ctx, subj)
		if err != nil {
			return nil, fmt.Errorf("read outcome %d of %s: %w", n, report, err)
		}
		out[n] = m.Data
	}
	return out, nil
}

// unused is for how long the server keeps a consumer that could not be deleted.
const unused = 10 * time.Second

// deliver calls each with the last message on every subject that the server of
// a consumer has.
func deliver(ctx context.Context, stream jetstream.Stream, subjects []string, each func(jetstream.Msg)) error {
	c, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubjects: subjects, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, AckPolicy: jetstream.AckNonePolicy,
		Replicas: 1, MemoryStorage: true, InactiveThreshold: unused,
	})
	if err != nil {
		return fmt.Errorf("create a consumer: %w", err)
	}
	defer stream.DeleteConsumer(context.WithoutCancel(ctx), c.CachedInfo().Name) //nolint:errcheck // it ends by itself
	batch, err := c.FetchNoWait(len(subjects))
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	for m := range batch.Messages() {
		each(m)
	}
	return nil
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
