// Package lanes runs the lane programs of pipelines without a mesh.
package lanes

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/lane/pool"
)

// Config is the configuration of lanes. Binary and StartTimeout are required.
type Config struct {
	// Binary returns the path of the binary of a service. The binary has the built-in lane program of its stage.
	Binary func(service string) (string, error)
	// Models is the folder of models.
	Models string
	// Count is the number of lanes of each stage; 0 means 1.
	Count int
	// StartTimeout is how long a lane may take to load its models.
	StartTimeout time.Duration
	// Memory is the memory limit of lanes whose stage has no limit.
	Memory pool.MemoryLimit
}

// Lanes are the lanes of both stages. Each lane has a process for each pipeline.
type Lanes struct {
	detect, classify         *pool.Pool
	stopDetect, stopClassify func() error
}

// Start starts the lanes of the pipelines, and returns when each has loaded its models or failed. [Lanes.Reason] has
// the reason of a failure. The caller must call Close.
func Start(ctx context.Context, cfg Config, pipelines []pipeline.Pipeline) (*Lanes, error) {
	detect, err := cfg.pool(subject.Detect, pipelines)
	if err != nil {
		return nil, err
	}
	classify, err := cfg.pool(subject.Classify, pipelines)
	if err != nil {
		return nil, err
	}
	l := &Lanes{}
	var g errgroup.Group // both stages start at the same time
	g.Go(func() (err error) {
		l.detect, l.stopDetect, err = Run(ctx, detect)
		return err
	})
	g.Go(func() (err error) {
		l.classify, l.stopClassify, err = Run(ctx, classify)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Run starts the lanes of a pool, and returns when each has loaded its models or failed. The caller must call stop,
// which ends the lanes and waits for their end. The error wraps the error of ctx when ctx ends first.
func Run(ctx context.Context, cfg pool.Config) (p *pool.Pool, stop func() error, err error) {
	p, err = pool.New(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("start lanes of %s: %w", cfg.Stage, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stop = func() error {
		cancel()
		return <-ended
	}
	select {
	case <-p.Ready():
		return p, stop, nil
	case <-ctx.Done():
		return nil, nil, errors.Join(fmt.Errorf("start lanes of %s: %w", cfg.Stage, ctx.Err()), stop())
	}
}

// pool returns the configuration of the lanes of a stage, for the pipelines that have the stage.
func (c Config) pool(stage subject.Stage, pipelines []pipeline.Pipeline) (pool.Config, error) {
	models, err := filepath.Abs(c.Models)
	if err != nil {
		return pool.Config{}, fmt.Errorf("models: %w", err)
	}
	out := pool.Config{Stage: stage, Lanes: max(c.Count, 1), Models: models, StartTimeout: c.StartTimeout}
	for _, p := range pipelines {
		s := p.Stage(stage)
		if s == nil {
			continue
		}
		program, err := c.Program(p.Name, stage, s)
		if err != nil {
			return out, fmt.Errorf("pipeline %s: %s: %w", p.Name, stage, err)
		}
		out.Programs = append(out.Programs, program)
	}
	return out, nil
}

// Program returns the lane program of a stage of a pipeline. No other pipeline shares its process.
func (c Config) Program(name string, stage subject.Stage, s *pipeline.Stage) (pool.Program, error) {
	setup, err := s.Setup()
	if err != nil {
		return pool.Program{}, err
	}
	memory := c.Memory
	if n, err := s.MemoryLimit(); err != nil {
		return pool.Program{}, fmt.Errorf("memory: %w", err)
	} else if n > 0 {
		memory = pool.MemoryLimit{Bytes: n, Setting: fmt.Sprintf("%s.memory of pipeline %s", stage, name)}
	}
	argv := s.Lane
	if len(argv) == 0 {
		binary, err := c.Binary(string(stage))
		if err != nil {
			return pool.Program{}, err
		}
		argv = []string{binary, "lane"}
	}
	return pool.Program{
		Name: name, Argv: argv, Memory: memory,
		Pipelines: map[string]pool.Pipeline{name: {Setup: setup, Timeout: s.Timeout}},
	}, nil
}

// Close ends the lanes and waits for their end.
func (l *Lanes) Close() error {
	var errs []error
	for _, stop := range []func() error{l.stopDetect, l.stopClassify} {
		if stop != nil {
			errs = append(errs, stop())
		}
	}
	return errors.Join(errs...)
}

// Reason returns why a pipeline is not ready, or "" when it is ready.
func (l *Lanes) Reason(p pipeline.Pipeline) string {
	if s := l.detect.Status()[p.Name]; !s.Ready {
		return fmt.Sprintf("%s: %s", subject.Detect, s.Reason)
	}
	if s := l.classify.Status()[p.Name]; p.Classify != nil && !s.Ready {
		return fmt.Sprintf("%s: %s", subject.Classify, s.Reason)
	}
	return ""
}

// Models returns the models of a pipeline that is ready.
func (l *Lanes) Models(p pipeline.Pipeline) []v1.Model {
	return slices.Concat(l.detect.Status()[p.Name].Models, l.classify.Status()[p.Name].Models)
}

// Analyze processes an image with a pipeline that is ready. The result has the same regions as a result of the mesh,
// and the times of the lanes. Analyze waits for a free lane of each stage. It is safe for concurrent use by multiple
// goroutines.
func (l *Lanes) Analyze(ctx context.Context, p pipeline.Pipeline, mediaType string, image []byte) (v1.Result, error) {
	r := v1.Result{Pipeline: p.Name, Status: v1.Done, Timings: &v1.Timings{}}
	detect, err := l.detect.Acquire(ctx)
	if err != nil {
		return r, fmt.Errorf("wait for a lane of detect: %w", err)
	}
	found, pixels, err := detect.Detect(ctx, p.DetectRequest(mediaType), image)
	detect.Release()
	if err != nil {
		return failedResult(r, err)
	}
	r.Timings.Decode, r.Timings.Detect = found.Timing.DecodeMS, found.Timing.InferMS
	named, err := l.classifyCrops(ctx, p, found, pixels, r.Timings)
	if err != nil {
		return failedResult(r, err)
	}
	for i, f := range found.Regions {
		if a := named[i]; !a.Drop {
			r.Regions = append(r.Regions, newRegion(f, a))
		}
	}
	return r, nil
}

// classifyCrops returns the labels of the crops from a lane of classify, by the index of the region.
func (l *Lanes) classifyCrops(
	ctx context.Context, p pipeline.Pipeline, found lane.Detected, pixels []byte, t *v1.Timings,
) (map[int]lane.CropLabel, error) {
	if len(found.Crops) == 0 {
		return nil, nil
	}
	classify, err := l.classify.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for a lane of classify: %w", err)
	}
	defer classify.Release()
	named := map[int]lane.CropLabel{}
	for _, crops := range cropBatches(found, p.CropsPerMessage) {
		size := 0
		for _, c := range crops {
			size += c.Width * c.Height * c.Channels
		}
		classified, err := classify.Classify(ctx, lane.Classify{Pipeline: p.Name, Crops: crops}, pixels[:size])
		if err != nil {
			return nil, err
		}
		t.Classify += classified.Timing.DecodeMS + classified.Timing.InferMS
		for i, a := range classified.Answers {
			named[crops[i].Region] = a
		}
		pixels = pixels[size:]
	}
	return named, nil
}

// cropBatches groups the crops as the mesh groups them into messages: at most n crops and, unless it is a single crop,
// half of the maximum size of a message.
func cropBatches(found lane.Detected, n int) [][]lane.Crop {
	const maxBytes = streams.MaxMessage / 2
	var all [][]lane.Crop
	size := 0
	for _, c := range found.Crops {
		bytes := c.Width * c.Height * c.Channels
		if last := len(all) - 1; last < 0 || len(all[last]) == n || size+bytes > maxBytes {
			all, size = append(all, nil), 0
		}
		size += bytes
		all[len(all)-1] = append(all[len(all)-1], lane.Crop{
			Region: c.Region, Width: c.Width, Height: c.Height, Channels: c.Channels,
			Label: found.Regions[c.Region].Label,
		})
	}
	return all
}

// newRegion returns a region with the labels of its crop, which are zero for a region without a crop.
func newRegion(f lane.Region, a lane.CropLabel) v1.Region {
	r := v1.Region{
		Box: f.Box, Polygon: f.Polygon, Score: f.Score, Label: f.Label, Text: f.Text, Landmarks: f.Landmarks,
		Labels: a.Labels, Embedding: a.Embedding,
	}
	if a.Text != "" {
		r.Text, r.Score = a.Text, a.Score
	}
	return r
}

// failedResult returns a failed result for a problem with the image. Any other error is returned.
func failedResult(r v1.Result, err error) (v1.Result, error) {
	var p *v1.Problem
	if !errors.As(err, &p) {
		return r, fmt.Errorf("analyze in lanes: %w", err)
	}
	r.Status, r.Problem, r.Regions = v1.Failed, p, nil
	return r, nil
}
