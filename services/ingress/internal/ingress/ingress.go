// Package ingress is the service that accepts images. It runs the HTTP server and the NATS
// endpoint. When it stops, it rejects new requests first and finishes those in progress.
package ingress

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/ingress/internal/body"
	"github.com/sightmesh/sightmesh/services/ingress/internal/fetch"
	"github.com/sightmesh/sightmesh/services/ingress/internal/httpapi"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/natsapi"
	"github.com/sightmesh/sightmesh/services/ingress/internal/reportfetch"
	"github.com/sightmesh/sightmesh/services/ingress/internal/reportintake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/webhooks"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/run"
)

// Options are the flags of ingress.
type Options struct {
	http         string
	limits       imagefile.Limits
	wait         time.Duration
	maxWait      time.Duration
	maxQueue     time.Duration
	maxBulkQueue time.Duration
	bodyMemory   int64
	bodyTimeout  time.Duration
	concurrency  int

	clientBodyMemory int64
	minBodyRate      int64
	natsMemory       int64

	oldRoutes       bool
	maxFormBytes    int64
	maxImages       int
	maxReportQueue  int
	fetches         int
	fetchesPerHost  int
	sessions        httpapi.RequestLimit
	eventStreams    httpapi.RequestLimit
	polls           httpapi.RequestLimit
	maxWindow       int
	allowNetworks   string
	corsOrigins     string
	publicURL       string
	trustedProxies  string
	callbackSecrets string
	callbackGiveUp  time.Duration
	drain           time.Duration
}

// Register registers the flags of the options.
func (o *Options) Register(fs *flag.FlagSet) {
	o.limits = imagefile.DefaultLimits()
	o.limits.Register(fs)
	fs.StringVar(&o.http, "http", "127.0.0.1:8080", "`address` of the HTTP API")
	fs.DurationVar(&o.wait, "wait", 20*time.Second, "how long a request waits for its result when the client sets no time")
	fs.DurationVar(&o.maxWait, "max-wait", 60*time.Second,
		"longest wait of a request; a longer time that a client sets is shortened to it")
	fs.DurationVar(&o.maxQueue, "max-queue", 15*time.Second,
		"longest expected queue wait of interactive jobs; above it, images are rejected with 429")
	fs.DurationVar(&o.maxBulkQueue, "max-bulk-queue", 30*time.Minute,
		"longest expected queue wait of bulk jobs; above it, images are rejected with 429")
	fs.Int64Var(&o.bodyMemory, "body-memory", 256<<20, "memory for request bodies and frames of all clients, in `bytes`; "+
		"reserved as bytes arrive; above it, requests are rejected with 429")
	fs.Int64Var(&o.clientBodyMemory, "client-body-memory", 0,
		"share of --body-memory that one client address may use, in `bytes`; "+
			"0: half of it, at least --max-form-bytes")
	fs.Int64Var(&o.minBodyRate, "min-body-rate", 1<<10,
		"lowest rate at which a body or frame may arrive, in `bytes` per second, "+
			"averaged over 10 s, after 5 s of grace")
	fs.DurationVar(&o.bodyTimeout, "body-timeout", 0, "no effect; will be removed; use --min-body-rate")
	fs.IntVar(&o.concurrency, "max-nats-requests", 1024,
		"maximum number of requests over NATS that wait at the same time; above it, requests are rejected with 429")
	fs.Int64Var(&o.natsMemory, "nats-memory", 256<<20,
		"memory for requests over NATS that wait, in `bytes`; above it, requests are rejected with 429")
	fs.BoolVar(&o.oldRoutes, "old-routes", false,
		"serve the routes of earlier systems: /tyocr, /upload and the full report")
	fs.Int64Var(&o.maxFormBytes, "max-form-bytes", 64<<20,
		"largest form with images, in `bytes`; limited by --body-memory")
	fs.IntVar(&o.maxImages, "max-report-images", 1000, "maximum number of images of a report")
	fs.IntVar(&o.maxReportQueue, "max-report-queue", 10_000,
		"maximum number of images of all reports that wait to be fetched; "+
			"above it, reports are rejected with 429")
	fs.IntVar(&o.fetches, "fetches", 16, "number of images of reports that are fetched at the same time")
	fs.IntVar(&o.fetchesPerHost, "fetches-per-host", 4, "number of images that are fetched from one host at the same time")
	fs.IntVar(&o.sessions.Total, "max-sessions", 100,
		"maximum number of open sessions; above it, sessions are rejected with 429")
	fs.IntVar(&o.sessions.PerClient, "client-sessions", 50, "maximum number of open sessions of one client address")
	run.FormerName(fs, "max-sessions", "max-streams")
	run.FormerName(fs, "client-sessions", "client-streams")
	fs.IntVar(&o.eventStreams.Total, "max-event-streams", 2000,
		"maximum number of open event streams; above it, requests are rejected with 429")
	fs.IntVar(&o.eventStreams.PerClient, "client-event-streams", 500,
		"maximum number of open event streams of one client address")
	fs.IntVar(&o.polls.Total, "max-polls", 2000,
		"maximum number of GET requests for a job that wait (?wait=); above it, requests are rejected with 429")
	fs.IntVar(&o.polls.PerClient, "client-polls", 500, "maximum number of GET requests of one client address that wait")
	fs.IntVar(&o.maxWindow, "max-window", 64, "largest window of a session, in frames")
	fs.StringVar(&o.allowNetworks, "allow-networks", "",
		"private `networks`, separated by commas, that image URLs and webhooks may use, such as "+
			"10.1.0.0/16")
	fs.StringVar(&o.corsOrigins, "cors-origins", "",
		"`origins`, separated by commas, whose web pages may use the mesh, such as "+
			"https://app.example; *: all")
	fs.StringVar(&o.publicURL, "public-url", "",
		"`URL` at which clients reach the mesh, with the path prefix: addresses in responses "+
			"begin with it")
	fs.StringVar(&o.trustedProxies, "trusted-proxies", "",
		"`networks`, separated by commas, of proxies whose X-Forwarded-* headers are "+
			"trusted, such as 10.0.0.0/8")
	fs.StringVar(&o.callbackSecrets, "callback-secrets", "",
		"`secrets`, separated by commas, that sign webhooks: whsec_ and 24 to 64 bytes in "+
			"base64; empty: no webhooks; preferably set by SIGHTMESH_CALLBACK_SECRETS")
	fs.DurationVar(&o.callbackGiveUp, "callback-give-up", streams.WebhookAge,
		"how long the delivery of a webhook is retried")
	fs.DurationVar(&o.drain, "drain", 0, "how long requests are accepted after SIGTERM, as part of --grace, "+
		"while load balancers remove the replica; each response closes its connection")
}

