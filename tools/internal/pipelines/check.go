// Package pipelines is the command sightmesh pipelines: it checks a pipelines file by running
// an image through the lanes of each pipeline, without a mesh.
package pipelines

import (
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
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
	"github.com/sightmesh/sightmesh/tools/internal/lanes"
	"github.com/sightmesh/sightmesh/tools/internal/sample"
	"github.com/sightmesh/sightmesh/tools/internal/up"
)

// Config of check.
type Config struct {
	// Flags are those of the lanes. The memory of a stage takes precedence.
	lanes.Flags
	// Image is the file that is run through each pipeline; empty for a page that is drawn.
	Image string
}

// Register makes flags of the configuration.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.Image, "image", "", "image `file` to process with each pipeline; empty: a drawn page")
	c.Flags.Register(fs,
		"how long the lanes may take to load their models, and then each pipeline for the image",
		"limit of the resident memory of a lane in `bytes`, such as 2GiB, at least 16MiB, "+
			"where its stage has no memory limit; 0: no limit")
}

// Check reads the pipelines file at path, loads the models of each pipeline, runs an image
// through it, and prints a line for each. The error says how many failed.
func Check(ctx context.Context, cfg Config, path string, out io.Writer) (err error) {
	if err := cfg.Validate(); err != nil {
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
		Memory: cfg.MemoryLimit(),
	}, all)
	switch {
	case err != nil && ctx.Err() != nil:
		return exit.Interruptedf("interrupted: %w", err)
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PIPELINE\tSTATE\tREGIONS\tTIME\tMODELS OR REASON")
	failed := 0
	for _, p := range all {
		o := cfg.try(ctx, l, p, image)
		if ctx.Err() != nil {
			return exit.Interruptedf("interrupted: %w", ctx.Err())
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

// outcome is what became of a pipeline.
type outcome struct {
	state   string
	why     string // it failed; empty when it did not
	regions int
	elapsed time.Duration
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
	elapsed := time.Since(start)
	switch {
	case err != nil:
		return outcome{state: "failed", why: err.Error()}
	case r.Problem != nil:
		return outcome{state: "failed", why: r.Problem.Error()}
	}
	return outcome{state: "ready", regions: len(r.Regions), elapsed: elapsed, models: models}
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
	return fmt.Sprintf("%s\t%d\t%d ms\t%s", o.state, o.regions, o.elapsed.Milliseconds(), strings.Join(names, ", "))
}
