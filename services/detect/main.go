// Command detect finds regions in images. It consumes the stream IMAGES and publishes the
// crops of the regions to CROPS, or the result to RESULTS when nothing is to be
// classified. It also draws regions on images. Run as "detect lane" it is one of its own
// child processes, which run the native code.
package main

import (
	"flag"
	"os"

	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/detect/internal/detect"
	"github.com/sightmesh/sightmesh/services/detect/internal/detectors"
	"github.com/sightmesh/sightmesh/services/detect/internal/drawings"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/internal/worker"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == worker.LaneCommand {
		os.Exit(worker.LaneMain(subject.Detect, os.Args[2:], detectors.Run))
	}
	var options worker.Options
	var drawOptions drawings.Options
	limits := imagefile.DefaultLimits()
	os.Exit(run.Main(run.Spec{
		Name:        string(subject.Detect),
		Description: "Finds regions in images.",
		Flags: func(fs *flag.FlagSet) {
			options.Register(fs)
			drawOptions.Register(fs)
			limits.Register(fs)
		},
		Validate: func(all []pipeline.Pipeline) error {
			if err := options.Validate(all, subject.Detect); err != nil {
				return err
			}
			return drawOptions.Validate()
		},
		New: func(p *run.Process) (run.Service, error) {
			w, err := worker.NewService(p, subject.Detect, options, detect.New(p.Pipelines, limits))
			if err != nil {
				return nil, err
			}
			d, err := drawings.New(p, drawOptions, options, limits)
			if err != nil || d == nil {
				return w, err
			}
			return run.Combine(w, d), nil
		},
	}))
}
