// Command classify classifies the crops of images. It consumes the stream CROPS and
// publishes the result to RESULTS, or to PARTS if the crops of the image are in several
// messages. Run as "classify lane" it is one of its own child processes, which run the
// native code.
package main

import (
	"flag"
	"os"

	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/classify/internal/classifiers"
	"github.com/sightmesh/sightmesh/services/classify/internal/classify"
	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/internal/worker"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == worker.LaneCommand {
		os.Exit(worker.LaneMain(subject.Classify, os.Args[2:], classifiers.Run))
	}
	var options worker.Options
	os.Exit(run.Main(run.Spec{
		Name:        string(subject.Classify),
		Description: "Classifies the regions of images.",
		Flags:       func(fs *flag.FlagSet) { options.Register(fs) },
		Validate:    func(all []pipeline.Pipeline) error { return options.Validate(all, subject.Classify) },
		New: func(p *run.Process) (run.Service, error) {
			return worker.NewService(p, subject.Classify, options, classify.New(p.Pipelines))
		},
	}))
}
