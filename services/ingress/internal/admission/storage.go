package admission

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sightmesh/sightmesh/contracts/streams"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

const (
	// unreadAfter is for how long IMAGES may not be read before nothing is taken
	// to be storable. A connection that is made again takes less.
	unreadAfter = 4 * time.Second
	// After failedPublishes in a row nothing is taken to be storable, until
	// failedFor has passed without another one: then the next one shows.
	failedPublishes = 3
	failedFor       = 10 * time.Second
)

// storage is whether images can be stored.
type storage struct {
	read     time.Time // when IMAGES was last read
	readErr  error     // of the last try, nil when that succeeded
	failures int       // publishes that failed since the last that succeeded
	failed   time.Time // when the last one failed
	failure  error     // of the last one
}

// CheckStorage returns nil when images can be stored now, and otherwise why not:
// NATS or the stream IMAGES cannot be reached, or publishes fail. A stream that
// is full is no reason, nor are workers or a results service that are missing.
func (a *Admission) CheckStorage() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.storage
	switch {
	case time.Since(s.read) < unreadAfter && (s.failures < failedPublishes || time.Since(s.failed) > failedFor):
		return nil
	case time.Since(s.read) < unreadAfter:
		return fmt.Errorf("images cannot be stored: %w", s.failure)
	case !a.conn.IsConnected():
		return errors.New("NATS cannot be reached")
	case s.readErr != nil:
		return s.readErr
	}
	return fmt.Errorf("stream %s does not answer", streams.Images)
}

// RecordPublish notes the outcome of storing something for a client.
func (a *Admission) RecordPublish(err error) {
	var p *v1.Problem
	if errors.As(err, &p) || errors.Is(err, bus.ErrFull) || errors.Is(err, context.Canceled) {
		return // the stream works, or the client left
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.storage.failures = 0
		return
	}
	a.storage.failures++
	a.storage.failed, a.storage.failure = time.Now(), err
}

// pollImages reads IMAGES, which fails when it has no leader.
func (a *Admission) pollImages(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := a.js.Stream(ctx, streams.Images)
	if err == nil {
		if c := s.CachedInfo().Cluster; c != nil && c.Leader == "" {
			err = errors.New("it has no leader")
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.storage.readErr = nil; err != nil {
		a.storage.readErr = fmt.Errorf("read stream %s: %w", streams.Images, err)
		return
	}
	a.storage.read = time.Now()
}
