// Command sightmesh runs a mesh on one machine, and sets up a mesh on an existing NATS server.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/peterbourgon/ff/v3"
	"github.com/peterbourgon/ff/v3/ffcli"
	"github.com/prometheus/common/version"

	"github.com/sightmesh/sightmesh/contracts"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/tools/internal/args"
	"github.com/sightmesh/sightmesh/tools/internal/bench"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
	"github.com/sightmesh/sightmesh/tools/internal/models"
	"github.com/sightmesh/sightmesh/tools/internal/pipelines"
	"github.com/sightmesh/sightmesh/tools/internal/send"
	"github.com/sightmesh/sightmesh/tools/internal/setup"
	"github.com/sightmesh/sightmesh/tools/internal/up"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var help bytes.Buffer
	root := rootCommand()
	setUsage(root)
	captureUsage(root, &help)
	err := root.Parse(os.Args[1:])
	switch {
	case err == nil:
		err = root.Run(ctx)
	case !errors.Is(err, flag.ErrHelp):
		err = exit.Usagef("%w; --help lists the flags", err)
	}
	if errors.Is(err, flag.ErrHelp) {
		if _, err = help.WriteTo(os.Stdout); err == nil {
			return 0
		}
	}
	if err != nil {
		report(ctx, err)
	}
	return exit.Status(err)
}

// captureUsage makes the flag sets of a command and its subcommands write to usage. The caller prints usage for --help
// only, and not with the error of an invalid flag.
func captureUsage(c *ffcli.Command, usage *bytes.Buffer) {
	c.FlagSet.SetOutput(usage)
	for _, sub := range c.Subcommands {
		captureUsage(sub, usage)
	}
}

// report prints the error. After a signal it waits at most 0.5 s, because standard error can be blocked, for example
// by a pager that waits for a key.
func report(ctx context.Context, err error) {
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		fmt.Fprintln(os.Stderr, "sightmesh:", err)
	}()
	select {
	case <-printed:
		return
	case <-ctx.Done():
	}
	select {
	case <-printed:
	case <-time.After(500 * time.Millisecond):
	}
}

func rootCommand() *ffcli.Command {
	fs := flag.NewFlagSet("sightmesh", flag.ContinueOnError)
	showVersion := fs.Bool("version", false, "print the version and exit")
	root := &ffcli.Command{
		FlagSet:    fs,
		ShortUsage: "sightmesh <command> [flags]",
		ShortHelp:  "Find objects and read text in images, over HTTP and NATS.",
		Subcommands: []*ffcli.Command{
			upCommand(), setupCommand(), sendCommand(), benchCommand(), modelsCommand(), pipelinesCommand(), laneCommand(),
		},
	}
	root.Exec = func(_ context.Context, args []string) error {
		switch {
		case len(args) > 0:
			return exit.Usagef("unknown command %q; --help lists the commands", args[0])
		case !*showVersion:
			return exit.Usagef("no command\n\n%s", usage(root))
		}
		fmt.Printf("sightmesh %s (commit %s, %s)\n", contracts.Version, version.GetRevision(), runtime.Version())
		return nil
	}
	return root
}

