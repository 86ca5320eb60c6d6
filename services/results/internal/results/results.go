// Package results is the results service. Its replicas hold no state: parts and results
// are in streams, so that every replica can complete what another has started, and can
// return results that another has stored.
package results

import (
	"context"
	"flag"
	"log/slog"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
	"github.com/sightmesh/sightmesh/services/results/internal/reportprogress"
	"github.com/sightmesh/sightmesh/services/results/internal/sink"
)

// Options has the flags of the results service.
type Options struct {
	postgres string
	sweep    time.Duration // between two sweeps
}

// Register registers the flags.
func (o *Options) Register(fs *flag.FlagSet) {
	fs.StringVar(&o.postgres, "postgres", "", "`URL` of a PostgreSQL database that stores every result; empty: none; "+
		"preferably set by SIGHTMESH_POSTGRES")
	fs.DurationVar(&o.sweep, "sweep", 5*time.Second, "time between two sweeps, which end jobs that no other process ends")
}

// Service is the results service.
type Service struct {
	process   *run.Process
	js        jetstream.JetStream
	conn      *nats.Conn
	clock     *clock.Clock
	publisher *bus.Publisher
	pipelines map[string]pipeline.Pipeline
	tracer    trace.Tracer
	log       *slog.Logger
	lookup    *lookup
	cancel    *canceller
	reports   *reportprogress.Keeper
	sweeper   *sweeper
	sink      *sink.Sink // nil without a database

	results       *prometheus.CounterVec
	formerResults *prometheus.CounterVec // results under its name of the last release
	replies       prometheus.Counter
	joins         prometheus.Histogram
}

// New returns the service and adds its endpoints. Run starts it.
func New(p *run.Process, o Options) (*Service, error) {
	f := promauto.With(p.Metrics)
	s := &Service{
		process: p, js: p.JetStream, conn: p.Conn, clock: p.Clock, publisher: p.Publisher,
		pipelines: map[string]pipeline.Pipeline{},
		tracer:    p.Tracers.Tracer("github.com/sightmesh/sightmesh/services/results"),
		log:       p.Logger,
		results: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_results_total", Help: "Results that were stored, by pipeline.",
		}, []string{"pipeline"}),
		formerResults: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_answers_total",
			Help: "Former name of sightmesh_results_total; will be removed.",
		}, []string{"pipeline"}),
		replies: f.NewCounter(prometheus.CounterOpts{
			Name: "sightmesh_replies_total", Help: "Replies that were sent to requests that wait for a result.",
		}),
		joins: f.NewHistogram(prometheus.HistogramOpts{
			Name: "sightmesh_join_seconds", Buckets: telemetry.LatencyBuckets(),
			Help: "Time between the storage of the first part of a job and the publication of its result.",
		}),
	}
	for _, pl := range p.Pipelines {
		s.pipelines[pl.Name] = pl
	}
	s.reports = reportprogress.New(p.Conn, p.JetStream, p.Publisher, p.Clock, s.tracer)
	if o.postgres != "" {
		var err error
		if s.sink, err = sink.New(p.JetStream, p.Clock, o.postgres, s.tracer, p.Logger, p.Metrics); err != nil {
			return nil, err
		}
	}
	s.lookup = newLookup(p.JetStream, p.Logger)
	s.sweeper = newSweeper(s, o.sweep, f)
	if err := s.lookup.register(p.Endpoints); err != nil {
		return nil, err
	}
	s.cancel = newCanceller(p.Conn, s.lookup, p.Publisher, f)
	if err := s.cancel.register(p.Endpoints); err != nil {
		return nil, err
	}
	if err := p.ServeStatus(func() any {
		return v1.ResultsStatus{Service: p.Service, Instance: p.Instance, Version: contracts.Version}
	}, map[string]string{"response_schema": v1.SchemaID("results-status")}); err != nil {
		return nil, err
	}
	return s, nil
}

