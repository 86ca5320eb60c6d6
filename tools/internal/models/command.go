package models

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sightmesh/sightmesh/tools/internal/exit"
	"github.com/sightmesh/sightmesh/tools/internal/lanes"
)

// Config is the configuration of ls and pull.
type Config struct {
	// Models is the folder of models.
	Models string
	// From is a folder that pull searches for files first; empty for none.
	From string
	// Timeout is how long pull may take; 0 for no limit.
	Timeout time.Duration
}

// RegisterList registers the flags of ls.
func (c *Config) RegisterList(fs *flag.FlagSet) { lanes.RegisterModels(&c.Models, fs) }

// RegisterPull registers the flags of pull.
func (c *Config) RegisterPull(fs *flag.FlagSet) {
	lanes.RegisterModels(&c.Models, fs)
	fs.StringVar(&c.From, "from", "", "`folder` in which files are searched first, at any depth; empty: none")
	fs.DurationVar(&c.Timeout, "timeout", 0,
		"how long the downloads may take; 0: no limit; what was downloaded is kept for the next run")
}

// List prints the catalogue, with the state of each entry.
func List(cfg Config, out io.Writer) error {
	c, err := BuiltIn()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSIZE\tLICENCE\tSTATE\tDESCRIPTION")
	for _, e := range c.Entries {
		files, err := e.filesFor(runtime.GOOS + "/" + runtime.GOARCH)
		if err != nil {
			fmt.Fprintf(w, "%s\t\t\tnot for this platform\t%s\n", e.Name, e.About)
			continue
		}
		status, err := e.readStatus(filepath.Join(cfg.Models, e.Name), files)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.Name, megabytes(totalBytes(files)), licences(files), status, e.About)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "SET\tMODELS")
	for _, set := range slices.Sorted(maps.Keys(c.Sets)) {
		fmt.Fprintf(w, "%s\t%s\n", set, strings.Join(c.Sets[set], ", "))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the catalogue: %w", err)
	}
	return nil
}

// Pull fetches models by the names of entries and sets. When a model cannot be fetched, Pull continues with the next
// one. Progress is printed on progress, the installed models on out.
func Pull(ctx context.Context, cfg Config, names []string, out, progress io.Writer) error {
	if len(names) == 0 {
		return exit.Usagef("models pull: no model; sightmesh models ls lists the models and sets")
	}
	c, err := BuiltIn()
	if err != nil {
		return err
	}
	entries, err := c.Select(names)
	if err != nil {
		return exit.Usagef("%w", err)
	}
	return pullAll(ctx, cfg, entries, out, progress)
}

func pullAll(ctx context.Context, cfg Config, entries []Entry, out, progress io.Writer) (err error) {
	parent := ctx
	if cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, cfg.Timeout, fmt.Errorf("not finished after %v (--timeout)", cfg.Timeout))
		defer cancel()
	}
	p, done, err := newPuller(cfg.Models, cfg.From, newProgress(progress))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	var installed []string
	var failed []error
	for _, e := range entries {
		message, err := p.pull(ctx, e)
		switch {
		case parent.Err() != nil:
			return exit.Interruptedf("pull %s: interrupted", e.Name)
		case err != nil:
			failed = append(failed, err)
			continue
		case message != "":
			fmt.Fprintln(out, message)
		}
		installed = append(installed, e.Name)
	}
	fmt.Fprintf(out, "%d of %d models are installed in %s: %s\n",
		len(installed), len(entries), cfg.Models, cmp.Or(strings.Join(installed, ", "), "none"))
	if len(failed) > 0 {
		return fmt.Errorf("models pull:\n%w", errors.Join(failed...))
	}
	return nil
}
