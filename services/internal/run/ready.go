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

// Reasons of a process that is not ready because of itself.
var (
	errStarting = errors.New("starting")
	errStopping = errors.New("stopping")
)

// readiness is what /readyz answers and the log says of it.
//
//	starting ⇄ ready ⇄ not ready → stopping
//
// Every state may become stopping, which is the last.
type readiness struct {
	admin *telemetry.Admin
	log   *slog.Logger

	mu  sync.Mutex
	err error // why it is not ready; nil while it is
}

// set makes the process ready, or not ready because of err. What /readyz answers
// is in the log by then. It has no effect after stop.
func (r *readiness) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.err
	if errors.Is(was, errStopping) {
		return
	}
	r.err = err
	if err == nil {
		if was != nil {
			r.log.Info("ready")
		}
		r.admin.SetReady()
		return
	}
	if was == nil || errors.Is(was, errStarting) {
		r.log.Warn("not ready", "reason", err.Error())
	}
	r.admin.SetNotReady(err.Error())
}

// stop makes the process not ready for good.
func (r *readiness) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errStopping
	r.admin.SetNotReady(errStopping.Error())
}

// KeepReady makes the process ready once check returns nil, and takes that back
// while it returns why not, until ctx ends; then the process is stopping. One
// failure changes nothing, two in a row do: a connection is soon made again, and
// a stream soon has a new leader.
//
// It calls check every period, not again before it has returned. A service
// calls KeepReady once, and waits for it.
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
	// consumersPeriod is the time between two looks at the consumers of a
	// process. A look is one request for each, as many as one idle lane makes to
	// pull in that time. With the pipelines text and faces, 100 workers make 200
	// requests a second; one needs 0.1 ms of CPU, client and server together.
	consumersPeriod = 2 * time.Second
	// consumersTimeout bounds one look.
	consumersTimeout = 2 * time.Second
)

// KeepReadyToPull is [Process.KeepReady] for a process that pulls from
// consumers. It is ready while NATS can be reached and every consumer answers:
// one that was deleted does not, nor does one of a stream that was deleted, or
// of a server whose JetStream is disabled.
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
				err = fmt.Errorf("no answer in %v", consumersTimeout)
			}
			if err != nil {
				return fmt.Errorf("read consumer %s of %s: %w", c.Name, c.Stream, err)
			}
			return nil
		})
	}
	return g.Wait()
}
