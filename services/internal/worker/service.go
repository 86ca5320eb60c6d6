package worker

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/bytesize"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/run"
)

// memoryFlag is the flag of the memory limit of lanes whose pipelines set none.
const memoryFlag = "lane-memory"

// Options has the flags of every worker service.
type Options struct {
	lanes  int
	serve  string
	memory bytesize.Size
	jobs   int
	start  time.Duration
	models string
	onnx   lane.ONNXRuntime
}

// Register registers the flags.
func (o *Options) Register(fs *flag.FlagSet) {
	fs.IntVar(&o.lanes, "lanes", runtime.NumCPU(),
		"number of lanes, each of which processes one message at a time with one thread")
	fs.Lookup("lanes").DefValue = "number of CPUs" // for --help
	fs.StringVar(&o.serve, "serve", "", "`names` of the pipelines to serve, separated by commas; empty: all")
	o.memory = 1 << 30
	fs.Var(&o.memory, memoryFlag,
		"resident memory of a lane process in `bytes`, such as 2GiB, at least 16MiB: a process above it "+
			"is rejected at start, or killed; for lane programs whose pipelines have no memory limit; 0: no limit")
	fs.IntVar(&o.jobs, "lane-jobs", 10_000, "number of requests after which a lane process is replaced; 0: never")
	fs.DurationVar(&o.start, "lane-start", 30*time.Second,
		"how long a lane process may take to load its models before it is killed")
	fs.StringVar(&o.models, "models", "models", "`folder` in which pipelines find models by name")
	fs.StringVar(&o.onnx.Library, "onnxruntime", "", "`file` of the ONNX Runtime library; empty: the one in the "+
		"folder of models, else the one of the system")
	fs.Func("onnxruntime-providers", "ONNX Runtime providers that run networks, as `NAME[:GPU][,KEY=VALUE]...;...` "+
		"in order of preference: tensorrt, cuda, cpu (default cpu)", func(text string) (err error) {
		o.onnx.Providers, err = parseProviders(text)
		return err
	})
}

// Validate returns an error for options with which a worker of the stage cannot serve these pipelines.
func (o *Options) Validate(all []pipeline.Pipeline, stage subject.Stage) error {
	switch {
	case o.lanes < 1:
		return fmt.Errorf("lanes: %d, want 1 or more", o.lanes)
	case o.memory != 0 && o.memory < pipeline.MinMemory:
		return fmt.Errorf("%s: %v, want 0 or at least %v", memoryFlag, o.memory, pipeline.MinMemory)
	case o.jobs < 0:
		return fmt.Errorf("lane-jobs: %d, want 0 or more", o.jobs)
	case o.start <= 0:
		return fmt.Errorf("lane-start: %v, want more than 0", o.start)
	}
	_, err := o.servedPipelines(all, stage)
	return err
}

// PoolConfig returns a pool configuration with the limits of the options. The caller
// sets the number of lanes and the programs.
func (o *Options) PoolConfig() pool.Config {
	return pool.Config{MaxJobs: o.jobs, StartTimeout: o.start}
}

// MemoryLimit returns the memory limit of lane programs whose pipelines set none.
func (o *Options) MemoryLimit() pool.MemoryLimit {
	return pool.MemoryLimit{Bytes: int64(o.memory), Setting: "--" + memoryFlag}
}

type service struct {
	process *run.Process
	worker  *Worker
	pool    *pool.Pool
}

// NewService returns the service of a stage: a worker with lanes for every pipeline
// that has the stage. [Options.Validate] has accepted the options.
func NewService(p *run.Process, stage subject.Stage, o Options, h Handler) (run.Service, error) {
	models, err := filepath.Abs(o.models) // so that paths in messages of a lane can be found
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	onnx := o.onnx
	if onnx.Library != "" {
		if onnx.Library, err = filepath.Abs(onnx.Library); err != nil { // a lane may run elsewhere
			return nil, fmt.Errorf("onnxruntime: %w", err)
		}
	}
	pipelines, err := o.servedPipelines(p.Pipelines, stage)
	if err != nil {
		return nil, err
	}
	programs, served, err := programsFor(stage, pipelines, models, o.MemoryLimit())
	if err != nil {
		return nil, err
	}
	cfg := o.PoolConfig()
	cfg.Stage, cfg.Lanes, cfg.Programs, cfg.Models, cfg.ONNXRuntime = stage, o.lanes, programs, models, &onnx
	cfg.Metrics, cfg.Tracer, cfg.Logger = newLaneMetrics(p.Metrics, o.lanes), NewLaneTracer(p.Tracers), p.Logger
	lanes, err := pool.New(cfg)
	if err != nil {
		return nil, err
	}
	w := New(Config{
		Stage: stage, Pipelines: served, Handler: h, Pool: lanes, Conn: p.Conn, JetStream: p.JetStream,
		Clock: p.Clock, Publisher: p.Publisher, Tracers: p.Tracers, Logger: p.Logger, Metrics: p.Metrics,
	})
	p.Endpoints.Describe(map[string]string{
		"pipelines": strings.Join(pipeline.Names(served), ","), "lanes": strconv.Itoa(o.lanes),
	})
	if err := p.ServeStatus(func() any { return w.Status(p.Service, p.Instance, contracts.Version) },
		map[string]string{"response_schema": v1.SchemaID("worker-status")}); err != nil {
		return nil, err
	}
	return &service{process: p, worker: w, pool: lanes}, nil
}

