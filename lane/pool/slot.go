package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// slot is a place for one process of a program. When the process ends, run starts another.
type slot struct {
	pool *Pool
	prog Program
	lane int // number of the lane, for logs
	// turn is locked by the request that the process works on.
	turn sync.Mutex

	mu      sync.Mutex
	proc    *process               // nil while none is ready
	loading *process               // the one that loads its models, nil if there is none
	loaded  map[string]lane.Loaded // pipelines of the last ready process
	reason  string                 // why none is ready
	changed chan struct{}          // closed and replaced when any of this changes
}

// starting is the reason before the first process is ready or has failed.
const starting = "starting"

func newSlot(p *Pool, prog Program, n int) *slot {
	return &slot{pool: p, prog: prog, lane: n, reason: starting, changed: make(chan struct{})}
}

// restartBackoff has the delays before the start of another process after one that has not
// served a request. There is no delay after a process that has.
var restartBackoff = retry.Exponential(100*time.Millisecond, 10*time.Second, 2)

// rejectedBackoff has the delays after a process that was rejected. They are long, because
// another process loads its models and is rejected too, until the program or its files
// change.
var rejectedBackoff = retry.Exponential(time.Minute, time.Hour, 2)

// restartDelay returns how long to wait before the next start. failures is the number of
// consecutive processes that served no request; the last of them ended with err.
func restartDelay(err error, failures int) time.Duration {
	var rejected *rejectedError
	switch {
	case failures < 1:
		return 0
	case errors.As(err, &rejected):
		return rejectedBackoff.Delay(failures)
	}
	return restartBackoff.Delay(failures)
}

// run keeps a process running until ctx ends. It calls onFirstStart when the first process is ready
// or has failed.
func (s *slot) run(ctx context.Context, onFirstStart func()) {
	defer onFirstStart()
	failures := 0 // consecutive processes that served no request
	starting := s.pool.starting
	for ctx.Err() == nil {
		proc, err := s.start(ctx, starting)
		if err == nil {
			onFirstStart()
			starting = s.pool.starting
			select {
			case <-proc.dead:
			case <-ctx.Done():
				proc.kill(errStopped)
				<-proc.dead
			}
			s.clearProcess(proc)
			err = proc.endReason()
			if proc.jobs.Load() > 0 || errors.Is(err, errRecycled) {
				failures = -1
			}
		} else {
			s.setProcess(nil, nil, err.Error())
			starting = s.pool.startingAgain
		}
		onFirstStart()
		if ctx.Err() != nil {
			return
		}
		s.reportEnd(proc, err)
		failures++
		if retry.Sleep(ctx, restartDelay(err, failures)) != nil {
			return
		}
	}
}

// start starts a process and waits until it is ready. It rejects the process when it exceeds
// its memory limit. The capacity of turns is how many processes may start at a time.
func (s *slot) start(ctx context.Context, turns chan struct{}) (*process, error) {
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	proc, err := startProcess(s.prog, s.pool.cfg.Logger.With("program", s.prog.Name, "lane", s.lane))
	if err != nil {
		return nil, err
	}
	s.setLoading(proc)
	defer s.setLoading(nil)
	stop := context.AfterFunc(ctx, func() { proc.kill(errStopped) })
	loaded, err := proc.handshake(s.pool.cfg, s.prog)
	stop()
	if err != nil {
		proc.kill(err)
		<-proc.dead
		reason := proc.endReason()
		var rejected *rejectedError
		switch {
		case errors.As(reason, &rejected):
			return nil, rejected
		case errors.Is(reason, errProtocol):
			return nil, fmt.Errorf("start lane program %s: %w", s.prog.Name, reason)
		}
		return nil, fmt.Errorf("start lane program %s: no ready message: %w", s.prog.Name, reason)
	}
	if size, over := proc.exceeds(s.prog.Memory); over {
		err := &rejectedError{s.prog.Name, size, s.prog.Memory, "when it is ready"}
		proc.kill(err)
		<-proc.dead
		return nil, err
	}
	s.pool.setRejected(s.prog.Name, false)
	s.setProcess(proc, loaded, "")
	return proc, nil
}

func (s *slot) setLoading(proc *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loading = proc
}

func (s *slot) setProcess(proc *process, loaded map[string]lane.Loaded, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc, s.loaded, s.reason = proc, loaded, reason
	close(s.changed)
	s.changed = make(chan struct{})
}

// clearProcess removes a process that has ended. Its pipelines stay ready, because another process
// is started immediately.
func (s *slot) clearProcess(proc *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == proc {
		s.proc = nil
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// reportEnd logs and counts that a process has ended.
func (s *slot) reportEnd(proc *process, err error) {
	reason := restartReason(err)
	s.pool.cfg.Metrics.AddRestart(s.prog.Name, reason)
	log := s.pool.cfg.Logger.With("program", s.prog.Name, "lane", s.lane, "reason", reason, "error", err)
	if proc != nil {
		log = log.With("pid", proc.pid(), "jobs", proc.jobs.Load())
	}
	var rejected *rejectedError
	switch {
	case errors.Is(err, errRecycled):
		log.Info("lane is replaced")
	case !errors.As(err, &rejected):
		log.Warn("lane ended")
	case s.pool.setRejected(s.prog.Name, true):
		log.Debug("lane is rejected again")
	default:
		log.Error("lane is rejected")
	}
}

// awaitProcess returns the process, and waits until one is ready.
func (s *slot) awaitProcess(ctx context.Context, limit time.Duration) (*process, error) {
	t := time.NewTimer(limit)
	defer t.Stop()
	for {
		if err := ctx.Err(); err != nil { // the process does not end with a request that it has not received
			return nil, err
		}
		s.mu.Lock()
		proc, changed := s.proc, s.changed
		s.mu.Unlock()
		if proc != nil && !proc.isDead() {
			return proc, nil
		}
		if proc != nil { // it has ended, and run has not called down yet
			s.clearProcess(proc)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.C:
			return nil, fmt.Errorf("lane program %s is not ready after %v", s.prog.Name, limit)
		}
	}
}

// isServing reports whether a pipeline is served. If not, it returns a channel that is closed
// when this may have changed.
func (s *slot) isServing() (bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		for _, l := range s.loaded {
			if l.Error == "" {
				return true, nil
			}
		}
	}
	return false, s.changed
}

func (s *slot) status(pipeline string) v1.PipelineStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.loaded[pipeline]
	switch {
	case !ok:
		return v1.PipelineStatus{Reason: s.reason, Starting: s.reason == starting}
	case l.Error != "":
		return v1.PipelineStatus{Reason: l.Error}
	}
	return v1.PipelineStatus{Ready: true, Models: l.Models}
}

// recycleIfDue kills the process if it has served MaxJobs requests. It is called between
// requests.
func (s *slot) recycleIfDue() {
	maxJobs := s.pool.cfg.MaxJobs
	s.mu.Lock()
	proc := s.proc
	s.mu.Unlock()
	if maxJobs > 0 && proc != nil && proc.jobs.Load() >= int64(maxJobs) {
		s.clearProcess(proc) // no request gets it any more
		proc.kill(errRecycled)
	}
}
