// Package pipelines is the command sightmesh pipelines check. It processes an image with the lanes of each pipeline of
// a file, without a mesh.
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

// Config is the configuration of check.
type Config struct {
	// Flags are the flags of the lanes. The memory limit of a stage takes precedence.
	lanes.Flags
	// Image is the file that each pipeline processes; empty for the sample page.
	Image string
}

// Register registers the flags of the configuration.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.Image, "image", "", "image `file` to process with each pipeline; empty: the sample page")
	c.Flags.Register(fs,
		"how long the lanes may take to load their models, and then each pipeline for the image",
		"limit of the resident memory of a lane in `bytes`, such as 2GiB, at least 16MiB, "+
			"where its stage has no memory limit; 0: no limit")
}

// Check reads the pipelines file at path, loads the models of each pipeline, processes an image with it, and prints one
// line for each pipeline. The error has the number of pipelines that failed.
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
		r := cfg.check(ctx, l, p, image)
		if ctx.Err() != nil {
			return exit.Interruptedf("interrupted: %w", ctx.Err())
		}
		if r.reason != "" {
			failed++
		}
		fmt.Fprintf(w, "%s\t%s\n", p.Name, r)
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

// row is the line of a pipeline in the table.
type row struct {
	state   string
	reason  string // why the pipeline failed; empty when it did not fail
	regions int
	elapsed time.Duration
	models  []v1.Model
}

// check processes the image with a pipeline.
func (c Config) check(ctx context.Context, l *lanes.Lanes, p pipeline.Pipeline, image []byte) row {
	if reason := l.Reason(p); reason != "" {
		return row{state: "not ready", reason: reason}
	}
	models := l.Models(p)
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	start := time.Now()
	r, err := l.Analyze(ctx, p, lanes.MediaType(image), image)
	elapsed := time.Since(start)
	switch {
	case err != nil:
		return row{state: "failed", reason: err.Error()}
	case r.Problem != nil:
		return row{state: "failed", reason: r.Problem.Error()}
	}
	return row{state: "ready", regions: len(r.Regions), elapsed: elapsed, models: models}
}

// String returns the columns after the name of the pipeline.
func (o row) String() string {
	if o.reason != "" {
		return fmt.Sprintf("%s\t\t\t%s", o.state, strings.Join(strings.Fields(o.reason), " "))
	}
	names := make([]string, len(o.models))
	for i, m := range o.models {
		names[i] = strings.TrimSpace(m.Name + " " + m.Version)
	}
	return fmt.Sprintf("%s\t%d\t%d ms\t%s", o.state, o.regions, o.elapsed.Milliseconds(), strings.Join(names, ", "))
}
