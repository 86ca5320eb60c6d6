package bench

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/connection"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// Config is the configuration of the commands bench and bench floor.
type Config struct {
	URL      string
	NATS     connection.Config
	Pipeline string
	Expect   string // file with the result that each response has to match
	JSON     bool
	Plot     string // file for the plot
	load     Load
	// Only for the floor.
	replicas int
	storage  string
	bytes    int
}

func (c *Config) registerLoad(fs *flag.FlagSet) {
	fs.IntVar(&c.load.Concurrency, "concurrency", 0,
		fmt.Sprintf("number of requests in progress; with --rate, the maximum; "+
			"0: 1 without --rate, %d with it", maxOpenRequests))
	fs.Float64Var(&c.load.Rate, "rate", 0,
		"`requests` per second, sent even while earlier ones are in progress; 0: the next request follows a response")
	fs.DurationVar(&c.load.WarmUp, "warmup", 2*time.Second, "time at the start that is not measured")
	fs.DurationVar(&c.load.Duration, "duration", 10*time.Second, "time that is measured")
	fs.BoolVar(&c.JSON, "json", false, "print the report as JSON")
	fs.StringVar(&c.Plot, "plot", "", "SVG `file` for a plot of the latencies; empty: none")
}

// Register registers the flags of bench.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.URL, "url", "http://127.0.0.1:8080", "`URL` of the mesh")
	c.NATS.Register(fs, "", "`URL` of a NATS server to send to instead of HTTP")
	fs.StringVar(&c.Pipeline, "pipeline", "text", "`name` of the pipeline")
	fs.StringVar(&c.Expect, "expect", "",
		"`file` with the result that each response has to match; empty: the first result of the same image")
	c.registerLoad(fs)
}

// RegisterFloor registers the flags of bench floor.
func (c *Config) RegisterFloor(fs *flag.FlagSet) {
	c.NATS.Register(fs, nats.DefaultURL, "`URL` of the NATS server")
	fs.IntVar(&c.replicas, "replicas", 1, "number of replicas of each stream")
	fs.StringVar(&c.storage, "storage", "file", "`storage` of the streams: file or memory")
	fs.IntVar(&c.bytes, "bytes", 100<<10, "size of the messages of the first two streams, in `bytes`")
	c.registerLoad(fs)
}

// Command measures a mesh with the images of the files.
func Command(ctx context.Context, cfg Config, files []string, out io.Writer) error {
	load, err := cfg.load.withDefaults()
	if err != nil {
		return err
	}
	images, err := readImages(files)
	if err != nil {
		return err
	}
	expect, err := readExpected(cfg.Expect, images)
	if err != nil {
		return err
	}
	send := HTTP(cfg.URL, cfg.Pipeline, load.Concurrency)
	if cfg.NATS.URL != "" {
		nc, err := cfg.NATS.Connect()
		if err != nil {
			return err
		}
		defer nc.Close()
		send = NATS(nc, cfg.Pipeline)
	}
	r, err := Run(ctx, send, images, load, expect)
	if err != nil {
		return err
	}
	if err := cfg.write(r, out); err != nil {
		return err
	}
	if r.Done == 0 || len(r.Errors) > 0 || r.Mismatched > 0 {
		return errors.New("a request failed, or a result differs")
	}
	return nil
}

// FloorCommand measures the bare JetStream pipeline on a NATS server.
func FloorCommand(ctx context.Context, cfg Config, out io.Writer) error {
	load, err := cfg.load.withDefaults()
	if err != nil {
		return err
	}
	storage := jetstream.FileStorage
	switch cfg.storage {
	case "file":
	case "memory":
		storage = jetstream.MemoryStorage
	default:
		return exit.Usagef("storage: %q, want file or memory", cfg.storage)
	}
	f, err := StartFloor(ctx, FloorConfig{
		NATS: cfg.NATS, Replicas: cfg.replicas, Storage: storage,
		First: cfg.bytes, Second: cfg.bytes, Third: 2 << 10,
	})
	if err != nil {
		return err
	}
	r, err := Run(ctx, f.Send, []Image{{Name: "floor", Data: make([]byte, cfg.bytes)}}, load, nil)
	if err == nil {
		err = cfg.write(r, out)
	}
	return errors.Join(err, f.Close(context.WithoutCancel(ctx)))
}

func (c *Config) write(r Report, out io.Writer) error {
	if c.Plot != "" {
		f, err := os.Create(c.Plot)
		if err != nil {
			return fmt.Errorf("write plot: %w", err)
		}
		if err := errors.Join(r.WritePlot(f), f.Close()); err != nil {
			return err
		}
	}
	if c.JSON {
		return r.WriteJSON(out)
	}
	return r.WriteText(out)
}

func readImages(files []string) ([]Image, error) {
	if len(files) == 0 {
		return nil, exit.Usagef("name one image or more")
	}
	var images []Image
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read image: %w", err)
		}
		images = append(images, Image{Name: filepath.Base(f), Data: data})
	}
	return images, nil
}

func readExpected(file string, images []Image) (map[string]v1.Result, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read expected result: %w", err)
	}
	var r v1.Result
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read expected result: %w", err)
	}
	out := map[string]v1.Result{}
	for _, p := range images {
		out[p.Name] = r
	}
	return out, nil
}
