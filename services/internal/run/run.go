// Package run runs a service process: flags and environment, logs and traces, the
// connection to NATS, the admin server, signals, and shutdown in this order:
//
//	not ready → accept no more work → finish work in progress, until --grace is over
//	→ hand back the rest → drain NATS → close the admin server
//	→ export the last spans, metrics and log records
//
// A second signal ends the process immediately.
package run

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Process has what a service needs from its process. Everything in it is ready to use
// and is closed by this package.
type Process struct {
	Service   string
	Instance  string // unique for each process
	Logger    *slog.Logger
	Tracers   trace.TracerProvider
	Metrics   *prometheus.Registry
	Conn      *nats.Conn
	JetStream jetstream.JetStream
	Publisher *bus.Publisher
	Clock     *clock.Clock
	// Endpoints is the service in the NATS service framework. Clients can discover
	// it when Spec.New has returned.
	Endpoints *bus.Service
	Pipelines []pipeline.Pipeline

	readiness *readiness
	status    atomic.Pointer[func() any]
}

// ServeStatus makes every instance of the service reply on the status subject with
// what status returns, and adds the same to the statistics of the service framework.
// metadata describes the endpoint.
func (p *Process) ServeStatus(status func() any, metadata map[string]string) error {
	p.status.Store(&status)
	return p.Endpoints.AddEndpoint(bus.Endpoint{
		Name: "status", Subject: subject.Status(p.Service), EveryInstance: true, Metadata: metadata,
		Handle: func(r *bus.Request) {
			body, err := json.Marshal(status())
			if err != nil {
				err = fmt.Errorf("encode status: %w", err)
				r.Fail(err)
			} else {
				err = r.Respond(body, nil)
			}
			if err != nil {
				p.Logger.Warn("cannot reply with the status", "error", err)
			}
		},
	})
}

func (p *Process) currentStatus() any {
	if status := p.status.Load(); status != nil {
		return (*status)()
	}
	return nil
}

// Service is the work of a process.
type Service interface {
	// Run works until ctx ends, finishes the work in progress until hard ends, and
	// returns when all its goroutines have ended. An error before ctx ends stops the
	// process.
	Run(ctx, hard context.Context) error
}

// Spec describes a service to [Main].
type Spec struct {
	Name        string
	Description string
	// Flags registers the flags of the service. It may be nil.
	Flags func(*flag.FlagSet)
	// Validate returns an error for flags that the service cannot use with these pipelines.
	// It is called before the process connects to NATS. It may be nil.
	Validate func([]pipeline.Pipeline) error
	New      func(*Process) (Service, error)
}

// Main runs a service until a signal and returns its exit code.
func Main(spec Spec) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() { // ends with the process: it waits for a second signal
		<-ctx.Done()
		stop()
	}()
	if isVersion(os.Args[1:]) {
		fmt.Println(versionLine(spec.Name))
		return 0
	}
	err := Run(ctx, spec, os.Args[1:], os.Getenv, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", spec.Name, err)
		return 1
	}
	return 0
}

