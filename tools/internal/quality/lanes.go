package quality

import (
	"bytes"
	"context"
	"encoding/json"
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

// lanes are one lane of each stage with no mesh round them.
type lanes struct {
	detect, classify *pool.Pool
	stop             context.CancelFunc
	running          errgroup.Group
}

// startLanes runs the lane programs of the pipelines. The caller closes them.
func startLanes(ctx context.Context, cfg Config, pipelines []pipeline.Pipeline) (*lanes, error) {
	models, err := filepath.Abs(cfg.Models)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	l := &lanes{}
	ctx, l.stop = context.WithCancel(ctx)
	for _, stage := range []struct {
		name subject.Stage
		pool **pool.Pool
	}{{subject.Detect, &l.detect}, {subject.Classify, &l.classify}} {
		c := pool.Config{Stage: stage.name, Lanes: 1, Models: models, StartTimeout: time.Minute}
		for _, p := range pipelines {
			program, ok, err := programOf(p, stage.name, cfg.Bin)
			if err != nil {
				return nil, errors.Join(err, l.close())
			}
			if ok {
				c.Programs = append(c.Programs, program)
			}
		}
		started, err := pool.New(c)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start lanes of %s: %w", stage.name, err), l.close())
		}
		*stage.pool = started
		l.running.Go(func() error { return started.Run(ctx) })
	}
	for _, p := range []*pool.Pool{l.detect, l.classify} {
		select {
		case <-p.Ready():
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), l.close())
		}
		for name, s := range p.Status() {
			if !s.Ready {
				return nil, errors.Join(fmt.Errorf("start lanes of pipeline %s: %s", name, s.Reason), l.close())
			}
		}
	}
	return l, nil
}

// programOf returns the lane program of a stage of the pipeline, a process of its own; ok
// is false when the pipeline does not have the stage.
func programOf(p pipeline.Pipeline, stage subject.Stage, bin string) (_ pool.Program, ok bool, err error) {
	s := &p.Detect
	if stage == subject.Classify {
		s = p.Classify
	}
	if s == nil {
		return pool.Program{}, false, nil
	}
	setup, err := s.Setup()
	if err != nil {
		return pool.Program{}, false, fmt.Errorf("pipeline %s: %s: %w", p.Name, stage, err)
	}
	argv := s.Lane
	if len(argv) == 0 {
		argv = []string{filepath.Join(bin, string(stage)), "lane"}
	}
	return pool.Program{
		Name: p.Name, Argv: argv, Pipelines: map[string]pool.Pipeline{p.Name: {Setup: setup, Timeout: s.Timeout}},
	}, true, nil
}

// close ends the lanes and waits for them.
func (l *lanes) close() error {
	l.stop()
	return l.running.Wait()
}

// analyze returns the regions of an image, as the services make them of what the lanes
// answer, and the time that the lanes worked.
func (l *lanes) analyze(ctx context.Context, p pipeline.Pipeline, mediaType string, image []byte) (v1.Result, error) {
	r := v1.Result{Pipeline: p.Name, Status: v1.Done, Timings: &v1.Timings{}}
	detect, err := l.detect.Acquire(ctx)
	if err != nil {
		return r, fmt.Errorf("wait for a lane of detect: %w", err)
	}
	found, pixels, err := detect.Detect(ctx, lane.Detect{
		Pipeline: p.Name, MediaType: mediaType, MaxRegions: p.MaxRegions, Crops: p.Classify != nil,
	}, image)
	detect.Release()
	if err != nil {
		return failed(r, err)
	}
	r.Timings.Decode, r.Timings.Detect = found.Timing.DecodeMS, found.Timing.InferMS
	if len(found.Regions) == 0 || p.Classify == nil {
		for _, f := range found.Regions {
			r.Regions = append(r.Regions, regionOf(f))
		}
		return r, nil
	}
	classify, err := l.classify.Acquire(ctx)
	if err != nil {
		return r, fmt.Errorf("wait for a lane of classify: %w", err)
	}
	defer classify.Release()
	regions := found.Regions
	for _, crops := range messages(found, p.CropsPerMessage) {
		size := 0
		for _, c := range crops {
			size += c.Width * c.Height * c.Channels
		}
		named, err := classify.Classify(ctx, lane.Classify{Pipeline: p.Name, Crops: crops}, pixels[:size])
		if err != nil {
			return failed(r, err)
		}
		r.Timings.Classify += named.Timing.DecodeMS + named.Timing.InferMS
		for i, a := range named.Answers {
			if !a.Drop {
				r.Regions = append(r.Regions, namedRegion(regions[i], a))
			}
		}
		pixels, regions = pixels[size:], regions[len(crops):]
	}
	return r, nil
}

// messages returns the crops as the mesh puts them into messages: at most n of them, and
// fewer where they are large.
func messages(found lane.Detected, n int) [][]lane.Crop {
	const most = streams.MaxMessage / 2 // bytes
	var all [][]lane.Crop
	size := 0
	for i, c := range found.Crops {
		bytes := c.Width * c.Height * c.Channels
		if last := len(all) - 1; last < 0 || len(all[last]) == n || size+bytes > most {
			all, size = append(all, nil), 0
		}
		size += bytes
		all[len(all)-1] = append(all[len(all)-1], lane.Crop{
			Region: c.Region, Width: c.Width, Height: c.Height, Channels: c.Channels, Label: found.Regions[i].Label,
		})
	}
	return all
}

func regionOf(f lane.Region) v1.Region {
	return v1.Region{
		Box: f.Box, Polygon: f.Polygon, Score: f.Score, Label: f.Label, Text: f.Text, Landmarks: f.Landmarks,
	}
}

func namedRegion(f lane.Region, a lane.CropLabel) v1.Region {
	r := regionOf(f)
	r.Labels, r.Embedding = a.Labels, a.Embedding
	if a.Text != "" {
		r.Text, r.Score = a.Text, a.Score
	}
	return r
}

// failed makes the result of a problem with the image; any other error is one of the lanes.
func failed(r v1.Result, err error) (v1.Result, error) {
	var p *v1.Problem
	if !errors.As(err, &p) {
		return r, fmt.Errorf("lanes alone: %w", err)
	}
	r.Status, r.Problem, r.Regions = v1.Failed, p, nil
	return r, nil
}

// agree reports whether the result of a mesh has the regions, labels, texts and scores that
// the lanes have answered, or the same problem. The boxes of words are not compared: lanes
// give them in pixels of the crop.
func agree(mesh, alone v1.Result) bool {
	if mesh.Problem != nil || alone.Problem != nil {
		return mesh.Problem != nil && alone.Problem != nil && mesh.Problem.Code == alone.Problem.Code
	}
	return slices.EqualFunc(mesh.Regions, alone.Regions, func(m, a v1.Region) bool {
		m.Fraction, m.Words = v1.Fraction{}, nil
		of, errM := json.Marshal(m) // in which a list that is empty and one that is missing are the same
		want, errA := json.Marshal(a)
		return errM == nil && errA == nil && bytes.Equal(of, want)
	})
}
