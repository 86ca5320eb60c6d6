package main

import (
	"testing"

	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// TestCommands_ErrorsOfArguments checks the text of errors for a wrong number of arguments.
func TestCommands_ErrorsOfArguments(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		argv []string
		want string
	}{
		"no file":    {[]string{"pipelines", "check"}, "pipelines check: no file; want one pipelines file"},
		"two files":  {[]string{"pipelines", "check", "a", "b"}, "pipelines check: 2 files, want one"},
		"empty name": {[]string{"pipelines", "check", ""}, "pipelines check: the name of the file is empty"},
		"only flags": {[]string{"setup", "a", "b"}, `setup takes no arguments, only flags; have "a"`},
	} {
		err := rootCommand().ParseAndRun(t.Context(), tt.argv)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: the error is %v, want %s", name, err, tt.want)
		}
		if got := exit.Status(err); got != exit.Usage {
			t.Errorf("%s: exit status %d, want %d", name, got, exit.Usage)
		}
	}
}
