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
	// unreadAfter is the time without a successful read of IMAGES after which images cannot be stored. A
	// reconnect takes less.
	unreadAfter = 4 * time.Second
	// After failedPublishes failures in a row, images cannot be stored until failedFor has passed since the
	// last failure. The next publish then shows the state.
	failedPublishes = 3
	failedFor       = 10 * time.Second
)

// storage tracks whether images can be stored.
type storage struct {
	read     time.Time // last successful read of IMAGES
	readErr  error     // error of the last read, nil after a success
	failures int       // failed publishes since the last success
	failed   time.Time // time of the last failure
	failure  error     // error of the last failure
}

// CheckStorage returns nil when images can be stored, and otherwise the reason: NATS or the stream IMAGES is
// unreachable, or publishing fails. It ignores a full stream and missing workers or results services.
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
	return fmt.Errorf("stream %s does not respond", streams.Images)
}

// RecordPublish records the outcome of a publish for a client.
func (a *Admission) RecordPublish(err error) {
	var p *v1.Problem
	if errors.As(err, &p) || errors.Is(err, bus.ErrFull) || errors.Is(err, context.Canceled) {
		return // the stream works, or the client has disconnected
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

// pollImages reads the stream IMAGES. It records an error when the stream has no leader.
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
