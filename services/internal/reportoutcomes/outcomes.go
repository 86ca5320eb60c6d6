// Package reportoutcomes reads and counts the outcomes of the images of a report, and
// reads their results. The subjects in the stream REPORTS say which images have an
// outcome.
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

// Outcomes has the status, done or failed, of each image of a report that has an
// outcome, by the number of the image.
type Outcomes map[int]v1.Status

// Read returns the outcomes of a report. An image that was processed twice may have
// both outcomes stored, and is done.
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

// minConsumerResults is the number of results from which a temporary consumer needs
// fewer requests than reading the results one by one.
const minConsumerResults = 8

// Results returns the stored results of the images from to to-1 of a report, by the
// number of the image. An image without an outcome has no result. All results are in
// memory together. stream is REPORTS.
//
// A temporary consumer delivers the results together. On a replicated stream it may
// run on a server that does not have the latest messages yet. Results that are in o and
// are not delivered are read from the leader of the stream.
func (o Outcomes) Results(
	ctx context.Context, stream jetstream.Stream, report string, from, to int,
) (map[int][]byte, error) {
	missing := map[string]int{}
	for n := from; n < to; n++ {
		if status, ok := o[n]; ok {
			missing[subject.ReportOutcome(report, string(status), n)] = n
		}
	}
	out := make(map[int][]byte, len(missing))
	if len(missing) >= minConsumerResults {
		if err := fetchLast(ctx, stream, slices.Collect(maps.Keys(missing)), func(m jetstream.Msg) {
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

// consumerInactiveThreshold is how long the server keeps a consumer that could not be
// deleted.
const consumerInactiveThreshold = 10 * time.Second

// fetchLast calls each with the last message of every subject that a temporary
// consumer delivers.
func fetchLast(ctx context.Context, stream jetstream.Stream, subjects []string, each func(jetstream.Msg)) error {
	c, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubjects: subjects, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, AckPolicy: jetstream.AckNonePolicy,
		Replicas: 1, MemoryStorage: true, InactiveThreshold: consumerInactiveThreshold,
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

// Counts returns the counts of the images 0 to total-1.
func (o Outcomes) Counts(total int) v1.Counts {
	c := v1.Counts{Total: total}
	for n, status := range o {
		if n >= total {
			continue // not an image of the report
		}
		if status == v1.Done {
			c.Done++
		} else {
			c.Failed++
		}
	}
	return c
}