// Validate returns an error for options that cannot be used with any NATS server.
func (o *Options) Validate() error {
	switch {
	case o.bodyMemory < o.limits.MaxBytes:
		return fmt.Errorf("body-memory: %d, which has no room for one image of max-bytes, %d", o.bodyMemory,
			o.limits.MaxBytes)
	case o.natsMemory < o.limits.MaxBytes:
		return fmt.Errorf("nats-memory: %d, which has no room for one image of max-bytes, %d", o.natsMemory,
			o.limits.MaxBytes)
	case o.clientBodyMemory != 0 && o.clientBodyMemory < o.limits.MaxBytes:
		return fmt.Errorf("client-body-memory: %d, which has no room for one image of max-bytes, %d",
			o.clientBodyMemory, o.limits.MaxBytes)
	case o.minBodyRate < 1:
		return fmt.Errorf("min-body-rate: %d, want 1 byte per second or more", o.minBodyRate)
	case o.callbackGiveUp <= 0 || o.callbackGiveUp > streams.WebhookAge:
		return fmt.Errorf("callback-give-up: %v, want more than 0 and at most %v", o.callbackGiveUp, streams.WebhookAge)
	}
	if _, err := o.parseSecrets(); err != nil {
		return err
	}
	if _, err := parseNetworks(o.allowNetworks); err != nil {
		return fmt.Errorf("allow-networks: %w", err)
	}
	_, err := o.webConfig()
	return err
}

type service struct {
	process   *run.Process
	options   Options
	intake    *intake.Intake
	admission *admission.Admission
	analyze   *natsapi.Analyze
	fetcher   *fetch.Fetcher
	fetches   *reportfetch.Consumer
	webhooks  *webhooks.Sender // nil without secrets
	transport *http.Transport  // for webhooks
	listener  net.Listener
	api       *httpapi.API
	server    *http.Server
	// draining ends when the stop of the service begins.
	draining context.Context //nolint:containedctx // the life of the service
	drain    context.CancelFunc
	// stopping ends when requests should stop waiting.
	stopping    context.Context //nolint:containedctx // the life of the service
	stopWaiting context.CancelFunc
}

