package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// Program is something that speaks the lane protocol.
type Program struct {
	// Name is for logs and metrics.
	Name string
	// Argv is the program and its arguments.
	Argv []string
	// Pipelines it serves, by name.
	Pipelines map[string]Pipeline
	// Memory bounds each of its processes. A process that is over it when it
	// says ready is refused, and one that grows over it is ended.
	Memory MemoryLimit
}

// Pipeline is what a program is told of a pipeline, and how long it may work
// on one request of it.
type Pipeline struct {
	Setup   lane.Setup
	Timeout time.Duration
}

// Config of a pool. A pipeline is served by one program only.
type Config struct {
	Stage    subject.Stage
	Lanes    int
	Programs []Program
	// Models is the folder of models that every process is told of; it may be empty.
	Models string
	// ONNXRuntime is told to every process; it may be nil.
	ONNXRuntime *lane.ONNXRuntime
	// MaxJobs is how many requests a process answers before it is replaced;
	// 0 for any number.
	MaxJobs int
	// StartTimeout is how long a process may take to load its models.
	StartTimeout time.Duration
	// Metrics, Tracer and Logger may be nil: then nothing is counted, traced or
	// logged.
	Metrics Metrics
	Tracer  Tracer
	Logger  *slog.Logger
}

// Pool is a number of lanes.
type Pool struct {
	cfg    Config
	lanes  []*Lane
	free   chan *Lane
	ready  chan struct{} // closed when every process was started once
	closed chan struct{} // closed when Run has ended
	// starting bounds how many processes load models at a time. Those that failed before
	// have a turn of their own, so that one that hangs keeps no other from starting.
	starting, startingAgain chan struct{}
	lastID                  atomic.Uint64 // of requests

	mu        sync.Mutex
	busy      int
	serviceMS map[string]float64
	refused   map[string]bool // programs of which a refusal was logged
}

// ErrClosed is returned by Acquire after Run has ended.
var ErrClosed = errors.New("the lanes have ended")

// New checks the configuration; Run starts the processes.
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
		serviceMS: map[string]float64{}, refused: map[string]bool{},
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

// Run starts the processes and keeps them running until ctx ends; then it ends
// them and returns when every one is gone.
func (p *Pool) Run(ctx context.Context) error {
	defer close(p.closed)
	var g errgroup.Group
	var tried sync.WaitGroup
	for _, l := range p.lanes {
		for _, s := range l.all {
			tried.Add(1)
			g.Go(func() error {
				s.run(ctx, sync.OnceFunc(tried.Done))
				return nil
			})
		}
		p.free <- l
	}
	g.Go(func() error {
		tried.Wait()
		close(p.ready)
		return nil
	})
	g.Go(func() error {
		p.watchMemory(ctx)
		return nil
	})
	<-ctx.Done() // also where there are no programs
	return g.Wait()
}

// Ready is closed once every process has loaded its models or failed to.
func (p *Pool) Ready() <-chan struct{} { return p.ready }

// Lanes is how many requests can be at work.
func (p *Pool) Lanes() int { return p.cfg.Lanes }

// Busy is how many are at work now.
func (p *Pool) Busy() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy
}

// Acquire waits for a free lane that can serve some pipeline. The caller gives
// it back with Release.
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
			up, c := s.serving()
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

// waitAny waits for one of cs; false means that ctx or closed ended it.
func waitAny(ctx context.Context, closed <-chan struct{}, cs []<-chan struct{}) bool {
	if len(cs) < 2 { // the usual case
		var only <-chan struct{} // nothing ever changes in a pool without programs
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
	// Several programs: look again soon rather than select over any number.
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

// Status says how each pipeline is served.
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

// addServiceTime takes how long a lane was held by a request into the mean.
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

// setRefused notes whether the program was refused when one of its processes
// was started last, and returns what was noted before.
func (p *Pool) setRefused(program string, refused bool) (before bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.refused[program]
	p.refused[program] = refused
	return before
}

func (p *Pool) atWork(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy += n
	p.cfg.Metrics.SetBusy(p.busy)
}

// Lane is a process for each program of the pool. It belongs to the caller of
// Acquire, and its methods may be called by several goroutines at once.
type Lane struct {
	pool  *Pool
	all   []*slot
	slots map[string]*slot // by pipeline
}

// Release gives the lane back.
func (l *Lane) Release() {
	for _, s := range l.all {
		s.recycle()
	}
	l.pool.free <- l
}

// Pipelines lists those that the lane can serve now.
func (l *Lane) Pipelines() []string {
	var names []string
	for name, s := range l.slots {
		if s.status(name).Ready {
			names = append(names, name)
		}
	}
	return names
}

// Models of a pipeline, as its process has named them.
func (l *Lane) Models(pipeline string) []v1.Model { return l.slots[pipeline].status(pipeline).Models }

// Networks of a pipeline, as its process has described them.
func (l *Lane) Networks(pipeline string) []lane.Network {
	s := l.slots[pipeline]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loaded[pipeline].Networks
}

// PeakMemory returns the most resident bytes that the process that serves a pipeline has had.
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
