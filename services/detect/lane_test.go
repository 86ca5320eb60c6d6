package main

import (
	"os"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/lanetest"
	"github.com/sightmesh/sightmesh/services/internal/worker"
)

// TestLane_FollowsTheProtocol runs the conformance suite on the lane program of
// detect, with each kind of detector that needs no model folder.
func TestLane_FollowsTheProtocol(t *testing.T) {
	t.Parallel()
	for name, setup := range map[string]lane.Setup{
		"text-lines": {Kind: "text-lines"},
		"codes":      {Kind: "codes"},
		"cascade":    {Kind: "cascade", Settings: []byte(`{"cascade":"haarcascade_frontalface_alt2","label":"face"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lanetest.Run(t, lanetest.Program{
				Args: []string{os.Args[0], worker.LaneCommand}, Setup: setup, Crops: true,
				Timeout: time.Minute, StartTimeout: time.Minute, // for a busy machine
			})
		})
	}
}
