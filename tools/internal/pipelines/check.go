// Package pipelines is the command sightmesh pipelines: it checks a pipelines file by running
// an image through the lanes of each pipeline, without a mesh.
package pipelines

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/bytesize"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
	"github.com/sightmesh/sightmesh/tools/internal/lanes"
	"github.com/sightmesh/sightmesh/tools/internal/sample"
	"github.com/sightmesh/sightmesh/tools/internal/up"
)

// Config of check.
type Config struct {
	// Models is the folder in which pipelines find models by name.
	Models string
	// Image is the file that is run through each pipeline; empty for a page that is drawn.
	Image string
	// Timeout is how long the lanes may take to load their models, and then each pipeline
	// for the image.
	Timeout time.Duration
	// Memory is how much resident memory a lane may have whose stage says nothing else; 0
	// for any.
	Memory bytesize.Size
}

// Register makes flags of the configuration.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.Models, "models", cmp.Or(os.Getenv("SIGHTMESH_MODELS"), "models"),
		"`folder` of models; default from SIGHTMESH_MODELS")
	fs.StringVar(&c.Image, "image", "", "image `file` to process with each pipeline; empty: a drawn page")
	fs.DurationVar(&c.Timeout, "timeout", 30*time.Second,
		"how long the lanes may take to load their models, and then each pipeline for the image")
	c.Memory = 1 << 30
	fs.Var(&c.Memory, "lane-memory",
		"limit of the resident memory of a lane in `bytes`, such as 2GiB, at least 16MiB, "+
			"where its stage has no memory limit; 0: no limit")
}

// Check reads the pipelines file at path, loads the models of each pipeline, runs an image
// through it, and prints a line for each. The error says how many failed.
func Check(ctx context.Context, cfg Config, path string, out io.Writer) (err error) {
	if err := cfg.validate(); err != nil {
		return err
	}
	image, err := cfg.readImage()
	if err != nil {
		return err
	}
	all, err := pipeline.Load(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return exit.Usagef("%w", err)
	case err != nil:
		return err
	}
	l, err := lanes.Start(ctx, lanes.Config{
		Binary: up.FindBinary, Models: cfg.Models, StartTimeout: cfg.Timeout,
		Memory: pool.MemoryLimit{Bytes: int64(cfg.Memory), Setting: "--lane-memory"},
	}, all)
	if err != nil {
		return interruptedError(ctx, err)
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PIPELINE\tSTATE\tREGIONS\tTIME\tMODELS OR REASON")
	failed := 0
	for _, p := range all {
		o := cfg.try(ctx, l, p, image)
		if ctx.Err() != nil {
			return interruptedError(ctx, ctx.Err())
		}
		if o.why != "" {
			failed++
		}
		fmt.Fprintf(w, "%s\t%s\n", p.Name, o)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d pipelines failed", failed, len(all))
	}
	return nil
}

func (c Config) validate() error {
	switch {
	case c.Timeout <= 0:
		return exit.Usagef("timeout: %v, want more than 0", c.Timeout)
	case c.Memory != 0 && c.Memory < pipeline.MinMemory:
		return exit.Usagef("lane-memory: %v, want 0 or at least %v", c.Memory, pipeline.MinMemory)
	}
	return nil
}

func (c Config) readImage() ([]byte, error) {
	if c.Image == "" {
		return sample.PageFile()
	}
	image, err := os.ReadFile(c.Image)
	if err != nil {
		return nil, exit.Usagef("image: %w", err)
	}
	return image, nil
}

// interruptedError returns the error of work that ended, which may be an interrupt of the command.
func interruptedError(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return &exit.Error{Status: exit.Interrupted, Err: fmt.Errorf("interrupted: %w", err)}
}

// outcome is what became of a pipeline.
type outcome struct {
	state   string
	why     string // it failed; empty when it did not
	regions int
	took    time.Duration
	models  []v1.Model
}

// try runs the image through a pipeline.
func (c Config) try(ctx context.Context, l *lanes.Lanes, p pipeline.Pipeline, image []byte) outcome {
	if why := l.Reason(p); why != "" {
		return outcome{state: "not ready", why: why}
	}
	models := l.Models(p)
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	start := time.Now()
	r, err := l.Analyze(ctx, p, lanes.MediaType(image), image)
	took := time.Since(start)
	switch {
	case err != nil:
		return outcome{state: "failed", why: err.Error()}
	case r.Problem != nil:
		return outcome{state: "failed", why: r.Problem.Error()}
	}
	return outcome{state: "ready", regions: len(r.Regions), took: took, models: models}
}

// String returns the columns of an outcome.
func (o outcome) String() string {
	if o.why != "" {
		return fmt.Sprintf("%s\t\t\t%s", o.state, strings.Join(strings.Fields(o.why), " "))
	}
	names := make([]string, len(o.models))
	for i, m := range o.models {
		names[i] = strings.TrimSpace(m.Name + " " + m.Version)
	}
	return fmt.Sprintf("%s\t%d\t%d ms\t%s", o.state, o.regions, o.took.Milliseconds(), strings.Join(names, ", "))
}
