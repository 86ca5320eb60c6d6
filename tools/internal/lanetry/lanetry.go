// Package lanetry is the command sightmesh lane try. It starts a lane program as a worker does, and sends one image to
// the lane.
package lanetry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
	"github.com/sightmesh/sightmesh/tools/internal/lanes"
	"github.com/sightmesh/sightmesh/tools/internal/up"
)

// Config is the configuration of lane try.
type Config struct {
	// Stage is detect or classify.
	Stage string
	// Pipeline is the name of a pipeline, whose lane program is used; empty for the program of the arguments.
	Pipeline string
	// Pipelines is the pipelines file of Pipeline; empty for the built-in pipelines. It needs Pipeline.
	Pipelines string
	// Settings are the settings of the program of the arguments, as JSON; empty for none.
	Settings string
	// Crops requests the crops of the regions from the program of the arguments.
	Crops bool
	// Flags are the flags of the lane. The timeout and the memory limit of a pipeline take precedence.
	lanes.Flags
}

// Register registers the flags of the configuration.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.Stage, "stage", string(subject.Detect), "`stage` of the lane: detect or classify")
	fs.StringVar(&c.Pipeline, "pipeline", "", "`name` of a pipeline, whose lane program is used; empty: PROGRAM")
	fs.StringVar(&c.Pipelines, "pipelines", "", "pipelines `file` of --pipeline; empty: the built-in pipelines")
	fs.StringVar(&c.Settings, "settings", "", "settings for PROGRAM, as `JSON`; empty: none")
	fs.BoolVar(&c.Crops, "crops", false, "request crops from PROGRAM, as for a pipeline with classify")
	c.Flags.Register(fs,
		"how long the lane may take to load its models, and then for the image; a pipeline has its own timeout for the image",
		"limit of the resident memory of the lane in `bytes`, such as 2GiB, at least 16MiB, "+
			"where the pipeline has no memory limit; 0: no limit")
}

// trial is a lane program, and the image that is sent to it.
type trial struct {
	stage    subject.Stage
	pipeline pipeline.Pipeline
	program  pool.Program
	image    string
}

