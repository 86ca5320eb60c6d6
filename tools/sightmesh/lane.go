package main

import (
	"context"
	"flag"
	"os"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/sightmesh/sightmesh/tools/internal/lanetry"
)

func laneCommand() *ffcli.Command {
	return requireSubcommand(&ffcli.Command{
		Name: "lane", ShortUsage: "sightmesh lane <command>",
		ShortHelp:   "try a lane program",
		FlagSet:     flag.NewFlagSet("lane", flag.ContinueOnError),
		Subcommands: []*ffcli.Command{laneTryCommand()},
	})
}

func laneTryCommand() *ffcli.Command {
	fs := flag.NewFlagSet("lane try", flag.ContinueOnError)
	var cfg lanetry.Config
	cfg.Register(fs)
	return &ffcli.Command{
		Name: "try", ShortUsage: "sightmesh lane try [flags] PROGRAM [ARGUMENT...] IMAGE, or [flags] --pipeline NAME IMAGE",
		ShortHelp: "start a lane program as a worker does, and send one image to it",
		FlagSet:   fs,
		Exec: func(ctx context.Context, argv []string) error {
			return lanetry.Run(ctx, cfg, argv, os.Stdout, os.Stderr)
		},
	}
}
