// Command results is the results service: it joins the parts of an image that was
// split, replies to requests that wait for a result, and returns results later on
// request.
package main

import (
	"flag"
	"os"

	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/results/internal/results"
)

func main() {
	var options results.Options
	os.Exit(run.Main(run.Spec{
		Name:        "results",
		Description: "Joins, stores and returns the results of jobs.",
		Flags:       func(fs *flag.FlagSet) { options.Register(fs) },
		New:         func(p *run.Process) (run.Service, error) { return results.New(p, options) },
	}))
}
