// Package args parses the arguments of a command.
package args

import (
	"errors"
	"flag"
	"io"

	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// Parse parses flags and other arguments in any order, and returns the other arguments. The error is
// [flag.ErrHelp], or an error of [exit.Usagef] for a wrong flag.
func Parse(fs *flag.FlagSet, args []string) (others []string, err error) {
	defer fs.SetOutput(fs.Output())
	fs.SetOutput(io.Discard) // main prints the error, or the usage
	for len(args) > 0 {
		if len(args[0]) > 1 && args[0][0] == '-' {
			err := fs.Parse(args)
			switch {
			case errors.Is(err, flag.ErrHelp):
				return nil, flag.ErrHelp
			case err != nil:
				return nil, exit.Usagef("%w; --help lists the flags", err)
			}
			args = fs.Args()
			continue
		}
		others, args = append(others, args[0]), args[1:]
	}
	return others, nil
}
