// Command results ends jobs: it joins the parts of a picture that was split,
// answers whoever waits for a job, and tells everybody who asks later.
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
		Description: "Joins, keeps and hands out the answers of jobs.",
		Flags:       func(fs *flag.FlagSet) { options.Register(fs) },
		New:         func(p *run.Process) (run.Service, error) { return results.New(p, options) },
	}))
}
