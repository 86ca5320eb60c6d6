package up

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/streams"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/bytesize"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
	"github.com/sightmesh/sightmesh/tools/internal/setup"
)

// Config of a mesh on one machine.
type Config struct {
	HTTP string
	NATS string
	// NATSWS is the loopback address of WebSockets for NATS; empty for none.
	NATSWS string
	// CORSOrigins are the origins of web pages that may use HTTP and these WebSockets, in the form of the flag of
	// ingress.
	CORSOrigins string
	// Admin is the address of the probes of the whole mesh; empty means any free port.
	Admin string
	Data  string
	// Reserve is how many bytes stay free on the disk of Data. With fewer free bytes, the mesh is not ready and
	// rejects images. 0 means 256 MiB.
	Reserve   int64
	Lanes     int
	Sample    string
	Log       string
	Pipelines string
	// Models is the folder of models; empty means models.
	Models    string
	Grace     time.Duration
	OldRoutes bool
	Postgres  string
	// Jaeger starts Jaeger, and sends the traces of the mesh to it. JaegerHTTP is the address of its web pages; empty
	// means any free port.
	Jaeger     bool
	JaegerHTTP string
	// Setup has the ages of results and reports, the limit of the streams, and Force. Run sets its other fields from
	// the fields above.
	Setup setup.Config
}

// Register registers the flags of the configuration.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.HTTP, "http", "127.0.0.1:8080", "`address` of the HTTP API; port 0: any free port")
	fs.StringVar(&c.NATS, "nats", "127.0.0.1:4222", "`address` of the NATS server; port 0: any free port")
	fs.StringVar(&c.NATSWS, "nats-ws", "",
		"loopback `address` of the NATS server for WebSockets of web pages, without TLS and "+
			"credentials, such as 127.0.0.1:9222; port 0: any free port; empty: none")
	fs.StringVar(&c.CORSOrigins, "cors-origins", "", "`origins`, separated by commas, whose web pages may use HTTP and "+
		"--nats-ws, such as https://app.example; *: all")
	fs.StringVar(&c.Admin, "admin", "127.0.0.1:0",
		"`address` of the probes of the whole mesh, /livez and /readyz; port 0: any free port")
	fs.StringVar(&c.Data, "data", ".data", "`folder` of the streams; only one mesh can use it at a time")
	c.Reserve = defaultReserve
	fs.Var((*bytesize.Size)(&c.Reserve), "reserve",
		"free disk space of the --data folder, in `bytes`; below it, images are rejected with 503")
	fs.IntVar(&c.Lanes, "lanes", runtime.NumCPU(), "number of lanes of detect, and of classify")
	fs.Lookup("lanes").DefValue = "number of CPUs" // for --help
	fs.StringVar(&c.Sample, "sample", "", "image `file` to process at start; empty: the sample page; none: no image")
	fs.StringVar(&c.Log, "log", "text", "`format` of log lines: text or json")
	fs.StringVar(&c.Pipelines, "pipelines", "", "pipelines `file`; empty: the built-in pipelines")
	fs.StringVar(&c.Models, "models", defaultModels, "`folder` in which pipelines find models by name")
	fs.DurationVar(&c.Grace, "grace", 25*time.Second, "how long all services together may take to end after SIGTERM "+
		"or Ctrl-C; each gets four fifths of it for its work in progress")
	fs.BoolVar(&c.OldRoutes, "old-routes", true,
		"serve the routes of earlier systems: /tyocr, /upload and the full report")
	fs.StringVar(&c.Postgres, "postgres", "", "`URL` of a PostgreSQL database that stores every result; empty: none; "+
		"preferably set by SIGHTMESH_POSTGRES")
	fs.BoolVar(&c.Jaeger, "jaeger", false,
		"start the program jaeger, from the folder of sightmesh or the PATH, and send traces to it")
	fs.StringVar(&c.JaegerHTTP, "jaeger-http", "127.0.0.1:16686",
		"`address` of the web pages of Jaeger; port 0: any free port")
	c.Setup.RegisterRetention(fs)
}

// defaultModels is the default of --models.
const defaultModels = "models"

// startTimeout is how long the services may take to be ready.
const startTimeout = 2 * time.Minute

