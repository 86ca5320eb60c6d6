package main

import (
	"bytes"
	"flag"
	"fmt"
	"strings"

	"github.com/peterbourgon/ff/v3/ffcli"
)

// setUsage sets the usage function of a command and its subcommands.
func setUsage(c *ffcli.Command) {
	c.UsageFunc = usage
	for _, sub := range c.Subcommands {
		setUsage(sub)
	}
}

// usage returns the output of --help. It lists flags in the form of package flag, as the services do.
func usage(c *ffcli.Command) string {
	var out strings.Builder
	withoutFlags := *c
	withoutFlags.FlagSet = flag.NewFlagSet("", flag.ContinueOnError)
	out.WriteString(ffcli.DefaultUsageFunc(&withoutFlags))
	flags := printDefaults(c.FlagSet)
	if flags == "" {
		return out.String()
	}
	fmt.Fprintf(&out, "\nFLAGS\n%s", flags)
	if len(c.Options) > 0 { // ff.WithEnvVarPrefix
		out.WriteString("\nEach of these flags can be given as an environment variable: -max-store as SIGHTMESH_MAX_STORE.\n")
	}
	return out.String()
}

func printDefaults(fs *flag.FlagSet) string {
	var out bytes.Buffer
	defer fs.SetOutput(fs.Output())
	fs.SetOutput(&out)
	fs.PrintDefaults()
	return out.String()
}