// Run processes messages until ctx ends, and finishes the messages in progress until
// hard ends.
func (s *Service) Run(ctx, hard context.Context) error {
	var g errgroup.Group
	running, end := context.WithCancel(ctx)
	defer end()
	for _, c := range s.consumers() {
		loop := consume.NewLoop(consume.Config{
			Open: c.open, Fail: c.fail, Traced: c.traced, PublishOnce: c.publishOnce,
			Timeout: handlerTimeout, Backoff: backoff,
			Clock: s.clock, Publisher: s.publisher, Tracer: s.tracer, Logger: s.log,
		})
		g.Go(func() error {
			src := consume.Source{JetStream: s.js, Stream: c.stream, Consumer: c.name, Width: c.width, Prefetch: c.prefetch}
			loop.Run(running, hard, src, c.handle)
			return nil
		})
	}
	if s.sink != nil {
		g.Go(func() error {
			defer end() // without the sink the service stops
			return s.sink.Run(running)
		})
	}
	g.Go(func() error {
		s.sweeper.run(running)
		return nil
	})
	g.Go(func() error {
		s.process.KeepReadyToPull(running, s.consumerNames()...)
		return nil
	})
	err := g.Wait()
	s.lookup.wait()
	return err
}

// consumer is a consumer that the service pulls from.
type consumer struct {
	stream, name string
	open         func(*consume.Delivery) error
	handle       consume.Handler
	// fail is nil where there is no outcome.
	fail            func(context.Context, *consume.Delivery, *v1.Problem) ([]bus.Message, error)
	width, prefetch int
	traced          func(*consume.Delivery) bool // nil for all
	publishOnce     bool                         // so that a full stream does not block other messages
}

// consumers returns the consumers of the service. A reply never waits, and a webhook is
// published without retries, so that many of their messages can be prefetched. The others
// may wait for a stream.
func (s *Service) consumers() []consumer {
	return []consumer{
		{streams.Parts, streams.PartsConsumer, openJob(subject.ParseParts), s.join, failJoin, 16, 1, nil, false},
		{streams.Results, streams.ResultsConsumer, openJob(subject.ParseResults), s.reply, nil, 16, 64,
			hasHeader(v1.HeaderReply), false},
		{streams.Results, streams.FollowConsumer, openJob(subject.ParseResults), s.follow, nil, 16, 1,
			hasHeader(v1.HeaderReport), true},
		{streams.Results, streams.NotifyConsumer, openJob(subject.ParseResults), s.notify, nil, 16, 64,
			hasHeader(v1.HeaderCallback), true},
		{streams.Reports, streams.ReportsConsumer, openReport, s.expand, nil, 2, 1, nil, false},
	}
}

// consumerNames returns the names of the consumers, including that of the sink.
func (s *Service) consumerNames() []run.Consumer {
	var names []run.Consumer
	for _, c := range s.consumers() {
		names = append(names, run.Consumer{Stream: c.stream, Name: c.name})
	}
	if s.sink != nil {
		names = append(names, run.Consumer{Stream: streams.Results, Name: streams.SinkConsumer})
	}
	return names
}

// hasHeader returns a function that reports whether a delivery has one of the headers.
// Without them there is nothing to do for a result, and so no span.
func hasHeader(names ...string) func(*consume.Delivery) bool {
	return func(d *consume.Delivery) bool {
		return slices.ContainsFunc(names, func(name string) bool { return d.Header.Get(name) != "" })
	}
}

// handlerTimeout limits the processing of one delivery. A request whose reply was lost
// with the connection waits this long.
const handlerTimeout = 3 * time.Second

// backoff is the delay before a message is redelivered. The longest delay is short,
// because the server also counts deliveries that no process received, and a stream that
// has elected its leader should not be waited for much longer.
var backoff = retry.Exponential(250*time.Millisecond, 4*time.Second, 2)

// openJob returns a function that sets the job of a delivery from its subject.
func openJob(parse func(string) (subject.Job, error)) func(*consume.Delivery) error {
	return func(d *consume.Delivery) (err error) {
		d.Job, err = parse(d.Subject)
		return err
	}
}

func openReport(d *consume.Delivery) (err error) {
	d.Job.ID, err = subject.ParseReport(d.Subject)
	return err
}