// Run runs the worker. The process is ready when every lane has tried to load its
// models, while the state of all consumers can be read.
func (s *service) Run(ctx, hard context.Context) error {
	var g errgroup.Group
	running, ended := context.WithCancel(ctx)
	g.Go(func() error {
		defer ended()
		return s.worker.Run(ctx, hard)
	})
	s.process.Starting("lane programs load their models")
	g.Go(func() error {
		select {
		case <-s.pool.Ready():
			s.process.KeepReadyToPull(running, s.worker.consumers()...)
		case <-running.Done():
		}
		return nil
	})
	return g.Wait()
}

// consumers returns the consumers that the worker pulls from.
func (w *Worker) consumers() []run.Consumer {
	var cs []run.Consumer
	for _, s := range w.sources {
		cs = append(cs, run.Consumer{Stream: streams.WorkStream(w.cfg.Stage), Name: s.consumer})
	}
	return cs
}

// servedPipelines returns the pipelines that a worker of the stage serves.
func (o *Options) servedPipelines(all []pipeline.Pipeline, stage subject.Stage) ([]pipeline.Pipeline, error) {
	if o.serve == "" {
		return all, nil
	}
	var served []pipeline.Pipeline
	for name := range strings.SplitSeq(o.serve, ",") {
		i := slices.IndexFunc(all, func(p pipeline.Pipeline) bool { return p.Name == name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("serve: no pipeline %q; the pipelines are %s; --pipelines names another file", name,
				strings.Join(pipeline.Names(all), ", "))
		case all[i].Stage(stage) == nil:
			return nil, fmt.Errorf("serve: pipeline %s has no %s", name, stage)
		case slices.ContainsFunc(served, func(p pipeline.Pipeline) bool { return p.Name == name }):
			return nil, fmt.Errorf("serve: pipeline %s is given twice", name)
		}
		served = append(served, all[i])
	}
	return served, nil
}

// programsFor returns the lane programs of a stage, and the pipelines that they serve:
// this binary for the built-in kinds, and the program of a pipeline where the pipeline
// names one. A model may crash its process or hang, so that a pipeline with a model has
// its own process. A program has the largest memory limit of its pipelines, or memory
// when no pipeline sets one.
func programsFor(
	stage subject.Stage, pipelines []pipeline.Pipeline, models string, memory pool.MemoryLimit,
) ([]pool.Program, []pipeline.Pipeline, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("find this program: %w", err)
	}
	builtIn := pool.Program{Name: "built-in", Argv: []string{self, LaneCommand}, Pipelines: map[string]pool.Pipeline{}}
	var programs []pool.Program
	var served []pipeline.Pipeline
	for _, p := range pipelines {
		s := p.Stage(stage)
		if s == nil {
			continue
		}
		setup, err := s.Setup()
		if err != nil {
			return nil, nil, fmt.Errorf("pipeline %s: %s: %w", p.Name, stage, err)
		}
		limit, err := memoryLimit(p.Name, stage, s)
		if err != nil {
			return nil, nil, err
		}
		served = append(served, p)
		one := pool.Pipeline{Setup: setup, Timeout: s.Timeout}
		ofModel := hasModel(s, models)
		if len(s.Lane) == 0 && !ofModel {
			builtIn.Pipelines[p.Name] = one
			if limit.Bytes > builtIn.Memory.Bytes {
				builtIn.Memory = limit
			}
			continue
		}
		own := pool.Program{Name: p.Name, Argv: s.Lane, Pipelines: map[string]pool.Pipeline{p.Name: one}, Memory: limit}
		if ofModel {
			own.Argv = builtIn.Argv
		}
		programs = append(programs, own)
	}
	if len(builtIn.Pipelines) > 0 {
		programs = append([]pool.Program{builtIn}, programs...)
	}
	for i := range programs {
		if programs[i].Memory.Bytes == 0 {
			programs[i].Memory = memory
		}
	}
	return programs, served, nil
}

// memoryLimit returns the limit that the stage of a pipeline sets, which may be 0.
func memoryLimit(name string, stage subject.Stage, s *pipeline.Stage) (pool.MemoryLimit, error) {
	bytes, err := s.MemoryLimit()
	if err != nil {
		return pool.MemoryLimit{}, fmt.Errorf("pipeline %s: %s.memory: %w", name, stage, err)
	}
	return pool.MemoryLimit{Bytes: bytes, Setting: fmt.Sprintf("%s.memory of pipeline %s", stage, name)}, nil
}

// hasModel reports whether a stage loads a model whose folder exists.
func hasModel(s *pipeline.Stage, models string) bool {
	for _, c := range s.ByLabel {
		if isModel(c, models) {
			return true
		}
	}
	return isModel(pipeline.Classifier{Kind: s.Kind, Settings: s.Settings}, models)
}

func isModel(c pipeline.Classifier, models string) bool {
	name, _ := c.Settings["model"].(string)
	if c.Kind != "model" {
		return false
	}
	dir, err := model.Find(models, name)
	if err != nil {
		return false // the lane reports what is wrong
	}
	_, err = os.Stat(dir)
	return err == nil
}
