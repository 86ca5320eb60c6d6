// Package results is the results service. None of its replicas holds state:
// parts and answers are in streams, so that any replica can join what another
// began and answer for what another stored.
package results

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
	"github.com/sightmesh/sightmesh/services/results/internal/callbacks"
	"github.com/sightmesh/sightmesh/services/results/internal/reports"
	"github.com/sightmesh/sightmesh/services/results/internal/sink"
)

// Options are the flags of results.
type Options struct{ postgres string }

// Register makes flags of the options.
func (o *Options) Register(fs *flag.FlagSet) {
	fs.StringVar(&o.postgres, "postgres", "", "`URL` of a PostgreSQL database that gets every answer; better given as SIGHTMESH_POSTGRES")
}

// Service is the results service.
type Service struct {
	js        jetstream.JetStream
	conn      *nats.Conn
	publisher *bus.Publisher
	pipelines map[string]pipeline.Pipeline
	tracer    trace.Tracer
	log       *slog.Logger
	ready     func(bool)
	lookup    *lookup
	cancel    *cancel
	reports   *reports.Keeper
	sink      *sink.Sink // nil without a database
	// follows are what remains to be done for answers of jobs that have a
	// report or a callback: it takes longer than a reply and must not delay
	// those behind it.
	follows errgroup.Group

	answers *prometheus.CounterVec
	replies prometheus.Counter
	joins   prometheus.Histogram
}