// Run runs the mesh until ctx ends. When the mesh is ready, Run prints one line with the addresses on stdout, then the
// result of the sample. All other output is printed on stderr. A failure of the sample is logged and does not stop the
// mesh.
func Run(ctx context.Context, cfg Config, stdout, stderr io.Writer) (err error) {
	if cfg.Log != "text" && cfg.Log != "json" {
		return exit.Usagef("log: %q, want text or json", cfg.Log)
	}
	cfg.Reserve = cmp.Or(cfg.Reserve, defaultReserve)
	cfg.HTTP, cfg.NATS, cfg.Admin = cmp.Or(cfg.HTTP, anyPort), cmp.Or(cfg.NATS, anyPort), cmp.Or(cfg.Admin, anyPort)
	cfg.Setup.Pipelines, cfg.Setup.Sink, cfg.Setup.Wait = cfg.Pipelines, cfg.Postgres != "", 30*time.Second
	want, err := cfg.Setup.Streams()
	if err != nil {
		return err
	}
	web, err := webSocketOptions(cfg.NATSWS, cfg.CORSOrigins)
	if err != nil {
		return err
	}
	out := newPrinter(stderr, cfg.Log == "json")
	log := slog.New(slog.NewJSONHandler(out, nil)).With("service", "up")
	var viewer *jaeger
	if cfg.Jaeger {
		if viewer, err = newJaeger(cmp.Or(cfg.JaegerHTTP, anyPort), log, out); err != nil {
			return err
		}
		out.tracePrefix = viewer.tracePrefix()
	}
	// Another mesh is not changed: the folder is locked and the ports are reserved before anything is read or written.
	// A reservation is released immediately before the server listens on the port.
	lock, err := lockFolder(cfg.Data, cfg.HTTP, cfg.NATS)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	releaseHTTP, err := reservePort("HTTP", "--http", cfg.HTTP)
	if err != nil {
		return err
	}
	defer releaseHTTP()
	releaseNATS, err := reservePort("NATS", "--nats", cfg.NATS)
	if err != nil {
		return err
	}
	defer releaseNATS()
	releaseNATSWS := func() {}
	if cfg.NATSWS != "" {
		if releaseNATSWS, err = reservePort("NATS over WebSockets", "--nats-ws", cfg.NATSWS); err != nil {
			return err
		}
	}
	defer releaseNATSWS()
	probes, err := startAdmin(cfg.Admin)
	if err != nil {
		return err
	}
	defer probes.close()
	log.Info(v1.ListeningMessage, "name", "admin", "addr", probes.addr)
	limit, err := checkDisk(cfg, want)
	if err != nil {
		return err
	}
	sample, err := newSample(cfg.Sample, cfg.Data, want.Pipelines)
	if err != nil {
		return err
	}
	releaseNATS()
	releaseNATSWS()
	broker, err := startBroker(cfg.NATS, web, cfg.Data, limit, log.With("part", "nats"))
	if err != nil {
		return err
	}
	defer broker.stop()
	cfg.Setup.NATS.URL = broker.clientURL()
	if err := setup.Run(ctx, cfg.Setup, io.Discard); err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C while starting
		}
		return err
	}

	watch := newDiskWatch(broker, cfg.Data, cfg.Reserve, log)
	var watching sync.WaitGroup
	watchCtx, stopWatch := context.WithCancel(context.WithoutCancel(ctx))
	watching.Go(func() { watch.run(watchCtx) })
	defer func() {
		stopWatch()
		watching.Wait()
	}()

	var env []string
	if viewer != nil {
		env = viewer.environ()
	}
	children, err := newChildren(cfg, broker.clientURL(), env, log, out)
	if err != nil {
		return err
	}
	probes.setSources(watch.notReadyReason, children)
	releaseHTTP()
	if viewer != nil {
		defer viewer.start(cfg.Grace)() // it stops last, because services export spans until they end
		if err := viewer.awaitReady(ctx); err != nil {
			if ctx.Err() != nil {
				return nil // Ctrl-C while starting
			}
			return err
		}
	}
	var running sync.WaitGroup
	for _, c := range children {
		running.Go(c.run)
	}
	defer func() {
		stopChildren(children, cfg.Grace, log)
		running.Wait()
	}()

	http, err := awaitReady(ctx, children)
	if err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C while starting
		}
		return err
	}
	if err := lock.writeOwner(http, broker.addr()); err != nil {
		return err
	}
	pipelines, listErr := awaitPipelines(ctx, http)
	fmt.Fprintf(stdout, "ready http=http://%s nats=%s\n", http, broker.clientURL())
	if url := broker.webSocketURL(); url != "" {
		fmt.Fprintf(stdout, "nats-ws %s\n", url)
	}
	if viewer != nil {
		fmt.Fprintf(stdout, "jaeger http://%s\n", viewer.http)
	}
	if listErr == nil {
		log.Info("models in use", "pipelines", describeModels(pipelines), "more", "sightmesh models ls")
		for _, p := range pipelines {
			if !p.Ready {
				log.Warn("pipeline is not ready", "pipeline", p.Name, "reason", p.Reason)
			}
		}
	} else if ctx.Err() == nil {
		log.Warn("the models in use are not known", "error", listErr)
	}
	switch {
	case sample.skipped != "":
		log.Info("the sample is skipped", "reason", sample.skipped)
	case sample.data != nil:
		err := sample.process(ctx, stdout, http, broker.clientURL(), out.tracePrefix)
		if err != nil && ctx.Err() == nil {
			log.Error("the sample has no result", "error", err)
		}
	}
	<-ctx.Done()
	return nil
}