// Run does what [Main] does, with arguments, environment and standard error as
// parameters. The service stops when ctx ends.
func Run(ctx context.Context, spec Spec, args []string, getenv func(string) string, stderr io.Writer) (err error) {
	var f commonFlags
	renamed, err := f.parse(spec, args, stderr)
	if err != nil {
		return err
	}
	p := &Process{Service: spec.Name, Instance: nuid.Next(), Metrics: telemetry.NewRegistry()}
	p.Logger = telemetry.NewLogger(stderr, f.logLevel, p.Service, p.Instance)
	if err := setMemoryDefaults(getenv); err != nil {
		return err
	}
	for _, r := range renamed {
		p.Logger.Warn("flag was renamed; the former name will be removed in a later release",
			"flag", "--"+r.former, "use", "--"+r.name)
	}
	if p.Pipelines, err = pipeline.Load(f.pipelines); err != nil {
		return err
	}
	if spec.Validate != nil {
		if err := spec.Validate(p.Pipelines); err != nil {
			return err
		}
	}

	// Everything that is started from here on is closed in reverse order.
	telemetry.LogErrors(p.Logger)
	providers, err := telemetry.NewProviders(ctx, p.Service, p.Instance, contracts.Version, p.Metrics, getenv)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		providers.Shutdown(ctx)
	}()
	p.Logger, p.Tracers = providers.Logger(p.Logger), providers.Tracers()

	admin, err := telemetry.StartAdmin(f.admin, p.Metrics)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, withCloseTimeout(admin.Close)) }()
	p.readiness = &readiness{admin: admin, log: p.Logger, err: errStarting}
	LogListening(p.Logger, "admin", admin.Addr())

	if f.profiles != "" {
		var profiles *telemetry.Profiles
		if profiles, err = telemetry.StartProfiles(f.profiles); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, withCloseTimeout(profiles.Close)) }()
		LogListening(p.Logger, "profiles", profiles.Addr())
	}

	p.Starting("waiting for NATS")
	p.Conn, err = bus.Connect(ctx, f.nats, p.Service, p.Instance, p.Logger)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, withCloseTimeout(func(ctx context.Context) error { return bus.Drain(ctx, p.Conn) }))
	}()
	p.Starting("waiting for streams and consumers")
	if p.JetStream, err = jetstream.New(p.Conn, jetstream.WithDefaultTimeout(3*time.Second)); err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	p.Clock = clock.New(localClock)
	p.Publisher = bus.NewPublisher(p.JetStream, p.Clock, p.Tracers)
	if err := p.awaitSetUp(ctx); err != nil {
		return err
	}
	p.Starting("")
	defer p.runClock()()
	p.Endpoints = bus.NewService(p.Conn, bus.ServiceConfig{
		Name: spec.Name, Version: contracts.Version, Description: spec.Description,
		Metadata: map[string]string{"instance": p.Instance, "pipelines": strings.Join(pipeline.Names(p.Pipelines), ",")},
		Status:   p.currentStatus,
	})
	defer func() { err = errors.Join(err, p.Endpoints.Stop()) }()
	service, err := spec.New(p)
	if err != nil {
		return fmt.Errorf("make %s: %w", spec.Name, err)
	}
	if err := p.Endpoints.Start(); err != nil {
		return err
	}

	// The server must know the endpoints before the process is ready.
	if err := p.Conn.FlushTimeout(5 * time.Second); err != nil {
		return fmt.Errorf("register endpoints: %w", err)
	}
	stopping, hard, cancel := stopContexts(ctx, f.grace, func() {
		p.readiness.stop()
		p.Logger.Info("stopping", "grace", f.grace.String())
	})
	defer cancel()
	if err := service.Run(stopping, hard); err != nil {
		return fmt.Errorf("run %s: %w", spec.Name, err)
	}
	p.Logger.Info("stopped")
	return nil
}

// runClock measures the clock of the server, once before it returns and then until
// stop is called.
func (p *Process) runClock() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	if err := p.Clock.Measure(ctx, p.JetStream); err != nil {
		p.Logger.Warn("cannot measure the clock of the server, start with the local clock", "error", err)
	}
	var running sync.WaitGroup
	running.Go(func() { p.Clock.Run(ctx, p.JetStream, p.Logger) })
	return func() {
		cancel()
		running.Wait()
	}
}

// LogListening logs the address on which a server of the process listens. Programs that
// start the process with port 0 read the port from this line.
func LogListening(log *slog.Logger, name, addr string) {
	log.Info(v1.ListeningMessage, "name", name, "addr", addr)
}

// setUpPause is the time between two checks of the streams and consumers.
const setUpPause = 500 * time.Millisecond

// awaitSetUp waits until sightmesh setup has created the streams and consumers: in a
// cluster the services may start before it.
func (p *Process) awaitSetUp(ctx context.Context) error {
	for logged := ""; ; {
		err := streams.Check(ctx, p.JetStream, streams.Config{Pipelines: pipeline.Names(p.Pipelines)})
		if err == nil {
			return nil
		}
		if err.Error() != logged {
			logged = err.Error()
			p.Starting("waiting for streams and consumers: " + logged)
			p.Logger.Warn("waiting for streams and consumers", "error", err)
		}
		if err := retry.Sleep(ctx, setUpPause); err != nil {
			return fmt.Errorf("wait for streams and consumers: %w", err)
		}
	}
}

// stopContexts returns the two contexts of a service. When ctx ends, it calls
// beforeStop, and then stopping ends. hard ends after grace.
func stopContexts(
	ctx context.Context, grace time.Duration, beforeStop func(),
) (stopping, hard context.Context, cancel func()) {
	base := context.WithoutCancel(ctx)
	stopping, stop := context.WithCancel(base)
	hard, end := context.WithCancel(base)
	done := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		beforeStop()
		stop()
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-done:
		case <-t.C:
			end()
		}
	}()
	return stopping, hard, func() {
		close(done)
		<-finished
		stop()
		end()
	}
}

// closeTimeout limits each step of the shutdown after the service has stopped.
const closeTimeout = 5 * time.Second

func withCloseTimeout(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return f(ctx)
}
