// Package results is the results service. None of its replicas holds state:
// parts and answers are in streams, so that any replica can join what another
// began and answer for what another stored.
package results

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"regexp"
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
	"github.com/sightmesh/sightmesh/services/results/internal/webhookqueue"
)

// Options are the flags of results.
type Options struct {
	postgres string
	sweep    time.Duration // between two sweeps
}

// Register makes flags of the options.
func (o *Options) Register(fs *flag.FlagSet) {
	fs.StringVar(&o.postgres, "postgres", "", "`URL` of a PostgreSQL database that gets every answer; better given as SIGHTMESH_POSTGRES")
	fs.DurationVar(&o.sweep, "sweep", 5*time.Second, "time between two looks for jobs that nothing else will end")
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
	cancel    *cancel
	reports   *reportprogress.Keeper
	sweeper   *sweeper
	sink      *sink.Sink // nil without a database

	results *prometheus.CounterVec
	replies prometheus.Counter
	joins   prometheus.Histogram
}

// New makes the service and its lookup endpoint; Run starts it.
func New(p *run.Process, o Options) (*Service, error) {
	f := promauto.With(p.Metrics)
	s := &Service{
		process: p, js: p.JetStream, conn: p.Conn, clock: p.Clock, publisher: p.Publisher,
		pipelines: map[string]pipeline.Pipeline{},
		tracer:    p.Tracers.Tracer("github.com/sightmesh/sightmesh/services/results"),
		log:       p.Logger,
		results: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_answers_total", Help: "Answers stored, by pipeline.",
		}, []string{"pipeline"}),
		replies: f.NewCounter(prometheus.CounterOpts{
			Name: "sightmesh_replies_total", Help: "Answers sent to a waiting request.",
		}),
		joins: f.NewHistogram(prometheus.HistogramOpts{
			Name: "sightmesh_join_seconds", Help: "From the first part stored to the answer published.", Buckets: telemetry.LatencyBuckets(),
		}),
	}
	for _, pl := range p.Pipelines {
		s.pipelines[pl.Name] = pl
	}
	s.reports = reportprogress.New(p.Conn, p.JetStream, p.Publisher, p.Clock)
	if o.postgres != "" {
		var err error
		if s.sink, err = sink.New(p.JetStream, p.Clock, o.postgres, p.Logger, p.Metrics); err != nil {
			return nil, err
		}
	}
	s.lookup = newLookup(p.JetStream, p.Logger)
	s.sweeper = newSweeper(s, o.sweep, f)
	if err := s.lookup.register(p.Micro); err != nil {
		return nil, err
	}
	s.cancel = newCancel(p.Conn, s.lookup, p.Publisher, f)
	if err := s.cancel.register(p.Micro); err != nil {
		return nil, err
	}
	if err := p.ServeStatus(func() any {
		return v1.ServiceStatus{Service: p.Service, Instance: p.Instance, Version: contracts.Version}
	}); err != nil {
		return nil, err
	}
	return s, nil
}