// Run starts the lane, sends the image to it, and prints the reply as JSON on stdout. It prints the output of the lane
// and the times on stderr. The error wraps a [*v1.Problem] when the reply is invalid or missing.
func Run(ctx context.Context, cfg Config, args []string, stdout, stderr io.Writer) (err error) {
	t, err := cfg.parse(args)
	if err != nil {
		return err
	}
	file, err := os.ReadFile(t.image)
	if err != nil {
		return exit.Usagef("image: %w%s", err, flagHint(args, "PROGRAM"))
	}
	models, err := filepath.Abs(cfg.Models)
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	l, err := lanes.StartLane(ctx, pool.Config{
		Stage: t.stage, Models: models, StartTimeout: cfg.Timeout, Programs: []pool.Program{t.program},
		Logger: slog.New(outputHandler{stderr}),
	})
	var notReady *lanes.NotReadyError
	switch {
	case ctx.Err() != nil:
		return exit.Interruptedf("interrupted: %w", ctx.Err())
	case errors.As(err, &notReady) && !isImage(file):
		return fmt.Errorf("the lane is not ready: %w (%s, the last argument, is not an image)", err, t.image)
	case errors.As(err, &notReady):
		return fmt.Errorf("the lane is not ready: %w", err)
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	fmt.Fprintf(stderr, "ready after %s\n", milliseconds(l.StartTime))
	for _, m := range l.Models(t.pipeline.Name) {
		fmt.Fprintf(stderr, "model %s %s\n", m.Name, m.Version)
	}
	began := time.Now()
	reply, timing, err := t.send(ctx, l, file)
	switch {
	case ctx.Err() != nil:
		return exit.Interruptedf("interrupted: %w", ctx.Err())
	case err != nil:
		return fmt.Errorf("%s: %w", t.image, err)
	}
	fmt.Fprintf(stderr, "%s took %s: decode %.1f ms, infer %.1f ms\n",
		t.stage, milliseconds(time.Since(began)), timing.DecodeMS, timing.InferMS)
	if memory, err := l.PeakMemory(t.pipeline.Name); err == nil {
		fmt.Fprintf(stderr, "memory %.1f MiB at most\n", float64(memory)/(1<<20))
	}
	e := json.NewEncoder(stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(reply); err != nil {
		return fmt.Errorf("print the reply: %w", err)
	}
	return nil
}

// wantArguments is the end of the error for missing arguments.
const wantArguments = "want PROGRAM [ARGUMENT...] IMAGE, or --pipeline NAME IMAGE"

// flagHint returns the end of an error for arguments with a flag, which has to come before the argument first. It is
// empty when no argument begins like a flag.
func flagHint(args []string, first string) string {
	if slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--") }) {
		return "; flags come before " + first
	}
	return ""
}

// isImage reports whether a file begins as an image does. A file that does not is sent to the lane too, because a lane
// has to reject it.
func isImage(file []byte) bool { return strings.HasPrefix(lanes.MediaType(file), "image/") }

// parse validates the configuration and the arguments.
func (c Config) parse(args []string) (t trial, err error) {
	t.stage = subject.Stage(c.Stage)
	if t.stage != subject.Detect && t.stage != subject.Classify {
		return t, exit.Usagef("stage: %q, want detect or classify", c.Stage)
	}
	if err := c.Validate(); err != nil {
		return t, err
	}
	switch {
	case c.Pipeline != "":
		return c.parsePipeline(t, args)
	case c.Pipelines != "":
		return t, exit.Usagef("pipelines: needs --pipeline")
	case c.Settings != "" && !json.Valid([]byte(c.Settings)):
		return t, exit.Usagef("settings: %q is not JSON", c.Settings)
	case len(args) == 0:
		return t, exit.Usagef("lane try: no arguments; %s", wantArguments)
	case len(args) == 1:
		return t, exit.Usagef("lane try: one argument, %s; %s", args[0], wantArguments)
	}
	argv, name := args[:len(args)-1], filepath.Base(args[0])
	settings := cmp.Or(c.Settings, "{}") // a stage without settings has an empty object too
	t.image = args[len(args)-1]
	t.pipeline = pipeline.Pipeline{Name: name, MaxRegions: pipeline.DefaultMaxRegions}
	if c.Crops {
		t.pipeline.Classify = &pipeline.Stage{}
	}
	t.program = pool.Program{
		Name: name, Argv: argv, Memory: c.MemoryLimit(),
		Pipelines: map[string]pool.Pipeline{
			name: {Setup: lane.Setup{Settings: json.RawMessage(settings)}, Timeout: c.Timeout},
		},
	}
	return t, nil
}

// parsePipeline finds the lane program of a pipeline.
func (c Config) parsePipeline(t trial, args []string) (trial, error) {
	switch {
	case len(args) != 1:
		return t, exit.Usagef("lane try --pipeline: want one image, have %d arguments%s", len(args),
			flagHint(args, "IMAGE"))
	case c.Settings != "" || c.Crops:
		return t, exit.Usagef("lane try --pipeline: --settings and --crops are for PROGRAM; the pipeline has its own")
	}
	t.image = args[0]
	all, err := pipeline.Load(c.Pipelines)
	if err != nil {
		return t, err
	}
	i := slices.IndexFunc(all, func(p pipeline.Pipeline) bool { return p.Name == c.Pipeline })
	if i < 0 {
		return t, exit.Usagef("pipeline: %q, want one of %s", c.Pipeline, strings.Join(pipeline.Names(all), ", "))
	}
	t.pipeline = all[i]
	s := t.pipeline.Stage(t.stage)
	if s == nil {
		return t, exit.Usagef("stage: pipeline %s has no %s", c.Pipeline, t.stage)
	}
	t.program, err = lanes.Config{Binary: up.FindBinary, Memory: c.MemoryLimit()}.Program(c.Pipeline, t.stage, s)
	if err != nil {
		return t, fmt.Errorf("pipeline %s: %w", c.Pipeline, err)
	}
	return t, nil
}

// send sends the image to the lane. A lane of detect gets the file, a lane of classify gets the whole image as one
// crop.
func (t trial) send(ctx context.Context, l *lanes.Lane, file []byte) (reply any, timing lane.Timing, err error) {
	if t.stage == subject.Classify {
		crop, pixels, err := lanes.WholeCrop(file)
		if err != nil {
			return nil, timing, err
		}
		named, err := l.Classify(ctx, lane.Classify{Pipeline: t.pipeline.Name, Crops: []lane.Crop{crop}}, pixels)
		return named, named.Timing, err
	}
	found, _, err := l.Detect(ctx, t.pipeline.DetectRequest(lanes.MediaType(file)), file)
	return found, found.Timing, err
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", v1.Milliseconds(d)) }
