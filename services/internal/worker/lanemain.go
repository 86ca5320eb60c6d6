package worker

import (
	"fmt"
	"os"

	"github.com/sightmesh/sightmesh/contracts/subject"
)

// LaneCommand is the argument with which the binary of a worker runs as a lane
// program.
const LaneCommand = "lane"

// laneUsage is the text of --help. It has the name of the program and of the stage.
const laneUsage = `Usage: %[1]s

Runs the lane program of %[2]s, which holds its native code and models. The
worker %[2]s starts it as a child process. They exchange messages of the lane
protocol over a socket, which is file descriptor 3. The program has no flags.

To run it by hand with one image:

  sightmesh lane try --stage %[2]s --pipeline NAME IMAGE
`

// LaneMain runs the lane program of a stage and returns its exit status. args are the
// arguments after [LaneCommand]. serve serves the worker until the worker closes the socket.
func LaneMain(stage subject.Stage, args []string, serve func() error) int {
	name := string(stage) + " " + LaneCommand
	var err error
	switch {
	case len(args) == 0:
		err = serve()
	case args[0] == "--help" || args[0] == "-help" || args[0] == "-h":
		fmt.Printf(laneUsage, name, stage)
		return 0
	default:
		err = fmt.Errorf("argument %q: want none; --help describes the program", args[0])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}