// Run joins, replies and expands reports until ctx ends, and finishes what is
// in hand until hard ends.
func (s *Service) Run(ctx, hard context.Context) error {
	var g errgroup.Group
	running, end := context.WithCancel(ctx)
	defer end()
	for _, c := range s.consumers() {
		loop := consume.NewLoop(consume.Config{
			Open: c.open, Fail: c.fail, Traced: c.traced, PublishOnce: c.publishOnce, Timeout: handlerTimeout, Backoff: backoff, Clock: s.clock, Publisher: s.publisher, Tracer: s.tracer, Logger: s.log,
		})
		g.Go(func() error {
			src := consume.Source{JetStream: s.js, Stream: c.stream, Consumer: c.name, Width: c.width, Prefetch: c.prefetch}
			loop.Run(running, hard, src, c.handle)
			return nil
		})
	}
	if s.sink != nil {
		g.Go(func() error {
			defer end() // one without the other is no service
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

// consumer is one of those that the service reads.
type consumer struct {
	stream, name    string
	open            func(*consume.Delivery) error
	handle          consume.Handler
	fail            func(context.Context, *consume.Delivery, *v1.Problem) ([]bus.Message, error) // nil where there is no outcome
	width, prefetch int
	traced          func(*consume.Delivery) bool // nil for all
	publishOnce     bool                         // so that a full stream holds up nothing else
}

// consumers lists them. A reply waits for nothing, and a callback is published
// once, so that many can be requested ahead; the others may wait for a stream.
func (s *Service) consumers() []consumer {
	return []consumer{
		{streams.Parts, streams.PartsConsumer, jobOf(subject.ParseParts), s.join, failJoin, 16, 1, nil, false},
		{streams.Results, streams.ResultsConsumer, jobOf(subject.ParseResults), s.reply, nil, 16, 64, hasHeader(v1.HeaderReply), false},
		{streams.Results, streams.FollowConsumer, jobOf(subject.ParseResults), s.follow, nil, 16, 1, hasHeader(v1.HeaderReport), true},
		{streams.Results, streams.NotifyConsumer, jobOf(subject.ParseResults), s.notify, nil, 16, 64, hasHeader(v1.HeaderCallback), true},
		{streams.Reports, streams.ReportsConsumer, openReport, s.expand, nil, 2, 1, nil, false},
	}
}

// consumerNames returns their names, and that of the consumer of the database.
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

// hasHeader reports whether there is something to do for a result, which is
// worth a span.
func hasHeader(names ...string) func(*consume.Delivery) bool {
	return func(d *consume.Delivery) bool {
		return slices.ContainsFunc(names, func(name string) bool { return d.Header.Get(name) != "" })
	}
}

// handlerTimeout is how long one delivery may be handled. A request whose reply
// was lost with the connection waits as long.
const handlerTimeout = 3 * time.Second

// backoff is the delay before a message is delivered again. The server also counts
// deliveries that no process received, so that the longest delay is short: a
// stream that has elected its leader is not waited for much longer.
var backoff = retry.Exponential(250*time.Millisecond, 4*time.Second, 2)

// jobOf reads the job of a delivery from its subject.
func jobOf(parse func(string) (subject.Job, error)) func(*consume.Delivery) error {
	return func(d *consume.Delivery) (err error) {
		d.Job, err = parse(d.Subject)
		return err
	}
}

func openReport(d *consume.Delivery) (err error) {
	d.Job.ID, err = subject.ParseReport(d.Subject)
	return err
}

// reply sends a stored result to the request that waits for it. It does nothing
// else, so that a reply depends on nothing but the connection.
func (s *Service) reply(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	s.results.WithLabelValues(d.Job.Pipeline).Inc()
	return nil, s.sendReply(ctx, d)
}

// inbox matches the subjects that may get a reply: those of nats.go, with a
// prefix of one's own too. A client that publishes images could have results
// publish on any other.
var inbox = regexp.MustCompile(`^_INBOX[A-Za-z0-9_-]*\.[^\s*>]+$`)

// sendReply sends the result to the subject that its job named, if it did.
func (s *Service) sendReply(ctx context.Context, d *consume.Delivery) error {
	to := d.Header.Get(v1.HeaderReply)
	if to == "" {
		return nil
	}
	if !inbox.MatchString(to) {
		s.log.WarnContext(ctx, "do not reply to a subject that is no inbox", "subject", to)
		return nil
	}
	ctx, span := s.tracer.Start(ctx, "reply", trace.WithSpanKind(trace.SpanKindProducer))
	defer span.End()
	h := nats.Header{}
	h.Set(v1.HeaderStored, d.Stored.UTC().Format(time.RFC3339Nano))
	telemetry.Inject(ctx, h)
	if err := s.conn.PublishMsg(&nats.Msg{Subject: to, Header: h, Data: d.Body}); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	s.replies.Inc()
	return nil
}

// follow stores the outcome of an image of a report, and returns the messages
// that finish the report that the image completes.
func (s *Service) follow(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	status, err := readStatus(d.Body)
	if err != nil {
		return nil, err
	}
	d.Then(func(ctx context.Context) { s.publishEvent(ctx, d.Job.ID, status) })
	of := d.Header.Get(v1.HeaderReport)
	if of == "" {
		return nil, nil
	}
	item, err := v1.ParseReportItem(of)
	if err != nil || item.Job() != d.Job.ID { // the header is the client's when it published the image itself
		s.log.WarnContext(ctx, "a result is of no image of its report", "subject", d.Subject, "header", of, "error", err)
		return nil, nil
	}
	return s.reports.Outcome(ctx, item, status, d.Body)
}

// notify returns the callback of a job. It has a consumer of its own: while
// CALLBACKS is full, only callbacks wait.
func (s *Service) notify(_ context.Context, d *consume.Delivery) ([]bus.Message, error) {
	url := d.Header.Get(v1.HeaderCallback)
	if url == "" {
		return nil, nil
	}
	status, err := readStatus(d.Body)
	if err != nil {
		return nil, err
	}
	m, err := webhookqueue.JobMessage(d.Job.ID, status, url, d.Stored.UTC(), d.Body)
	if err != nil {
		return nil, err
	}
	return []bus.Message{m}, nil
}

// readStatus returns the status of a result.
func readStatus(body []byte) (v1.Status, error) {
	var r struct{ Status v1.Status }
	if err := json.Unmarshal(body, &r); err != nil {
		return "", consume.Drop(fmt.Errorf("decode result: %w", err))
	}
	return r.Status, nil
}

// publishEvent says to those who watch the job that it has ended.
func (s *Service) publishEvent(ctx context.Context, job string, status v1.Status) {
	e := v1.Event{ID: job, Event: v1.EventName(status), At: s.clock.Now().UTC(), Status: status}
	if err := bus.Tell(s.conn, e); err != nil {
		s.log.DebugContext(ctx, "cannot publish an event", "error", err)
	}
}

// expand returns the messages that queue the images of a report.
func (s *Service) expand(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	var m v1.Manifest
	if err := json.Unmarshal(d.Body, &m); err != nil {
		return nil, consume.Drop(fmt.Errorf("decode report: %w", err))
	}
	d.Deadline = m.Deadline // a long report takes long to be stored
	return s.reports.Expand(ctx, m, d.Header)
}
