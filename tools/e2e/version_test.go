package e2e

import (
	"os/exec"
	"regexp"
	"testing"

	"github.com/sightmesh/sightmesh/contracts"
)

// TestVersion checks that --version of each binary prints its version and its commit.
func TestVersion(t *testing.T) {
	t.Parallel()
	want := regexp.MustCompile(`^[a-z]+ ` + regexp.QuoteMeta(contracts.Version) +
		` \(commit ([0-9a-f]{40}(-dirty)?|unknown), go1\.\S+\)\n$`)
	for _, name := range []string{"ingress", "detect", "classify", "results", "sightmesh"} {
		out, err := exec.Command(binary(t, name), "--version").Output()
		if err != nil {
			t.Errorf("%s --version: %v", name, err)
		} else if !want.Match(out) {
			t.Errorf("%s --version prints %q, want a match of %v", name, out, want)
		}
	}
}
