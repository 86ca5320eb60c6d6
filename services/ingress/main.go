// Command ingress accepts images over HTTP and NATS, stores them as jobs, and returns
// their results.
package main

import (
	"flag"
	"os"

	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/ingress"
	"github.com/sightmesh/sightmesh/services/internal/run"
)

func main() {
	var options ingress.Options
	os.Exit(run.Main(run.Spec{
		Name:        "ingress",
		Description: "Accepts images over HTTP and NATS, and returns their results.",
		Flags:       func(fs *flag.FlagSet) { options.Register(fs) },
		Validate:    func([]pipeline.Pipeline) error { return options.Validate() },
		New:         func(p *run.Process) (run.Service, error) { return ingress.New(p, options) },
	}))
}