// New returns the service, which listens already. Run serves requests. [Options.Validate] has accepted the options.
func New(p *run.Process, o Options) (run.Service, error) {
	if allowed := p.Conn.MaxPayload() - streams.HeaderAllowance; o.limits.MaxBytes > min(allowed, streams.MaxMessage) {
		return nil, fmt.Errorf("max-bytes: %d, but the NATS server accepts messages of %d bytes, and the streams of %d",
			o.limits.MaxBytes, allowed, streams.MaxMessage)
	}
	if o.bodyTimeout != 0 {
		p.Logger.Warn("body-timeout no longer has an effect: use min-body-rate")
	}
	o.maxFormBytes = min(o.maxFormBytes, o.bodyMemory)
	if o.clientBodyMemory == 0 {
		o.clientBodyMemory = max(o.bodyMemory/2, o.maxFormBytes, o.limits.MaxBytes)
	}
	s := &service{process: p, options: o}
	s.draining, s.drain = context.WithCancel(context.Background())
	s.stopping, s.stopWaiting = context.WithCancel(context.Background())
	s.admission = admission.New(p.Conn, p.JetStream, p.Pipelines, admission.MaxWait{
		subject.Interactive: o.maxQueue, subject.Bulk: o.maxBulkQueue,
	}, p.Logger, p.Metrics)
	p.Endpoints.Describe(o.limits.Metadata())
	schema := v1.SchemaID("pipelines") + "#/$defs/Pipelines/properties/pipelines"
	if err := p.ServeStatus(func() any { return v1.IngressStatus(s.admission.Pipelines()) },
		map[string]string{"response_schema": schema}); err != nil {
		return nil, err
	}
	if err := s.newWebClients(p, o); err != nil {
		return nil, err
	}
	jobs, err := client.New(p.Conn)
	if err != nil {
		return nil, err
	}
	if s.intake, err = intake.New(context.Background(), intake.Config{
		Conn: p.Conn, JetStream: p.JetStream, Clock: p.Clock, Publisher: p.Publisher, Client: jobs,
		Fetcher: s.fetcher, Admission: s.admission,
		Pipelines: p.Pipelines, Limits: o.limits, Webhooks: s.webhooks != nil, Stopping: s.stopping, Logger: p.Logger,
	}); err != nil {
		return nil, err
	}
	s.fetches = reportfetch.New(reportfetch.Config{
		JetStream: p.JetStream, Clock: p.Clock, Publisher: p.Publisher, Fetcher: s.fetcher, Intake: s.intake,
		Tracers: p.Tracers, Logger: p.Logger, Metrics: p.Metrics,
	})
	if s.analyze, err = natsapi.New(natsapi.Config{
		Conn: p.Conn, Intake: s.intake, Limits: o.limits, Wait: o.wait, MaxWait: o.maxWait, Concurrency: o.concurrency,
		Memory: body.NewMemory(o.natsMemory, o.natsMemory), Tracers: p.Tracers, Logger: p.Logger,
	}, p.Endpoints); err != nil {
		return nil, err
	}
	web, err := o.webConfig()
	if err != nil {
		return nil, err
	}
	if s.api, err = httpapi.New(httpapi.Config{
		Intake: s.intake,
		Reports: reportintake.New(reportintake.Config{
			JetStream: p.JetStream, Clock: p.Clock, Intake: s.intake,
			MaxImages: o.maxImages, MaxBacklog: o.maxReportQueue,
		}),
		Client: jobs, Admission: s.admission, Limits: o.limits,
		Wait: o.wait, MaxWait: o.maxWait, BodyMemory: o.bodyMemory, ClientBodyMemory: o.clientBodyMemory,
		BodyRate:     body.Rate{BytesPerSecond: o.minBodyRate},
		MaxFormBytes: o.maxFormBytes, MaxImages: o.maxImages,
		Sessions: o.sessions, EventStreams: o.eventStreams, Polls: o.polls, MaxWindow: o.maxWindow,
		OldRoutes: o.oldRoutes, Draining: s.draining, Stopping: s.stopping,
		CORSOrigins: splitList(o.corsOrigins), PublicURL: web.public, TrustedProxies: web.trusted,
		Tracers: p.Tracers, Logger: p.Logger, Metrics: httpapi.NewMetrics(p.Metrics),
	}); err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", o.http); err != nil {
		return nil, fmt.Errorf("listen for HTTP on %s: %w", o.http, err)
	}
	s.server = &http.Server{
		Handler:           s.api,
		ReadHeaderTimeout: headerTimeout,
		// ReadTimeout also limits bodies that no handler reads: net/http reads them before it responds, and
		// would wait forever. Handlers that read a body set their own limit.
		ReadTimeout:    headerTimeout + unreadBodyTimeout,
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 32 << 10,
	}
	run.LogListening(p.Logger, "http", s.listener.Addr().String())
	return s, nil
}

// headerTimeout is the time limit for the headers of a request.
const headerTimeout = 10 * time.Second

// unreadBodyTimeout is the time limit for a body that no handler reads.
const unreadBodyTimeout = 5 * time.Second

