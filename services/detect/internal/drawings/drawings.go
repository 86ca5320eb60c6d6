// Package drawings serves requests to draw over NATS: regions on their image,
// drawn by the decoder that reads images.
//
// It has lanes of its own, so that drawing and the jobs of detect do not hold each
// other up. Its endpoint is a service of its own in the NATS service framework: it
// stops with the first signal, when other workers can draw, and not with the
// process.
//
// A request has a place from its arrival until its last piece is sent. One without
// a place is rejected at once. With a place it waits for a lane, which it holds
// until its last piece: the images that are held are as many as there are lanes.
package drawings

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/services/detect/internal/detectors"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/internal/worker"
)

const (
	// name is that of the service in the NATS service framework, and of the
	// pipeline under which its lanes are started.
	name = "draw"
	// laneTimeout is how long a lane may work on one image. The largest that is
	// accepted takes three seconds.
	laneTimeout = 10 * time.Second
	// requestTimeout is how long a request may take, from its arrival to its last
	// piece.
	requestTimeout = 30 * time.Second
	// pieceTimeout is how long a client may take to answer a piece.
	pieceTimeout = 5 * time.Second
	// waitersPerLane is how many requests may wait for each lane.
	waitersPerLane = 4
)

// Options are the flags of the service.
type Options struct{ lanes int }

// Register makes flags of the options.
func (o *Options) Register(fs *flag.FlagSet) {
	fs.IntVar(&o.lanes, "draw-lanes", 1,
		"number of lanes that draw images, in addition to --lanes; 0: this worker draws no images")
}

// Service answers requests on sight.v1.draw.
type Service struct {
	conn     *nats.Conn
	endpoint *bus.Service
	pool     *pool.Pool
	limits   imagefile.Limits
	requests *bus.Requests
	metrics  *metrics
	tracer   trace.Tracer
	logger   *slog.Logger

	// life ends when requests under way are to end.
	life context.Context //nolint:containedctx // the life of the service
	end  context.CancelFunc
}

// New returns the service of a process of detect, whose lanes have the limits of
// the worker. It is nil when the options say that the process does not draw. Run
// starts the lanes.
func New(p *run.Process, o Options, lanes worker.Options, limits imagefile.Limits) (*Service, error) {
	switch {
	case o.lanes < 0:
		return nil, fmt.Errorf("draw-lanes: %d, want 0 or more", o.lanes)
	case o.lanes == 0:
		return nil, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cfg := lanes.PoolConfig()
	cfg.Lanes = o.lanes
	cfg.Programs = []pool.Program{{
		Name: name, Argv: []string{self, worker.LaneCommand}, Memory: lanes.MemoryLimit(),
		Pipelines: map[string]pool.Pipeline{name: {Setup: lane.Setup{Kind: detectors.DrawKind}, Timeout: laneTimeout}},
	}}
	return newService(p, cfg, limits)
}

// newService returns a service with the lanes of cfg.
func newService(p *run.Process, cfg pool.Config, limits imagefile.Limits) (*Service, error) {
	s := &Service{
		conn: p.Conn, limits: limits, metrics: newMetrics(p.Metrics), logger: p.Logger,
		requests: bus.NewRequests(cfg.Lanes*(1+waitersPerLane), busyError(cfg.Lanes), stoppingError()),
		tracer:   p.Tracers.Tracer("github.com/sightmesh/sightmesh/services/detect"),
	}
	s.life, s.end = context.WithCancel(context.Background())
	cfg.Stage, cfg.Metrics, cfg.Logger = subject.Detect, s.metrics, p.Logger
	cfg.Tracer = worker.NewLaneTracer(p.Tracers)
	var err error
	if s.pool, err = pool.New(cfg); err != nil {
		return nil, fmt.Errorf("make lanes that draw: %w", err)
	}
	s.endpoint = bus.NewService(p.Conn, bus.ServiceConfig{
		Name: name, Version: contracts.Version, Description: "Draws regions on their image.",
		Metadata: map[string]string{"instance": p.Instance, "service": p.Service, "lanes": strconv.Itoa(cfg.Lanes)},
	})
	if err := s.endpoint.AddEndpoint(bus.Endpoint{
		Name: name, Subject: subject.Draw(), Metadata: metadata(&limits), Handle: s.handle,
	}); err != nil {
		return nil, err
	}
	if err := s.endpoint.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

// metadata describes the endpoint.
func metadata(limits *imagefile.Limits) map[string]string {
	m := limits.Metadata()
	m["request_schema"] = v1.SchemaID("draw-request")
	m["response_types"] = "image/png,image/jpeg"
	m["max_piece_bytes"] = strconv.Itoa(v1.MaxPiece)
	m["problem_schema"] = v1.SchemaID("problem")
	return m
}

// Run draws until ctx ends, and finishes the requests that it has until hard ends.
func (s *Service) Run(ctx, hard context.Context) error {
	defer context.AfterFunc(hard, s.end)()
	poolCtx, endPool := context.WithCancel(context.WithoutCancel(ctx))
	defer endPool()
	var g errgroup.Group
	g.Go(func() error { return s.pool.Run(poolCtx) })
	<-ctx.Done()
	err := s.stop()
	endPool()
	if err := errors.Join(err, g.Wait()); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	return nil
}

// stop leaves the requests that come from here on to other workers, and returns
// when none is under way.
func (s *Service) stop() error {
	err := s.endpoint.Stop()
	_ = s.conn.FlushTimeout(time.Second) // without a server there are no requests
	s.requests.Stop()
	s.end()
	return err
}
