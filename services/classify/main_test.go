package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

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
			})
		})
	}
}

// TestLane_StartedByHand checks that the lane program says what it is with --help, and what is wrong without a worker.
func TestLane_StartedByHand(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"help":          {[]string{"--help"}, 0, "sightmesh lane try --stage classify --pipeline NAME IMAGE"},
		"no worker":     {nil, 1, "classify lane: open lane socket: file descriptor 3: "},
		"some argument": {[]string{"image.png"}, 1, `classify lane: argument "image.png": want none`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], append([]string{worker.LaneCommand}, tt.args...)...)
			output, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if status := cmd.ProcessState.ExitCode(); status != tt.status {
				t.Errorf("the exit status is %d, want %d", status, tt.status)
			}
			if !strings.Contains(string(output), tt.want) {
				t.Errorf("the output is %q, want %q in it", output, tt.want)
			}
		})
	}
}
