package send

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/subject"
)

// Config of a run.
type Config struct {
	Paths       []string
	URL         string
	NATS        string
	Pipeline    string
	Priority    string
	Concurrency string
	Attempts    int
	Ordered     bool
	Draw        string
	Out         string
	Failed      string
	Resume      bool
}

// Register makes flags of the configuration.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.URL, "url", "http://127.0.0.1:8080", "`URL` of the mesh")
	fs.StringVar(&c.NATS, "nats", "", "send over NATS at this `URL` instead of HTTP")
	fs.StringVar(&c.Pipeline, "pipeline", "", "what to look for; the first pipeline of the mesh when left out")
	fs.StringVar(&c.Priority, "priority", string(subject.Interactive), "interactive or bulk")
	fs.StringVar(&c.Concurrency, "concurrency", "auto", "how many pictures to send at a time; auto finds out")
	fs.IntVar(&c.Attempts, "attempts", 10, "how often to try one picture when what goes wrong may pass")
	fs.BoolVar(&c.Ordered, "ordered", false, "write the outcomes in the order of the pictures")
	fs.StringVar(&c.Draw, "draw", "", "`folder` for the pictures with what was found drawn on them")
	fs.StringVar(&c.Out, "out", "-", "`file` for the outcomes, one line of JSON for each picture; - for stdout")
	fs.StringVar(&c.Failed, "failed", "", "`file` for a list of the pictures that failed, which send takes as -")
	fs.BoolVar(&c.Resume, "resume", false, "go on with a run that broke off: pictures with an outcome in --out are not sent")
}

// ParseArgs reads paths and flags in any order.
func (c *Config) ParseArgs(fs *flag.FlagSet, args []string) error {
	for len(args) > 0 {
		if len(args[0]) > 1 && args[0][0] == '-' {
			if err := fs.Parse(args); err != nil {
				return err //nolint:wrapcheck // it was printed with the usage
			}
			args = fs.Args()
			continue
		}
		c.Paths, args = append(c.Paths, args[0]), args[1:]
	}
	return nil
}

// Exit codes besides 0.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitPartial     = 3 // some pictures failed
	exitInterrupted = 130
)

// ExitError is an end that is not success, with the code to exit with.
type ExitError struct {
	Code int
	Err  error
}

// Error says what went wrong.
func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap gives the error inside.
func (e *ExitError) Unwrap() error { return e.Err }

// Command runs the sender. It returns an [*ExitError] unless every picture was
// read.
func Command(ctx context.Context, cfg Config, stdin io.Reader, stdout, stderr io.Writer) error {
	auto := cfg.Concurrency == "auto"
	n, err := strconv.Atoi(cfg.Concurrency)
	switch {
	case !auto && (err != nil || n < 1):
		return &ExitError{exitUsage, fmt.Errorf("concurrency: %q, want auto or a number from 1", cfg.Concurrency)}
	case len(cfg.Paths) == 0:
		return &ExitError{exitUsage, errors.New("no pictures: name files, folders, globs, or - for a list on stdin")}
	case cfg.Resume && cfg.Out == "-":
		return &ExitError{exitUsage, errors.New("resume: needs the file of --out")}
	case !subject.Priority(cfg.Priority).Valid():
		return &ExitError{exitUsage, fmt.Errorf("priority: %q, want interactive or bulk", cfg.Priority)}
	case cfg.NATS != "" && cfg.Priority != string(subject.Interactive):
		return &ExitError{exitUsage, errors.New("priority: over NATS every picture is interactive")}
	case cfg.NATS != "" && cfg.Pipeline == "":
		return &ExitError{exitUsage, errors.New("nats: needs --pipeline")}
	case cfg.Attempts < 1:
		return &ExitError{exitUsage, fmt.Errorf("attempts: %d, want 1 or more", cfg.Attempts)}
	}
	files, err := find(cfg.Paths, stdin)
	if err != nil {
		return &ExitError{exitFailure, err}
	}
	send := overHTTP(cfg.URL, cfg.Pipeline, subject.Priority(cfg.Priority))
	if cfg.NATS != "" {
		nc, err := nats.Connect(cfg.NATS, nats.Name("sightmesh send"), nats.MaxReconnects(-1))
		if err != nil {
			return &ExitError{exitFailure, fmt.Errorf("connect to NATS at %s: %w", cfg.NATS, err)}
		}
		defer nc.Close()
		c, err := client.New(nc)
		if err != nil {
			return &ExitError{exitFailure, err}
		}
		send = overNATS(c, cfg.Pipeline)
	}
	r := run{cfg: cfg, send: send, limit: newLimit(n, auto), stderr: stderr}
	// The first Ctrl-C stops sending; with the second, all ends at once.
	defer context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })()
	return r.do(ctx, files, stdout)
}
