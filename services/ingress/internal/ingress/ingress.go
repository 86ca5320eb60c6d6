// Package ingress is the front door of the mesh: it runs the HTTP server and
// the NATS endpoint, and stops taking before it stops answering.
package ingress

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/picture"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/ingress/internal/httpapi"
	"github.com/sightmesh/sightmesh/services/ingress/internal/jobs"
	"github.com/sightmesh/sightmesh/services/ingress/internal/natsapi"
	"github.com/sightmesh/sightmesh/services/internal/run"
)

// Options are the flags of ingress.
type Options struct {
	http         string
	limits       picture.Limits
	wait         time.Duration
	maxWait      time.Duration
	maxQueue     time.Duration
	maxBulkQueue time.Duration
	bodyMemory   int64
	bodyTimeout  time.Duration
	concurrency  int
}

// Register makes flags of the options.
func (o *Options) Register(fs *flag.FlagSet) {
	o.limits = picture.DefaultLimits()
	o.limits.Register(fs)
	fs.StringVar(&o.http, "http", "127.0.0.1:8080", "`address` to serve HTTP on")
	fs.DurationVar(&o.wait, "wait", 20*time.Second, "how long a request waits for its answer when it does not say")
	fs.DurationVar(&o.maxWait, "max-wait", 60*time.Second, "longest that a request may say")
	fs.DurationVar(&o.maxQueue, "max-queue", 15*time.Second, "longest queue, as time, for interactive jobs")
	fs.DurationVar(&o.maxBulkQueue, "max-bulk-queue", 30*time.Minute, "longest queue, as time, for bulk jobs")
	fs.Int64Var(&o.bodyMemory, "body-memory", 256<<20, "`bytes` of request bodies held at a time")
	fs.DurationVar(&o.bodyTimeout, "body-timeout", 30*time.Second, "how long a body may take to arrive")
	fs.IntVar(&o.concurrency, "max-nats-requests", 1024, "requests over NATS that wait at a time")
}

type service struct {
	process   *run.Process
	options   Options
	jobs      *jobs.Jobs
	admission *admission.Admission
	analyze   *natsapi.Analyze
	listener  net.Listener
	server    *http.Server
}

// New listens; Run serves.
func New(p *run.Process, o Options) (run.Service, error) {
	if allowed := p.Conn.MaxPayload() - streams.HeaderAllowance; o.limits.MaxBytes > min(allowed, streams.MaxMessage) {
		return nil, fmt.Errorf("max-bytes: %d, but the NATS server takes messages of %d and the streams of %d", o.limits.MaxBytes, allowed, streams.MaxMessage)
	}
	s := &service{process: p, options: o}
	var err error
	if s.jobs, err = jobs.New(context.Background(), p.Conn, p.JetStream, p.Publisher); err != nil {
		return nil, err
	}
	s.admission = admission.New(p.Conn, p.JetStream, p.Pipelines, admission.MaxWait{
		subject.Interactive: o.maxQueue, subject.Bulk: o.maxBulkQueue,
	}, p.Logger, p.Metrics)
	if err := p.ServeStatus(func() any { return s.admission.Pipelines() }); err != nil {
		return nil, err
	}
	if s.analyze, err = natsapi.New(natsapi.Config{
		Jobs: s.jobs, Admission: s.admission, Pipelines: p.Pipelines, Limits: o.limits,
		Wait: o.wait, Concurrency: o.concurrency, Tracers: p.Tracers, Logger: p.Logger,
	}, p.Micro); err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", o.http); err != nil {
		return nil, fmt.Errorf("listen for HTTP on %s: %w", o.http, err)
	}
	s.server = &http.Server{
		Handler: httpapi.New(httpapi.Config{
			Jobs: s.jobs, Admission: s.admission, Pipelines: p.Pipelines, Limits: o.limits,
			Wait: o.wait, MaxWait: o.maxWait, BodyMemory: o.bodyMemory, BodyTimeout: o.bodyTimeout,
			Tracers: p.Tracers, Logger: p.Logger, Metrics: httpapi.NewMetrics(p.Metrics),
		}),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
	run.Listening(p.Logger, "http", s.listener.Addr().String())
	return s, nil
}

// Run serves until ctx ends, then takes no more requests and lets those that
// wait have their answers until hard ends.
func (s *service) Run(ctx, hard context.Context) error {
	watching, endWatch := context.WithCancel(context.WithoutCancel(ctx))
	defer endWatch()
	var g errgroup.Group
	g.Go(func() error {
		s.admission.Run(watching)
		return nil
	})
	failed := make(chan struct{})
	g.Go(func() error {
		defer close(failed)
		err := s.server.Serve(s.listener)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		return err
	})
	s.process.SetReady(ctx.Err() == nil)
	select {
	case <-ctx.Done():
	case <-failed:
	}
	err := s.stop(hard)
	endWatch()
	return errors.Join(err, g.Wait())
}

func (s *service) stop(hard context.Context) error {
	// Others take the NATS requests from here on; those in hand, and those
	// that the server sent before it knew, go on.
	err := s.process.Micro.Stop()
	_ = s.process.Conn.FlushTimeout(time.Second) // without a server there are none
	if shutErr := s.server.Shutdown(hard); shutErr != nil {
		err = errors.Join(err, fmt.Errorf("stop the HTTP server: %w", shutErr), s.server.Close())
	}
	s.analyze.Stop()
	return errors.Join(err, s.jobs.Close())
}
