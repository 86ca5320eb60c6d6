package run

import (
	"fmt"
	"runtime"

	"github.com/prometheus/common/version"

	"github.com/sightmesh/sightmesh/contracts"
)

// isVersion reports whether the arguments request the version. The flag -version is
// not in the flag set, because flags are also read from the environment, and
// SIGHTMESH_VERSION may mean something else.
func isVersion(args []string) bool {
	return len(args) == 1 && (args[0] == "-version" || args[0] == "--version")
}

// versionLine returns the output of -version. The commit is from the build information
// or, for container images, from the linker flags.
func versionLine(service string) string {
	return fmt.Sprintf("%s %s (commit %s, %s)", service, contracts.Version, version.GetRevision(), runtime.Version())
}
