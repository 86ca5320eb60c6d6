package main

import (
	"os"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/lanetest"
	"github.com/sightmesh/sightmesh/services/internal/worker"
)

// The test binary is also classify, and so its own lane program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == worker.LaneCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestLane_FollowsTheProtocol runs the conformance suite on the lane program of
// classify, with each kind of classifier that needs no model folder, and with
// classifiers by label.
func TestLane_FollowsTheProtocol(t *testing.T) {
	t.Parallel()
	for name, setup := range map[string]lane.Setup{
		"tesseract":       {Kind: "tesseract"},
		"face-attributes": {Kind: "face-attributes"},
		"by-label":        {ByLabel: map[string]lane.Setup{"a label": {Kind: "face-attributes"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lanetest.Run(t, lanetest.Program{
				Args: []string{os.Args[0], worker.LaneCommand}, Stage: subject.Classify, Setup: setup,
				Timeout: time.Minute, StartTimeout: time.Minute, // for a busy machine
			})
		})
	}
}
