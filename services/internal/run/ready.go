package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Reasons why a process is not ready although its checks have not failed.
var (
	errStarting = errors.New("starting")
	errStopping = errors.New("stopping")
)

// readiness is the state of /readyz. It logs the changes of the state.
//
//	starting → ready ⇄ not ready → stopping
//
// Every state can change to stopping, which is final. starting can also change to not
// ready.
type readiness struct {
	admin *telemetry.Admin
	log   *slog.Logger

	mu  sync.Mutex
	err error // why it is not ready; nil while it is
}

// set makes the process ready or, if err is not nil, not ready because of err. The
// change is logged before /readyz returns it. set has no effect after stop.
func (r *readiness) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	previous := r.err
	if errors.Is(previous, errStopping) {
		return
	}
	r.err = err
	if err == nil {
		if previous != nil {
			r.log.Info("ready")
		}
		r.admin.SetReady()
		return
	}
	if previous == nil || errors.Is(previous, errStarting) {
		r.log.Warn("not ready", "reason", err.Error())
	}
	r.admin.SetNotReady(err.Error())
}

// starting sets what a process that is starting waits for, empty for nothing. It has no effect in any other state.
func (r *readiness) starting(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !errors.Is(r.err, errStarting) {
		return
	}
	r.err = errStarting
	if what != "" {
		r.err = fmt.Errorf("%w: %s", errStarting, what)
	}
	r.admin.SetNotReady(r.err.Error())
}

// stop makes the process not ready permanently.
func (r *readiness) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errStopping
	r.admin.SetNotReady(errStopping.Error())
}

// Starting sets what the process waits for before it is ready, such as "lane programs load their models". Empty means
// nothing. /readyz returns it. It has no effect when the process has been ready.
func (p *Process) Starting(what string) { p.readiness.starting(what) }

// KeepReady makes the process ready when check returns nil, and not ready after two
// consecutive errors. A single error changes nothing, because a connection is soon
// re-established and a stream soon has a new leader. When ctx ends, the process is
// stopping and KeepReady returns.
//
// It calls check every period, and never concurrently. A service calls KeepReady once
// and waits until it returns.
func (p *Process) KeepReady(ctx context.Context, period time.Duration, check func(context.Context) error) {
	defer p.readiness.stop()
	tick := time.NewTicker(period)
	defer tick.Stop()
	failures := 0 // in a row
	for {
		err := check(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures = 0
		} else {
			failures++
		}
		if failures != 1 {
			p.readiness.set(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Consumer names a consumer of JetStream.
type Consumer struct {
	Stream, Name string
}

const (
	// consumersPeriod is the time between two checks of the consumers of a process. A
	// check is one request for each consumer, as many as the pull requests of one idle
	// lane in that time. With the pipelines text and faces, 100 workers send 200
	// requests a second. A request needs 0.1 ms of CPU, client and server together.
	consumersPeriod = 2 * time.Second
	// consumersTimeout limits one check.
	consumersTimeout = 2 * time.Second
)

// KeepReadyToPull calls [Process.KeepReady] for a process that pulls from consumers.
// The process is ready while NATS can be reached and the state of every consumer can
// be read. That fails when the consumer or its stream was deleted, and when JetStream
// is disabled on the server.
func (p *Process) KeepReadyToPull(ctx context.Context, consumers ...Consumer) {
	p.KeepReady(ctx, consumersPeriod, func(ctx context.Context) error { return p.checkConsumers(ctx, consumers) })
}

func (p *Process) checkConsumers(ctx context.Context, consumers []Consumer) error {
	if !p.Conn.IsConnected() {
		return errors.New("NATS cannot be reached")
	}
	ctx, cancel := context.WithTimeout(ctx, consumersTimeout)
	defer cancel()
	var g errgroup.Group
	for _, c := range consumers {
		g.Go(func() error {
			_, err := p.JetStream.Consumer(ctx, c.Stream, c.Name)
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("no reply in %v", consumersTimeout)
			}
			if err != nil {
				return fmt.Errorf("read consumer %s of %s: %w", c.Name, c.Stream, err)
			}
			return nil
		})
	}
	return g.Wait()
}