// New makes the service and its lookup endpoint; Run starts it.
func New(p *run.Process, o Options) (*Service, error) {
	f := promauto.With(p.Metrics)
	s := &Service{
		js: p.JetStream, conn: p.Conn, publisher: p.Publisher,
		pipelines: map[string]pipeline.Pipeline{},
		tracer:    p.Tracers.Tracer("github.com/sightmesh/sightmesh/services/results"),
		log:       p.Logger, ready: p.SetReady,
		answers: f.NewCounterVec(prometheus.CounterOpts{
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
	s.reports = reports.New(p.Conn, p.JetStream, p.Publisher)
	s.follows.SetLimit(maxFollows)
	if o.postgres != "" {
		var err error
		if s.sink, err = sink.New(p.JetStream, o.postgres, p.Logger, p.Metrics); err != nil {
			return nil, err
		}
	}
	s.lookup = newLookup(p.JetStream, p.Logger)
	if err := s.lookup.register(p.Micro); err != nil {
		return nil, err
	}
	s.cancel = newCancel(p.Conn, s.lookup, p.Publisher, f)
	if err := s.cancel.register(p.Micro); err != nil {
		return nil, err
	}
	if err := p.ServeStatus(func() any { return status{Service: p.Service, Instance: p.Instance, Version: run.Version} }); err != nil {
		return nil, err
	}
	return s, nil
}

type status struct {
	Service  string `json:"service"`
	Instance string `json:"instance"`
	Version  string `json:"version"`
}

// Run joins and replies until ctx ends. What it holds then is quick to finish.
func (s *Service) Run(ctx, _ context.Context) error {
	var g errgroup.Group
	running, end := context.WithCancel(ctx)
	consume := func(stream, consumer string, handle func(context.Context, jetstream.Msg)) {
		g.Go(func() error {
			defer end() // one without the other is no service
			return bus.Consume(running, s.js, stream, consumer, func(m jetstream.Msg) { handle(context.WithoutCancel(ctx), m) })
		})
	}
	consume(streams.Parts, streams.PartsConsumer, s.join)
	consume(streams.Results, streams.ResultsConsumer, s.reply)
	consume(streams.Reports, streams.ReportsConsumer, s.expand)
	if s.sink != nil {
		g.Go(func() error {
			defer end()
			return s.sink.Run(running)
		})
	}
	s.ready(true)
	err := g.Wait()
	_ = s.follows.Wait() // its functions return no errors
	s.lookup.wait()
	return err
}

// maxFollows bounds what is done at a time for answers with a report or a
// callback.
const maxFollows = 16

// reply sends a stored answer to the request that waits for it.
func (s *Service) reply(ctx context.Context, m jetstream.Msg) {
	if m.Headers().Get(v1.HeaderMarker) != "" {
		s.done(m) // an answer whose time is over
		return
	}
	taken, err := take(m, subject.ParseResults)
	if err != nil {
		s.drop(m, err)
		return
	}
	s.answers.WithLabelValues(taken.Job.Pipeline).Inc()
	if to := m.Headers().Get(v1.HeaderReply); to != "" {
		ctx, span := bus.StartProcess(ctx, s.tracer, taken)
		defer span.End()
		ctx, send := s.tracer.Start(ctx, "reply", trace.WithSpanKind(trace.SpanKindProducer))
		defer send.End()
		h := nats.Header{}
		h.Set(v1.HeaderStored, taken.Stored.UTC().Format(time.RFC3339Nano))
		telemetry.Inject(ctx, h)
		if err := s.conn.PublishMsg(&nats.Msg{Subject: to, Header: h, Data: m.Data()}); err != nil {
			s.log.WarnContext(ctx, "cannot reply", "error", err)
			if !errors.Is(err, nats.ErrBadSubject) { // which is none the next time either
				s.again(m)
				return
			}
		} else {
			s.replies.Inc()
		}
	}
	var r struct{ Status v1.Status }
	if err := json.Unmarshal(m.Data(), &r); err != nil {
		s.drop(m, fmt.Errorf("decode answer: %w", err))
		return
	}
	url := m.Headers().Get(v1.HeaderCallback)
	var item *v1.ReportItem
	if of := m.Headers().Get(v1.HeaderReport); of != "" {
		i, err := v1.ParseReportItem(of)
		if err != nil {
			s.log.Warn("an answer is of no report", "subject", m.Subject(), "error", err)
		} else {
			item = &i
		}
	}
	if item == nil && url == "" {
		s.tell(taken.Job.ID, r.Status)
		s.done(m)
		return
	}
	s.follows.Go(func() error {
		ctx, span := bus.StartProcess(ctx, s.tracer, taken)
		defer span.End()
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := s.follow(ctx, taken, r.Status, item, url, m.Data()); err != nil {
			span.SetStatus(codes.Error, err.Error())
			s.log.WarnContext(ctx, "cannot follow an answer up yet", "error", err)
			s.again(m)
			return nil
		}
		s.tell(taken.Job.ID, r.Status)
		s.done(m)
		return nil
	})
}

// follow does what an answer brings about besides the reply.
func (s *Service) follow(ctx context.Context, t bus.Taken, status v1.Status, item *v1.ReportItem, url string, result []byte) error {
	if item != nil {
		if err := s.reports.Outcome(ctx, *item, status, result); err != nil {
			return err
		}
	}
	if url != "" {
		m, err := callbacks.Of(t.Job.ID, status, url, t.Stored.UTC(), result)
		if err != nil {
			return err
		}
		return s.publisher.Publish(ctx, m)
	}
	return nil
}

// tell says to whoever watches that a job is done; it is stored by now.
func (s *Service) tell(job string, status v1.Status) {
	if err := bus.Tell(s.conn, v1.Event{ID: job, Event: v1.EventName(status), At: time.Now().UTC(), Status: status}); err != nil {
		s.log.Debug("cannot tell what happens", "error", err)
	}
}

// expand queues the images of a report.
func (s *Service) expand(ctx context.Context, m jetstream.Msg) {
	ctx, span := s.tracer.Start(telemetry.Extract(ctx, m.Headers()), "expand report", trace.WithSpanKind(trace.SpanKindConsumer))
	defer span.End()
	var manifest v1.Manifest
	if err := json.Unmarshal(m.Data(), &manifest); err != nil {
		s.drop(m, fmt.Errorf("decode report: %w", err))
		return
	}
	if err := s.reports.Expand(ctx, manifest, m.Headers(), m.InProgress); err != nil {
		span.SetStatus(codes.Error, err.Error())
		s.log.WarnContext(ctx, "cannot expand a report yet", "error", err)
		s.again(m)
		return
	}
	s.done(m)
}

// take reads what is needed of a message to work on it.
func take(m jetstream.Msg, parse func(string) (subject.Job, error)) (bus.Taken, error) {
	meta, err := m.Metadata()
	if err != nil {
		return bus.Taken{}, fmt.Errorf("take message: %w", err)
	}
	job, err := parse(m.Subject())
	if err != nil {
		return bus.Taken{}, fmt.Errorf("take message: %w", err)
	}
	return bus.Taken{
		Stream: meta.Stream, Consumer: meta.Consumer, Header: m.Headers(), Job: job,
		Stored: meta.Timestamp, Received: time.Now(), Deliveries: int(meta.NumDelivered),
	}, nil
}

// The last word on a message. When it is lost the message comes again, which
// does no harm: joining and replying can be repeated.

func (s *Service) done(m jetstream.Msg) { s.last(m, m.Ack()) }

func (s *Service) again(m jetstream.Msg) { s.last(m, m.NakWithDelay(time.Second)) }

func (s *Service) drop(m jetstream.Msg, why error) {
	s.log.Error("drop a message that is not of a job", "subject", m.Subject(), "error", why)
	s.last(m, m.TermWithReason("not of a job"))
}

func (s *Service) last(m jetstream.Msg, err error) {
	if err != nil {
		s.log.Warn("cannot acknowledge", "subject", m.Subject(), "error", err)
	}
}
