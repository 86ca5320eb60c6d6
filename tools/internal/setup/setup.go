// Package setup creates what a mesh keeps in JetStream. It is the one step
// that does so: the services only check.
package setup

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/streams"
)

// Config of a set-up.
type Config struct {
	NATS      string
	Pipelines string // file; empty for the built-in ones
	Replicas  int
	Storage   string        // file or memory
	Wait      time.Duration // for the server to come up
	// ResultsAge and ReportsAge are how long answers and reports are kept; 0
	// for what is usual.
	ResultsAge time.Duration
	ReportsAge time.Duration
	Sink       bool
}

// RegisterAges makes flags of how long things are kept.
func (c *Config) RegisterAges(fs *flag.FlagSet) {
	fs.DurationVar(&c.ResultsAge, "results-age", time.Hour, "how long the answer of a job is kept")
	fs.DurationVar(&c.ReportsAge, "reports-age", 24*time.Hour, "how long a report and its outcomes are kept")
}

// Register makes flags of the configuration.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.NATS, "nats", nats.DefaultURL, "NATS `URL`, or several with commas")
	fs.StringVar(&c.Pipelines, "pipelines", "", "pipelines `file`; without it the built-in ones")
	fs.IntVar(&c.Replicas, "replicas", 1, "copies of every stream: 1, 3 or 5")
	fs.StringVar(&c.Storage, "storage", "file", "where streams are kept: file or memory")
	c.RegisterAges(fs)
	fs.BoolVar(&c.Sink, "sink", false, "add what results needs to write answers into a database")
	fs.DurationVar(&c.Wait, "timeout", 2*time.Minute, "how long to wait for NATS and JetStream")
}

// Run sets the mesh up and says what there is.
func Run(ctx context.Context, cfg Config, out io.Writer) error {
	storage := jetstream.FileStorage
	switch cfg.Storage {
	case "file":
	case "memory":
		storage = jetstream.MemoryStorage
	default:
		return fmt.Errorf("storage: %q, want file or memory", cfg.Storage)
	}
	if !slices.Contains([]int{1, 3, 5}, cfg.Replicas) {
		return fmt.Errorf("replicas: %d, want 1, 3 or 5", cfg.Replicas)
	}
	pipelines, err := pipeline.Load(cfg.Pipelines)
	if err != nil {
		return err
	}
	const least = 2 * time.Minute // for which streams know the ids of messages
	for _, age := range []time.Duration{cfg.ResultsAge, cfg.ReportsAge} {
		if age != 0 && age < least {
			return fmt.Errorf("results-age and reports-age: %v, want at least %v", age, least)
		}
	}
	want := streams.Config{Replicas: cfg.Replicas, Storage: storage, ResultsAge: cfg.ResultsAge, ReportsAge: cfg.ReportsAge, Sink: cfg.Sink}
	for _, p := range pipelines {
		want.Pipelines = append(want.Pipelines, p.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Wait)
	defer cancel()
	// A server that is just starting, or a cluster without a leader yet, is
	// tried again. It may also say nothing at all to a question; what was made
	// by then is found by the next attempt.
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err = ensure(attempt, cfg.NATS, want)
		cancel()
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
	fmt.Fprintf(out, "set up %d streams and %d consumers for pipelines %v\n",
		len(streams.Streams(want)), len(streams.Consumers(want)), want.Pipelines)
	return nil
}

const attemptTimeout = 10 * time.Second

func ensure(ctx context.Context, url string, want streams.Config) error {
	nc, err := nats.Connect(url, nats.Name("sightmesh setup"), nats.CustomInboxPrefix("_INBOX_setup"))
	if err != nil {
		return fmt.Errorf("connect to NATS at %s: %w", url, err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	return streams.Ensure(ctx, js, want)
}
