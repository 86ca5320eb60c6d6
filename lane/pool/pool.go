package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// Program is a lane program.
type Program struct {
	// Name is the name of the program in logs and metrics.
	Name string
	// Argv is the program and its arguments. It must not be empty.
	Argv []string
	// Pipelines are the pipelines that the program serves, by name.
	Pipelines map[string]Pipeline
	// Memory limits each process of the program. A process that exceeds it before it serves
	// a request is rejected, and one that exceeds it later is killed.
	Memory MemoryLimit
}

// Pipeline is the configuration of a pipeline that is sent to a program, and how long the
// program may work on one request of the pipeline.
type Pipeline struct {
	Setup   lane.Setup
	Timeout time.Duration
}

// Config configures a pool. Only one program can serve a pipeline.
type Config struct {
	Stage subject.Stage
	// Lanes is the number of lanes, at least 1.
	Lanes    int
	Programs []Program
	// Models is the folder of models that is sent to every process. It may be empty.
	Models string
	// ONNXRuntime is sent to every process. It may be nil.
	ONNXRuntime *lane.ONNXRuntime
	// MaxJobs is the number of requests after which a process is replaced. 0 means no limit.
	MaxJobs int
	// StartTimeout is how long a process may take until it is ready.
	StartTimeout time.Duration
	// Metrics, Tracer and Logger may be nil, which means no metrics, traces or logs.
	Metrics Metrics
	Tracer  Tracer
	Logger  *slog.Logger
}

// A Pool has a number of lanes. It is safe for concurrent use.
type Pool struct {
	cfg    Config
	lanes  []*Lane
	free   chan *Lane
	ready  chan struct{} // closed when the first start of every process has ended
	closed chan struct{} // closed when Run has ended
	// starting limits how many processes load models at a time. Processes that failed before
	// use startingAgain, so that a process that hangs does not delay the start of others.
	starting, startingAgain chan struct{}
	lastID                  atomic.Uint64 // of requests

	mu        sync.Mutex
	busy      map[*process]busyRequest
	serviceMS map[string]float64
	rejected  map[string]bool // programs whose rejection was logged
}

// ErrClosed is returned by Acquire after Run has ended.
var ErrClosed = errors.New("the lane pool is closed")