// newWebClients creates the clients for URLs that clients of the mesh send.
func (s *service) newWebClients(p *run.Process, o Options) error {
	guard := fetch.Config{MaxBytes: o.limits.MaxBytes, Timeout: fetch.Timeout, PerHost: o.fetchesPerHost}
	var err error
	if guard.Allow, err = parseNetworks(o.allowNetworks); err != nil {
		return fmt.Errorf("allow-networks: %w", err)
	}
	s.fetcher = fetch.New(guard)
	secrets, err := o.parseSecrets()
	if err != nil || len(secrets) == 0 {
		return err
	}
	s.transport = fetch.NewTransport(guard)
	s.webhooks = webhooks.New(webhooks.Config{
		JetStream: p.JetStream, Clock: p.Clock, Publisher: p.Publisher, Transport: s.transport, Secrets: secrets,
		PerHost: webhooksPerHost, MaxAge: o.callbackGiveUp,
		Tracers: p.Tracers, Logger: p.Logger, Metrics: p.Metrics,
	})
	return nil
}

// parseSecrets returns the secrets of webhooks, none for a mesh that sends no webhooks.
func (o *Options) parseSecrets() (webhooks.Secrets, error) {
	secrets, err := webhooks.ParseSecrets(splitList(o.callbackSecrets))
	if err != nil {
		return nil, fmt.Errorf("callback-secrets: %w", err)
	}
	return secrets, nil
}

// webConfig describes how clients reach the mesh.
type webConfig struct {
	public  *url.URL
	trusted []netip.Prefix
}

func (o *Options) webConfig() (w webConfig, err error) {
	if w.public, err = httpapi.ParsePublicURL(o.publicURL); err != nil {
		return w, fmt.Errorf("public-url: %w", err)
	}
	if w.trusted, err = parseNetworks(o.trustedProxies); err != nil {
		return w, fmt.Errorf("trusted-proxies: %w", err)
	}
	return w, nil
}

// parseNetworks parses comma-separated networks.
func parseNetworks(text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, n := range splitList(text) {
		prefix, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, err
		}
		out = append(out, prefix)
	}
	return out, nil
}

// splitList splits a comma-separated list.
func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// webhooksPerHost is the maximum of concurrent webhooks to one host.
const webhooksPerHost = 4

// Run serves until ctx ends and the drain time is over. It then rejects new requests, and finishes those in
// progress until hard ends.
func (s *service) Run(ctx, hard context.Context) error {
	watching, endWatch := context.WithCancel(context.WithoutCancel(ctx))
	defer endWatch()
	var g errgroup.Group
	g.Go(func() error {
		s.admission.Run(watching)
		return nil
	})
	// Background work ends with ctx, or when the server fails.
	working, endWork := context.WithCancel(ctx)
	defer endWork()
	g.Go(func() error {
		s.fetches.Run(working, s.options.fetches)
		return nil
	})
	if s.webhooks != nil {
		g.Go(func() error {
			s.webhooks.Run(working, hard)
			return nil
		})
	}
	failed := make(chan struct{})
	g.Go(func() error {
		defer close(failed)
		err := s.server.Serve(s.listener)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		return err
	})
	g.Go(func() error {
		s.process.KeepReady(working, storagePeriod, func(context.Context) error { return s.admission.CheckStorage() })
		return nil
	})
	select {
	case <-ctx.Done():
	case <-failed:
	}
	endWork()
	s.drain()
	s.awaitDrained(hard, failed)
	err := s.shutdown(hard)
	endWatch()
	err = errors.Join(err, g.Wait(), s.intake.Close())
	s.fetcher.Close()
	if s.transport != nil {
		s.transport.CloseIdleConnections()
	}
	return err
}

// storagePeriod is the interval of the checks whether images can be stored.
const storagePeriod = 250 * time.Millisecond

// awaitDrained returns after the time of the flag drain, or when hard ends or the server has failed.
func (s *service) awaitDrained(hard context.Context, failed <-chan struct{}) {
	t := time.NewTimer(s.options.drain)
	defer t.Stop()
	select {
	case <-t.C:
	case <-hard.Done():
	case <-failed:
	}
}

func (s *service) shutdown(hard context.Context) error {
	// Other instances get new NATS requests from here on. Requests in progress, and those already sent to
	// this instance, continue.
	err := s.process.Endpoints.Stop()
	_ = s.process.Conn.FlushTimeout(time.Second) // fails only without a server, and then there are no requests
	s.stopWaiting()
	if shutErr := s.server.Shutdown(hard); shutErr != nil {
		err = errors.Join(err, fmt.Errorf("stop the HTTP server: %w", shutErr), s.server.Close())
	}
	s.api.Drain(hard)
	s.analyze.Stop()
	return err
}
