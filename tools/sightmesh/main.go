// Command sightmesh runs a mesh on one machine and sets one up on a NATS of your own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/peterbourgon/ff/v3"
	"github.com/peterbourgon/ff/v3/ffcli"
	"github.com/prometheus/common/version"

	"github.com/sightmesh/sightmesh/contracts"
	"github.com/sightmesh/sightmesh/tools/internal/bench"
	"github.com/sightmesh/sightmesh/tools/internal/send"
	"github.com/sightmesh/sightmesh/tools/internal/setup"
	"github.com/sightmesh/sightmesh/tools/internal/up"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rootFlags := flag.NewFlagSet("sightmesh", flag.ContinueOnError)
	showVersion := rootFlags.Bool("version", false, "print the version and exit")
	root := &ffcli.Command{
		FlagSet:     rootFlags,
		ShortUsage:  "sightmesh <command> [flags]",
		ShortHelp:   "Pictures in, answers out, over NATS.",
		Subcommands: []*ffcli.Command{upCommand(), setupCommand(), sendCommand(), benchCommand()},
		Exec: func(context.Context, []string) error {
			if !*showVersion {
				return flag.ErrHelp
			}
			fmt.Printf("sightmesh %s (commit %s, %s)\n", contracts.Version, version.GetRevision(), runtime.Version())
			return nil
		},
	}
	err := root.ParseAndRun(ctx, os.Args[1:])
	var exit *send.ExitError
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 2
	case errors.As(err, &exit):
		fmt.Fprintln(os.Stderr, "sightmesh:", err)
		return exit.Code
	case err != nil:
		fmt.Fprintln(os.Stderr, "sightmesh:", err)
		return 1
	}
	return 0
}

func upCommand() *ffcli.Command {
	fs := flag.NewFlagSet("up", flag.ContinueOnError)
	var cfg up.Config
	cfg.Register(fs)
	return &ffcli.Command{
		Name: "up", ShortUsage: "sightmesh up [flags]",
		ShortHelp: "run the whole mesh on this machine until Ctrl-C",
		FlagSet:   fs, Options: []ff.Option{ff.WithEnvVarPrefix("SIGHTMESH")},
		Exec: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("up takes no arguments, only flags: %q", args)
			}
			return up.Run(ctx, cfg, os.Stdout, os.Stderr)
		},
	}
}

func setupCommand() *ffcli.Command {
	fs := flag.NewFlagSet("setup", flag.ContinueOnError)
	var cfg setup.Config
	cfg.Register(fs)
	return &ffcli.Command{
		Name: "setup", ShortUsage: "sightmesh setup [flags]",
		ShortHelp: "create or update the streams and consumers of a mesh",
		FlagSet:   fs, Options: []ff.Option{ff.WithEnvVarPrefix("SIGHTMESH")},
		Exec: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("setup takes no arguments, only flags: %q", args)
			}
			return setup.Run(ctx, cfg, os.Stdout)
		},
	}
}

func sendCommand() *ffcli.Command {
	fs := flag.NewFlagSet("send", flag.ContinueOnError)
	var cfg send.Config
	cfg.Register(fs)
	return &ffcli.Command{
		Name: "send", ShortUsage: "sightmesh send PATH... [flags]",
		ShortHelp: "have folders of pictures read by a running mesh",
		FlagSet:   fs,
		Exec: func(ctx context.Context, args []string) error {
			if err := cfg.ParseArgs(fs, args); err != nil {
				return flag.ErrHelp
			}
			return send.Command(ctx, cfg, os.Stdin, os.Stdout, os.Stderr)
		},
	}
}

func benchCommand() *ffcli.Command {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	var cfg bench.Config
	cfg.Register(fs)
	floorFlags := flag.NewFlagSet("bench floor", flag.ContinueOnError)
	var floor bench.Config
	floor.RegisterFloor(floorFlags)
	return &ffcli.Command{
		Name: "bench", ShortUsage: "sightmesh bench [flags] PICTURE...",
		ShortHelp: "measure a running mesh, or with floor the bare pipeline under it",
		FlagSet:   fs,
		Subcommands: []*ffcli.Command{{
			Name: "floor", ShortUsage: "sightmesh bench floor [flags]",
			ShortHelp: "measure the bare three-hop JetStream pipeline",
			FlagSet:   floorFlags,
			Exec: func(ctx context.Context, _ []string) error {
				return bench.FloorCommand(ctx, floor, os.Stdout)
			},
		}},
		Exec: func(ctx context.Context, args []string) error {
			return bench.Command(ctx, cfg, args, os.Stdout)
		},
	}
}
