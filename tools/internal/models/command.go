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

// Config of ls and pull.
type Config struct {
	// Models is the folder of models.
	Models string
	// From is a folder in which pull looks for files first; it may be empty.
	From string
	// Timeout is how long pull may take; 0 for any time.
	Timeout time.Duration
}

// RegisterList makes flags of what ls takes.
func (c *Config) RegisterList(fs *flag.FlagSet) { lanes.RegisterModels(&c.Models, fs) }

// RegisterPull makes flags of what pull takes.
func (c *Config) RegisterPull(fs *flag.FlagSet) {
	lanes.RegisterModels(&c.Models, fs)
	fs.StringVar(&c.From, "from", "", "`folder` in which files are searched first, at any depth; empty: none")
	fs.DurationVar(&c.Timeout, "timeout", 0,
		"how long the downloads may take; 0: no limit; what was downloaded is kept for the next run")
}

// List prints the catalogue, and what is there of each entry.
func List(cfg Config, out io.Writer) error {
	c, err := BuiltIn()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSIZE\tLICENCE\tSTATE\tWHAT IT IS")
	for _, e := range c.Entries {
		files, err := e.filesFor(runtime.GOOS + "/" + runtime.GOARCH)
		if err != nil {
			fmt.Fprintf(w, "%s\t\t\tnot for this machine\t%s\n", e.Name, e.About)
			continue
		}
		is, err := e.statusOf(filepath.Join(cfg.Models, e.Name), files)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.Name, megabytes(totalBytes(files)), licences(files), is, e.About)
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

// Pull fetches the models of the names, which are those of entries and sets. One that cannot be had does not
// keep the others from being fetched. Progress goes to progress, the outcome to out.
func Pull(ctx context.Context, cfg Config, names []string, out, progress io.Writer) error {
	if len(names) == 0 {
		return exit.Usagef("no model: name models or sets; sightmesh models ls lists them")
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
	interrupted := ctx
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
	var there []string
	var failed []error
	for _, e := range entries {
		what, err := p.pull(ctx, e)
		switch {
		case interrupted.Err() != nil:
			return exit.Interruptedf("pull %s: interrupted", e.Name)
		case err != nil:
			failed = append(failed, err)
			continue
		case what != "":
			fmt.Fprintln(out, what)
		}
		there = append(there, e.Name)
	}
	fmt.Fprintf(out, "%d of %d models are in %s: %s\n",
		len(there), len(entries), cfg.Models, cmp.Or(strings.Join(there, ", "), "none"))
	if len(failed) > 0 {
		return fmt.Errorf("models pull:\n%w", errors.Join(failed...))
	}
	return nil
}
