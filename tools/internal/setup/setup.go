// Package setup creates and updates the streams and consumers of a mesh. Services only check them.
package setup

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/connection"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/lane/bytesize"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// Config is the configuration of a set-up.
type Config struct {
	NATS      connection.Config
	Pipelines string // pipelines file; empty for the built-in pipelines
	// Replicas is the number of replicas of each stream: 1, 3 or 5. 0 means unchanged, and 1 in a new mesh.
	Replicas int
	// Storage is file or memory. Empty means unchanged, and file in a new mesh.
	Storage string
	// MaxStore is the limit of all streams together, in bytes, at least [streams.MinStore]. 0 means unchanged.
	MaxStore int64
	// Wait is how long Run waits for NATS and JetStream.
	Wait time.Duration
	// ResultsAge and ReportsAge are how long results and reports are kept, at least 2 minutes. 0 means unchanged, and
	// 1 hour and 24 hours in a new mesh.
	ResultsAge time.Duration
	ReportsAge time.Duration
	// Sink creates the consumer that writes results to a database.
	Sink bool
	// Force allows fewer replicas, shorter ages, and limits below the size of a stream.
	Force bool
}

// RegisterRetention registers the flags of the ages, the limit of the streams, and --force.
func (c *Config) RegisterRetention(fs *flag.FlagSet) {
	fs.DurationVar(&c.ResultsAge, "results-age", 0,
		"how long the result of a job is kept, at least 2m; 0: unchanged, 1h in a new mesh")
	fs.DurationVar(&c.ReportsAge, "reports-age", 0,
		"how long a report and its outcomes are kept, at least 2m; 0: unchanged, 24h in a new mesh")
	fs.Var((*bytesize.Size)(&c.MaxStore), "max-store", "limit of all streams together, in `bytes`, such as 2GiB, "+
		"at least 256MiB: the limit of each stream is lowered in proportion; "+
		"0: unchanged, 6.25GiB in a new mesh")
	fs.BoolVar(&c.Force, "force", false,
		"allow fewer replicas, shorter ages and lower limits than the present ones, which can delete stored messages")
}

// Register registers the flags of the configuration.
func (c *Config) Register(fs *flag.FlagSet) {
	c.NATS.Register(fs, nats.DefaultURL, "`URL` of the NATS server; separate several with commas")
	fs.StringVar(&c.Pipelines, "pipelines", "", "pipelines `file`; empty: the built-in pipelines")
	fs.IntVar(&c.Replicas, "replicas", 0, "number of replicas of each stream: 1, 3 or 5; 0: unchanged, 1 in a new mesh")
	fs.StringVar(&c.Storage, "storage", "",
		"`storage` of the streams: file or memory; empty: unchanged, file in a new mesh")
	c.RegisterRetention(fs)
	fs.BoolVar(&c.Sink, "sink", false, "create the consumer that results needs to write results to a database")
	fs.DurationVar(&c.Wait, "timeout", 2*time.Minute,
		"time limit of the whole set-up, with the wait for NATS and JetStream")
}

// Streams validates the configuration, and returns the configuration of the streams.
func (c *Config) Streams() (streams.Config, error) {
	storage := jetstream.FileStorage
	switch c.Storage {
	case "", "file":
	case "memory":
		storage = jetstream.MemoryStorage
	default:
		return streams.Config{}, exit.Usagef("storage: %q, want file or memory", c.Storage)
	}
	if !slices.Contains([]int{0, 1, 3, 5}, c.Replicas) {
		return streams.Config{}, exit.Usagef("replicas: %d, want 1, 3 or 5", c.Replicas)
	}
	pipelines, err := pipeline.Load(c.Pipelines)
	if err != nil {
		return streams.Config{}, err
	}
	const minAge = 2 * time.Minute // streams detect duplicate messages for this time
	for _, age := range []time.Duration{c.ResultsAge, c.ReportsAge} {
		if age != 0 && age < minAge {
			return streams.Config{}, exit.Usagef("results-age and reports-age: %v, want at least %v", age, minAge)
		}
	}
	if c.MaxStore != 0 && c.MaxStore < streams.MinStore {
		return streams.Config{}, exit.Usagef("max-store: %s, want at least %s",
			streams.FormatBytes(c.MaxStore), streams.FormatBytes(streams.MinStore))
	}
	want := streams.Config{
		Replicas: c.Replicas, Storage: storage, ResultsAge: c.ResultsAge, ReportsAge: c.ReportsAge, Sink: c.Sink,
		Update: streams.Update{KeepStorage: c.Storage == "", MaxStore: c.MaxStore, Force: c.Force},
	}
	for _, p := range pipelines {
		want.Pipelines = append(want.Pipelines, p.Name)
		want.LongestDeadline = max(want.LongestDeadline, p.JobDeadline(subject.Interactive), p.JobDeadline(subject.Bulk))
	}
	return want, nil
}

// Run creates or updates the streams and consumers, and prints their numbers. While it waits for the server, it prints
// the reason, first immediately and then every [connection.WaitingPeriod].
func Run(ctx context.Context, cfg Config, out io.Writer) error {
	want, err := cfg.Streams()
	if err != nil {
		return err
	}
	if _, err := cfg.NATS.Options(); err != nil {
		return exit.Usagef("%w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Wait)
	defer cancel()
	// The server may be starting, or the cluster may have no leader yet, so a failed attempt is repeated. A request may
	// also have no reply; the next attempt finds what an earlier one created.
	for waiting := (connection.Waiting{}); ; {
		if err = ensure(ctx, cfg.NATS, want); err == nil {
			break
		}
		var permanent *streams.PermanentError
		if errors.As(err, &permanent) {
			return err
		}
		if waiting.ShouldLog(err, time.Now()) {
			fmt.Fprintf(out, "waiting: %v\n", err)
		}
		if retry.Sleep(ctx, time.Second) != nil {
			return err
		}
	}
	fmt.Fprintf(out, "set up %d streams and %d consumers for pipelines %v\n",
		len(streams.Streams(want)), len(streams.Consumers(want)), want.Pipelines)
	return nil
}

// requestTimeout limits one request, because it may have no reply.
const requestTimeout = 10 * time.Second

func ensure(ctx context.Context, cfg connection.Config, want streams.Config) error {
	nc, err := cfg.Connect(nats.Name("sightmesh setup"), nats.CustomInboxPrefix(subject.InboxPrefix+"_setup"))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(requestTimeout))
	if err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	if err := streams.Ensure(ctx, js, want); err != nil {
		return fmt.Errorf("set up NATS at %s: %w", nc.ConnectedUrlRedacted(), err)
	}
	return nil
}
