package run

import (
	"fmt"
	"runtime"

	"github.com/prometheus/common/version"

	"github.com/sightmesh/sightmesh/contracts"
)

// isVersion reports whether the arguments ask for the version. It is no flag of
// the flag set, whose flags are read from the environment too: SIGHTMESH_VERSION
// may mean something else.
func isVersion(args []string) bool {
	return len(args) == 1 && (args[0] == "-version" || args[0] == "--version")
}

// versionLine says the version of a service. The commit is that of the build
// information, or the one that the linker was given, as for images.
func versionLine(service string) string {
	return fmt.Sprintf("%s %s (commit %s, %s)", service, contracts.Version, version.GetRevision(), runtime.Version())
}
