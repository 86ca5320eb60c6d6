// Command results ends jobs: it joins the parts of a picture that was split,
// answers whoever waits for a job, and tells everybody who asks later.
package main

import (
	"os"

	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/results/internal/results"
)

func main() {
	os.Exit(run.Main(run.Spec{
		Name:        "results",
		Description: "Joins, keeps and hands out the answers of jobs.",
		New:         func(p *run.Process) (run.Service, error) { return results.New(p) },
	}))
}
