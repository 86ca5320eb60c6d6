package run

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/peterbourgon/ff/v3"

	"github.com/sightmesh/sightmesh/contracts/connection"
)

// commonFlags are the flags that every service has.
type commonFlags struct {
	nats      connection.Config
	admin     string
	profiles  string
	pipelines string
	grace     time.Duration
	logLevel  slog.Level
}

func (f *commonFlags) register(fs *flag.FlagSet) {
	f.nats.Register(fs, nats.DefaultURL, "`URL` of the NATS server; separate several with commas")
	fs.StringVar(&f.admin, "admin", "127.0.0.1:0",
		"`address` of the HTTP server for probes and metrics; port 0: any free port")
	fs.StringVar(&f.profiles, "profiles", "",
		"loopback `address` of the HTTP server for Go profiles, such as 127.0.0.1:6060; empty: no server")
	fs.StringVar(&f.pipelines, "pipelines", "", "pipelines `file`; empty: the built-in pipelines")
	fs.DurationVar(&f.grace, "grace", 20*time.Second, "how long work in progress may take to finish after SIGTERM")
	fs.TextVar(&f.logLevel, "log-level", slog.LevelInfo, "lowest `level` that is logged: debug, info, warn or error")
}

// variablePrefix begins the names of the environment variables of flags.
const variablePrefix = "SIGHTMESH"

// variable returns the environment variable of a flag, as package ff derives it.
func variable(name string) string {
	return variablePrefix + "_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// parse parses these flags and the flags of the service from the arguments or, when a
// flag is not given, from an environment variable such as SIGHTMESH_LOG_LEVEL. It
// returns the flags that were given under a former name.
func (f *commonFlags) parse(spec Spec, args []string, stderr io.Writer) (former []formerName, err error) {
	fs := flag.NewFlagSet(spec.Name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintf(stderr, "Usage of %s:\n", spec.Name)
		fs.PrintDefaults()
		fmt.Fprintf(stderr, "\nEach of these flags can be given as an environment variable: -%s as %s.\n\n",
			"log-level", variable("log-level"))
		fmt.Fprintf(stderr, "  -version\n    \tprint the version and exit\n")
	}
	f.register(fs)
	if spec.Flags != nil {
		spec.Flags(fs)
	}
	if err := ff.Parse(fs, args, ff.WithEnvVarPrefix(variablePrefix)); err != nil {
		return nil, fmt.Errorf("read flags: %w", err)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("read flags: %s takes no arguments, only flags; have %q", spec.Name, fs.Arg(0))
	}
	if former, err = givenFormerNames(fs); err != nil {
		return nil, fmt.Errorf("read flags: %w", err)
	}
	return former, nil
}