// anyPort is an address on loopback with a free port. The server logs the port.
const anyPort = "127.0.0.1:0"

// checkDisk returns how many bytes the broker may reserve on the disk of the data folder. The error says that the disk
// has too little space.
func checkDisk(cfg Config, want streams.Config) (limit int64, err error) {
	free, err := freeBytes(cfg.Data)
	if err != nil {
		return 0, err
	}
	s, err := readStore(storeDir(cfg.Data))
	if err != nil {
		return 0, err
	}
	return storeLimit(cfg.Data, s, free, cfg.Reserve, streams.TotalBytes(want))
}

// newChildren returns the services, in the order in which they stop. Each gets env in addition to its own environment.
func newChildren(cfg Config, natsURL string, env []string, log *slog.Logger, out *printer) ([]*child, error) {
	secret, err := webhookSecret(cfg.Data)
	if err != nil {
		return nil, err
	}
	worker := []string{"--lanes", strconv.Itoa(cfg.Lanes), "--models", cmp.Or(cfg.Models, defaultModels)}
	ingress := []string{
		"--http", cfg.HTTP, "--old-routes=" + strconv.FormatBool(cfg.OldRoutes), "--cors-origins", cfg.CORSOrigins,
	}
	var children []*child
	for _, s := range []struct {
		name string
		args []string
		env  []string
	}{
		{"ingress", ingress, []string{webhookVariable + "=" + secret}},
		{"detect", worker, nil},
		{"classify", worker, nil},
		{"results", nil, []string{"SIGHTMESH_POSTGRES=" + cfg.Postgres}},
	} {
		path, err := FindBinary(s.name)
		if err != nil {
			return nil, err
		}
		argv := append([]string{path, "--nats", natsURL, "--admin", "127.0.0.1:0", "--pipelines", cfg.Pipelines,
			"--grace", (cfg.Grace * 4 / 5).String()}, s.args...)
		children = append(children, newChild(s.name, argv, append(s.env, env...), log, out))
	}
	return children, nil
}

// FindBinary returns the path of the binary of a service, from the folder of this program or the PATH.
func FindBinary(name string) (string, error) {
	p, err := findProgram(name)
	if err != nil {
		return "", fmt.Errorf("find service %s beside this program or on the PATH: %w (make build builds it)",
			name, err)
	}
	return p, nil
}

// findProgram returns the path of a program, from the folder of this program or the PATH.
func findProgram(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return exec.LookPath(name) //nolint:wrapcheck // the caller names the program
}

// awaitReady waits until every child is ready, and returns the address of the HTTP API.
func awaitReady(ctx context.Context, children []*child) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range children {
		g.Go(func() error { return c.awaitReady(ctx) })
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	return children[0].awaitAddress(ctx, "http")
}

// stopChildren stops the children one after the other. Those that still run after the grace, or after a second Ctrl-C,
// are killed.
func stopChildren(children []*child, grace time.Duration, log *slog.Logger) {
	log.Info("stopping; press Ctrl-C again to stop immediately")
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	ctx, done := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer done()
	for _, c := range children {
		c.stop(ctx)
	}
}
