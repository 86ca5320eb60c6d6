package admission

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

const (
	// resultsAbsentAfter is the time without a results service after which no jobs are accepted. A restart
	// takes less.
	resultsAbsentAfter = 10 * time.Second
	// resultsReserve is the part of RESULTS, in percent, for the results of jobs that are already accepted.
	resultsReserve = 10
	// resultsFullDelay is the retry delay when RESULTS is full.
	resultsFullDelay = 30 * time.Second
)

// resultsState tracks whether the results of new jobs can be stored.
type resultsState struct {
	absentSince time.Time // zero while a results service responds
	bytes       uint64    // in the stream RESULTS
	maxBytes    int64     // no limit unless positive
}

// problem returns the error when no job can be accepted, or nil.
func (s resultsState) problem() error {
	if !s.absentSince.IsZero() && time.Since(s.absentSince) >= resultsAbsentAfter {
		p := v1.NewProblem(v1.Unavailable, "no results service replies: the result of a job could not be stored")
		return retry.After(p, noWorkerDelay)
	}
	if s.maxBytes > 0 && s.bytes > uint64(s.maxBytes)/100*(100-resultsReserve) {
		p := v1.NewProblem(v1.Overloaded, "stream %s is more than %d %% full: results have to expire first",
			streams.Results, 100-resultsReserve)
		return retry.After(p.WithLimit(s.maxBytes), resultsFullDelay)
	}
	return nil
}

// pollResults checks for a results service and reads the size of RESULTS.
func (a *Admission) pollResults(ctx context.Context) {
	if err := a.checkResults(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("cannot read the status of the results service", "error", err)
	}
	if err := a.readResultsSize(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("cannot read the size of the results stream", "error", err)
	}
}

// checkResults records whether a results service replies. A lost connection does not count as absence.
func (a *Admission) checkResults(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, firstReplyTimeout)
	defer cancel()
	_, err := a.conn.RequestWithContext(ctx, subject.Status(subject.ResultsService), nil)
	absent := errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, context.DeadlineExceeded) && a.CheckStorage() == nil
	if err != nil && !absent {
		return fmt.Errorf("request the status of results: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !absent:
		a.results.absentSince = time.Time{}
	case a.results.absentSince.IsZero():
		a.results.absentSince = time.Now()
	}
	return nil
}

func (a *Admission) readResultsSize(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := a.js.Stream(ctx, streams.Results)
	if err != nil {
		return fmt.Errorf("read stream %s: %w", streams.Results, err)
	}
	info := s.CachedInfo()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.results.bytes, a.results.maxBytes = info.State.Bytes, info.Config.MaxBytes
	return nil
}