// checkNoArguments rejects arguments of a command that has only flags.
func checkNoArguments(command string, args []string) error {
	if len(args) > 0 {
		return exit.Usagef("%s takes no arguments, only flags; have %q", command, args[0])
	}
	return nil
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
			if err := checkNoArguments("up", args); err != nil {
				return err
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
			if err := checkNoArguments("setup", args); err != nil {
				return err
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
		ShortHelp: "send folders of images to a running mesh",
		FlagSet:   fs,
		Exec: func(ctx context.Context, argv []string) error {
			var err error
			if cfg.Paths, err = args.Parse(fs, argv); err != nil {
				return err
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
		Name: "bench", ShortUsage: "sightmesh bench [flags] IMAGE...",
		ShortHelp: "measure a running mesh or, with floor, a bare JetStream pipeline",
		FlagSet:   fs,
		Subcommands: []*ffcli.Command{{
			Name: "floor", ShortUsage: "sightmesh bench floor [flags]",
			ShortHelp: "measure a bare JetStream pipeline of three messages for each image",
			FlagSet:   floorFlags,
			Exec: func(ctx context.Context, args []string) error {
				if err := checkNoArguments("bench floor", args); err != nil {
					return err
				}
				return bench.FloorCommand(ctx, floor, os.Stdout)
			},
		}},
		Exec: func(ctx context.Context, args []string) error {
			return bench.Command(ctx, cfg, args, os.Stdout)
		},
	}
}

func modelsCommand() *ffcli.Command {
	fs := flag.NewFlagSet("models", flag.ContinueOnError)
	return requireSubcommand(&ffcli.Command{
		Name: "models", ShortUsage: "sightmesh models <command>",
		ShortHelp: "list, fetch, check and measure models",
		FlagSet:   fs,
		Subcommands: []*ffcli.Command{
			modelsListCommand(), modelsPullCommand(), modelsCheckCommand(), modelsBenchCommand(),
		},
	})
}

// requireSubcommand makes a command without a subcommand a usage error.
func requireSubcommand(c *ffcli.Command) *ffcli.Command {
	c.Exec = func(_ context.Context, argv []string) error {
		if len(argv) > 0 {
			return exit.Usagef("unknown command %s %q; --help lists the commands", c.Name, argv[0])
		}
		return exit.Usagef("%s: no command\n\n%s", c.Name, usage(c))
	}
	return c
}

func pipelinesCommand() *ffcli.Command {
	return requireSubcommand(&ffcli.Command{
		Name: "pipelines", ShortUsage: "sightmesh pipelines <command>",
		ShortHelp:   "check a pipelines file, and print the built-in file",
		FlagSet:     flag.NewFlagSet("pipelines", flag.ContinueOnError),
		Subcommands: []*ffcli.Command{pipelinesCheckCommand(), pipelinesShowCommand()},
	})
}

func pipelinesCheckCommand() *ffcli.Command {
	fs := flag.NewFlagSet("pipelines check", flag.ContinueOnError)
	var cfg pipelines.Config
	cfg.Register(fs)
	return &ffcli.Command{
		Name: "check", ShortUsage: "sightmesh pipelines check FILE [flags]",
		ShortHelp: "load the models of each pipeline of a file, and process an image with it",
		FlagSet:   fs,
		Exec: func(ctx context.Context, argv []string) error {
			files, err := args.Parse(fs, argv)
			switch {
			case err != nil:
				return err
			case len(files) == 0:
				return exit.Usagef("pipelines check: no file; want one pipelines file")
			case len(files) > 1:
				return exit.Usagef("pipelines check: %d files, want one", len(files))
			case files[0] == "":
				return exit.Usagef("pipelines check: the name of the file is empty")
			}
			return pipelines.Check(ctx, cfg, files[0], os.Stdout)
		},
	}
}

func pipelinesShowCommand() *ffcli.Command {
	return &ffcli.Command{
		Name: "show", ShortUsage: "sightmesh pipelines show",
		ShortHelp: "print the built-in pipelines file",
		FlagSet:   flag.NewFlagSet("pipelines show", flag.ContinueOnError),
		Exec: func(_ context.Context, argv []string) error {
			if err := checkNoArguments("pipelines show", argv); err != nil {
				return err
			}
			_, err := os.Stdout.Write(pipeline.BuiltInFile())
			return err
		},
	}
}

func modelsListCommand() *ffcli.Command {
	fs := flag.NewFlagSet("models ls", flag.ContinueOnError)
	var cfg models.Config
	cfg.RegisterList(fs)
	return &ffcli.Command{
		Name: "ls", ShortUsage: "sightmesh models ls [flags]",
		ShortHelp: "list the models that can be fetched, and the installed ones",
		FlagSet:   fs,
		Exec: func(_ context.Context, argv []string) error {
			if err := checkNoArguments("models ls", argv); err != nil {
				return err
			}
			return models.List(cfg, os.Stdout)
		},
	}
}

func modelsPullCommand() *ffcli.Command {
	fs := flag.NewFlagSet("models pull", flag.ContinueOnError)
	var cfg models.Config
	cfg.RegisterPull(fs)
	return &ffcli.Command{
		Name: "pull", ShortUsage: "sightmesh models pull NAME... [flags]",
		ShortHelp: "fetch models, by name or in sets such as default",
		FlagSet:   fs,
		Exec: func(ctx context.Context, argv []string) error {
			names, err := args.Parse(fs, argv)
			if err != nil {
				return err
			}
			return models.Pull(ctx, cfg, names, os.Stdout, os.Stderr)
		},
	}
}

func modelsCheckCommand() *ffcli.Command {
	fs := flag.NewFlagSet("models check", flag.ContinueOnError)
	var cfg models.TrialConfig
	cfg.RegisterCheck(fs)
	const help = "load a model in a lane, and print its properties, times and memory"
	return trialCommand(fs, "check", help, &cfg, models.Check)
}

func modelsBenchCommand() *ffcli.Command {
	fs := flag.NewFlagSet("models bench", flag.ContinueOnError)
	var cfg models.TrialConfig
	cfg.RegisterBench(fs)
	return trialCommand(fs, "bench", "measure a model in a lane", &cfg, models.Bench)
}

// trialCommand returns a command that processes images with a model.
func trialCommand(
	fs *flag.FlagSet, name, help string, cfg *models.TrialConfig,
	try func(ctx context.Context, cfg models.TrialConfig, model string, images []string, out io.Writer) error,
) *ffcli.Command {
	return &ffcli.Command{
		Name: name, ShortUsage: "sightmesh models " + name + " NAME|DIR [flags] [IMAGE...]",
		ShortHelp: help, FlagSet: fs,
		Exec: func(ctx context.Context, argv []string) error {
			others, err := args.Parse(fs, argv)
			switch {
			case err != nil:
				return err
			case len(others) == 0:
				return exit.Usagef("models %s: no model; want the name of a model or the path of its folder", name)
			}
			return try(ctx, *cfg, others[0], others[1:], os.Stdout)
		},
	}
}
