// Package drawings serves requests over NATS to draw regions on their image. The image is
// decoded by the same decoder as for detection.
//
// It has its own lanes, so that drawing and the jobs of detect do not delay each other. Its
// endpoint is a separate service in the NATS service framework. The endpoint stops at the
// first signal, before the process ends, so that other workers get new requests.
//
// A request occupies a place from its arrival until its last piece is sent. When no place
// is free, the request is rejected immediately. Otherwise it waits for a lane and keeps it
// until the last piece is sent. The number of images in memory is therefore limited by the
// number of lanes.
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
	// name is the name of the service in the NATS service framework, and the name of the
	// pipeline with which its lanes are started.
	name = "draw"
	// defaultLaneTimeout limits the time of a lane for one image. The largest accepted image
	// takes three seconds.
	defaultLaneTimeout = 10 * time.Second
	// requestTimeout limits the time of a request from its arrival to its last piece.
	requestTimeout = 30 * time.Second
	// pieceTimeout limits the time in which a client must reply to a piece.
	pieceTimeout = 5 * time.Second
	// waitersPerLane limits the requests that wait for each lane.
	waitersPerLane = 4
)

// Options are the flags of the service.
type Options struct{ lanes int }

// Register defines the flags of the options.
func (o *Options) Register(fs *flag.FlagSet) {
	fs.IntVar(&o.lanes, "draw-lanes", 1,
		"number of lanes that draw images, in addition to --lanes; 0: this worker draws no images")
}

// Validate returns an error for options that cannot be used.
func (o *Options) Validate() error {
	if o.lanes < 0 {
		return fmt.Errorf("draw-lanes: %d, want 0 or more", o.lanes)
	}
	return nil
}

// Service serves requests on sight.v1.draw.
type Service struct {
	conn     *nats.Conn
	endpoint *bus.Service
	pool     *pool.Pool
	limits   imagefile.Limits
	requests *bus.Requests
	metrics  *metrics
	tracer   trace.Tracer
	logger   *slog.Logger

	// baseCtx is the parent context of all requests. end cancels it.
	baseCtx context.Context //nolint:containedctx // the life of the service
	cancel  context.CancelFunc
}

// New returns the drawing service of a detect process. Its lanes have the limits of the
// worker's lanes. New returns nil when the options have no lanes for drawing. Run starts
// the lanes.
func New(p *run.Process, o Options, lanes worker.Options, limits imagefile.Limits) (*Service, error) {
	return newWithLaneTimeout(p, o, lanes, limits, defaultLaneTimeout)
}

// newWithLaneTimeout returns a service as New does. A lane has the time laneTimeout for one
// image.
func newWithLaneTimeout(
	p *run.Process, o Options, lanes worker.Options, limits imagefile.Limits, laneTimeout time.Duration,
) (*Service, error) {
	if o.lanes == 0 {
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

// newService starts the endpoint of a service with the lanes of cfg.
func newService(p *run.Process, cfg pool.Config, limits imagefile.Limits) (*Service, error) {
	s := &Service{
		conn: p.Conn, limits: limits, metrics: newMetrics(p.Metrics), logger: p.Logger,
		requests: bus.NewRequests(cfg.Lanes*(1+waitersPerLane), busyError(cfg.Lanes), stoppingError()),
		tracer:   p.Tracers.Tracer("github.com/sightmesh/sightmesh/services/detect"),
	}
	s.baseCtx, s.cancel = context.WithCancel(context.Background())
	cfg.Stage, cfg.Metrics, cfg.Logger = subject.Detect, s.metrics, p.Logger
	cfg.Tracer = worker.NewLaneTracer(p.Tracers)
	var err error
	if s.pool, err = pool.New(cfg); err != nil {
		return nil, fmt.Errorf("create lanes for drawing: %w", err)
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

// metadata returns the metadata of the endpoint.
func metadata(limits *imagefile.Limits) map[string]string {
	m := limits.Metadata()
	m["request_schema"] = v1.SchemaID("draw-request")
	m["response_types"] = "image/png,image/jpeg"
	m["max_piece_bytes"] = strconv.Itoa(v1.MaxPiece)
	m["problem_schema"] = v1.SchemaID("problem")
	return m
}

// Run starts the lanes and serves requests until ctx ends. Then it finishes the requests
// that it has accepted; when hard ends, it cancels them.
func (s *Service) Run(ctx, hard context.Context) error {
	defer context.AfterFunc(hard, s.cancel)()
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

// stop removes the endpoint, so that other workers get new requests, and returns when no
// request is in progress.
func (s *Service) stop() error {
	err := s.endpoint.Stop()
	_ = s.conn.FlushTimeout(time.Second) // without a server there are no requests
	s.requests.Stop()
	s.cancel()
	return err
}