// New returns a pool. It checks the configuration; [Pool.Run] starts the processes.
func New(cfg Config) (*Pool, error) {
	if cfg.Lanes < 1 {
		return nil, fmt.Errorf("lanes: %d, want 1 or more", cfg.Lanes)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = discard{}
	}
	if cfg.Tracer == nil {
		cfg.Tracer = discard{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	served := map[string]string{}
	for _, prog := range cfg.Programs {
		if len(prog.Argv) == 0 {
			return nil, fmt.Errorf("lane program %s: no command", prog.Name)
		}
		if prog.Memory.Bytes < 0 {
			return nil, fmt.Errorf("lane program %s: memory of %d bytes, want 0 or more", prog.Name, prog.Memory.Bytes)
		}
		for name := range prog.Pipelines {
			if other, ok := served[name]; ok {
				return nil, fmt.Errorf("pipeline %s: served by lane programs %s and %s", name, other, prog.Name)
			}
			served[name] = prog.Name
		}
	}
	p := &Pool{
		cfg: cfg, free: make(chan *Lane, cfg.Lanes), ready: make(chan struct{}), closed: make(chan struct{}),
		starting: make(chan struct{}, runtime.NumCPU()), startingAgain: make(chan struct{}, 1),
		busy: map[*process]busyRequest{}, serviceMS: map[string]float64{}, rejected: map[string]bool{},
	}
	for n := range cfg.Lanes {
		l := &Lane{pool: p, slots: map[string]*slot{}}
		for _, prog := range cfg.Programs {
			s := newSlot(p, prog, n)
			l.all = append(l.all, s)
			for name := range prog.Pipelines {
				l.slots[name] = s
			}
		}
		p.lanes = append(p.lanes, l)
	}
	return p, nil
}

// Run starts the processes and replaces those that end, until ctx ends. It then kills them
// and returns when all of them have ended.
func (p *Pool) Run(ctx context.Context) error {
	defer close(p.closed)
	var g errgroup.Group
	var firstStarts sync.WaitGroup
	var limited []*slot
	for _, l := range p.lanes {
		for _, s := range l.all {
			if s.prog.Memory.Bytes > 0 {
				limited = append(limited, s)
			}
			firstStarts.Add(1)
			g.Go(func() error {
				s.run(ctx, sync.OnceFunc(firstStarts.Done))
				return nil
			})
		}
		p.free <- l
	}
	g.Go(func() error {
		firstStarts.Wait()
		close(p.ready)
		return nil
	})
	if len(limited) > 0 {
		g.Go(func() error {
			watchMemory(ctx, limited)
			return nil
		})
	}
	<-ctx.Done() // also without programs
	return g.Wait()
}

// Ready returns a channel that is closed when every process is ready or has failed to start.
func (p *Pool) Ready() <-chan struct{} { return p.ready }

// Lanes returns the number of lanes.
func (p *Pool) Lanes() int { return p.cfg.Lanes }

// Busy returns the lanes that process a request, the longest first.
func (p *Pool) Busy() []v1.BusyLane {
	p.mu.Lock()
	defer p.mu.Unlock()
	lanes := make([]v1.BusyLane, 0, len(p.busy))
	for proc, r := range p.busy {
		lanes = append(lanes, v1.BusyLane{
			Pipeline: r.pipeline, PID: proc.pid(), BusyMS: v1.Milliseconds(time.Since(r.start)),
		})
	}
	slices.SortFunc(lanes, func(a, b v1.BusyLane) int { return cmp.Compare(b.BusyMS, a.BusyMS) })
	return lanes
}

// Acquire waits for a free lane that can serve at least one pipeline. The caller returns it
// with [Lane.Release].
func (p *Pool) Acquire(ctx context.Context) (*Lane, error) {
	var l *Lane
	select {
	case l = <-p.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.closed:
		return nil, ErrClosed
	}
	for {
		changed := make([]<-chan struct{}, 0, len(l.all))
		for _, s := range l.all {
			up, c := s.isServing()
			if up {
				return l, nil
			}
			changed = append(changed, c)
		}
		if !waitAny(ctx, p.closed, changed) {
			p.free <- l
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, ErrClosed
		}
	}
}

// waitAny waits for one of cs. It returns false when ctx or closed ends first.
func waitAny(ctx context.Context, closed <-chan struct{}, cs []<-chan struct{}) bool {
	if len(cs) < 2 { // the usual case
		var only <-chan struct{} // nil in a pool without programs, where nothing changes
		if len(cs) == 1 {
			only = cs[0]
		}
		select {
		case <-only:
			return true
		case <-ctx.Done():
		case <-closed:
		}
		return false
	}
	// Several programs: poll, because select needs a fixed number of channels.
	t := time.NewTimer(10 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-closed:
	}
	return false
}

// Status returns the state of each pipeline.
func (p *Pool) Status() map[string]v1.PipelineStatus {
	out := map[string]v1.PipelineStatus{}
	for _, l := range p.lanes {
		for name, s := range l.slots {
			st := s.status(name)
			if old, ok := out[name]; !ok || (st.Ready && !old.Ready) {
				out[name] = st
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, st := range out {
		st.ServiceMS = p.serviceMS[name]
		out[name] = st
	}
	return out
}

// addServiceTime adds the service time of a request to the moving average.
func (p *Pool) addServiceTime(pipeline string, d time.Duration) {
	const weight = 0.1 // of the newest
	ms := v1.Milliseconds(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, ok := p.serviceMS[pipeline]; ok {
		ms = old + weight*(ms-old)
	}
	p.serviceMS[pipeline] = ms
}

// setRejected records whether the last process of the program that was started was rejected,
// and returns the previous value.
func (p *Pool) setRejected(program string, rejected bool) (before bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.rejected[program]
	p.rejected[program] = rejected
	return before
}

// busyRequest is a request that a process works on.
type busyRequest struct {
	pipeline string
	start    time.Time
}

// startRequest records that a process works on a request.
func (p *Pool) startRequest(proc *process, r busyRequest) {
	proc.working.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy[proc] = r
	p.cfg.Metrics.SetBusy(len(p.busy))
}

// endRequest records that a process does not work on its request any more.
func (p *Pool) endRequest(proc *process) {
	proc.working.Store(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.busy, proc)
	p.cfg.Metrics.SetBusy(len(p.busy))
}

// A Lane has a process of each program of the pool. It belongs to the caller of
// [Pool.Acquire]. It is safe for concurrent use by multiple goroutines.
type Lane struct {
	pool  *Pool
	all   []*slot
	slots map[string]*slot // by pipeline
}

// Release returns the lane to the pool.
func (l *Lane) Release() {
	for _, s := range l.all {
		s.recycleIfDue()
	}
	l.pool.free <- l
}

// Pipelines returns the pipelines that the lane can serve now.
func (l *Lane) Pipelines() []string {
	var names []string
	for name, s := range l.slots {
		if s.status(name).Ready {
			names = append(names, name)
		}
	}
	return names
}

// Models returns the models of a pipeline.
func (l *Lane) Models(pipeline string) []v1.Model { return l.slots[pipeline].status(pipeline).Models }

// Networks returns the networks of a pipeline.
func (l *Lane) Networks(pipeline string) []lane.Network {
	s := l.slots[pipeline]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loaded[pipeline].Networks
}

// PeakMemory returns the peak resident size, in bytes, of the process that serves a pipeline.
func (l *Lane) PeakMemory(pipeline string) (int64, error) {
	s := l.slots[pipeline]
	s.mu.Lock()
	proc := s.proc
	s.mu.Unlock()
	if proc == nil {
		return 0, fmt.Errorf("no process serves pipeline %s now", pipeline)
	}
	return peakBytes(proc.pid())
}
