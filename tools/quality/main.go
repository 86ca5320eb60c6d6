// Command quality measures the results of the pipelines of a mesh on images whose content a
// person has written down.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sightmesh/sightmesh/tools/internal/exit"
	"github.com/sightmesh/sightmesh/tools/internal/quality"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fs := flag.NewFlagSet("quality", flag.ContinueOnError)
	var cfg quality.Config
	cfg.Register(fs)
	if err := fs.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return exit.Usage
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "quality takes no arguments, only flags; have %q\n", fs.Arg(0))
		return exit.Usage
	}
	err := quality.Command(ctx, cfg, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "quality:", err)
	}
	return exit.Status(err)
}
