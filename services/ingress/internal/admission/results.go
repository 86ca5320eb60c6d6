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
	// resultsAbsentAfter is for how long the results service may not answer
	// before no more jobs are accepted. A restart takes less.
	resultsAbsentAfter = 10 * time.Second
	// resultsReserve is the part of RESULTS, in percent, that is kept for the
	// jobs that were accepted before.
	resultsReserve = 10
	// resultsFullDelay is how long a client should wait until results expired.
	resultsFullDelay = 30 * time.Second
)

// resultsState is whether the results of new jobs can be stored.
type resultsState struct {
	absentSince time.Time // zero while a results service answers
	bytes       uint64    // in the stream RESULTS
	maxBytes    int64     // not positive for no limit
}

// problem returns why no job can be accepted; nil when one can.
func (s resultsState) problem() error {
	if !s.absentSince.IsZero() && time.Since(s.absentSince) >= resultsAbsentAfter {
		p := v1.NewProblem(v1.Unavailable, "no results service answers: the result of a job could not be stored")
		return retry.After(p, noWorkerDelay)
	}
	if s.maxBytes > 0 && s.bytes > uint64(s.maxBytes)/100*(100-resultsReserve) {
		p := v1.NewProblem(v1.Overloaded, "stream %s is more than %d %% full: results have to expire first",
			streams.Results, 100-resultsReserve)
		return retry.After(p.WithLimit(s.maxBytes), resultsFullDelay)
	}
	return nil
}

// pollResults asks for a results service and for the size of RESULTS.
func (a *Admission) pollResults(ctx context.Context) {
	if err := a.checkResults(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("cannot ask the results service for its status", "error", err)
	}
	if err := a.readResultsSize(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("cannot read the size of a stream", "error", err)
	}
}

// checkResults notes whether a results service answers. That the connection is
// lost says nothing about the service.
func (a *Admission) checkResults(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, firstReplyTimeout)
	defer cancel()
	_, err := a.conn.RequestWithContext(ctx, subject.Status(subject.ResultsService), nil)
	absent := errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, context.DeadlineExceeded) && a.CheckStorage() == nil
	if err != nil && !absent {
		return fmt.Errorf("ask results for status: %w", err)
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
