package send

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/connection"
	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// Config is the configuration of a run.
type Config struct {
	Paths       []string
	URL         string
	NATS        connection.Config
	Pipeline    string
	Priority    string
	Concurrency string
	Attempts    int
	Ordered     bool
	Draw        string
	Out         string
	Failed      string
	Resume      bool
}

// Register registers the flags of the configuration.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.URL, "url", "http://127.0.0.1:8080", "`URL` of the mesh")
	c.NATS.Register(fs, "", "`URL` of a NATS server to send to instead of HTTP; needs --pipeline")
	fs.StringVar(&c.Pipeline, "pipeline", "", "`name` of the pipeline; empty: the first pipeline of the mesh")
	fs.StringVar(&c.Priority, "priority", "",
		"`priority` of the jobs, interactive or bulk; empty: that of the pipeline")
	fs.StringVar(&c.Concurrency, "concurrency", "auto",
		"`number` of images in progress at the same time; auto: adapted to the latency")
	fs.IntVar(&c.Attempts, "attempts", 10, "maximum number of attempts for one image, with errors that can be temporary")
	fs.BoolVar(&c.Ordered, "ordered", false, "write the outcomes in the order of the images")
	fs.StringVar(&c.Draw, "draw", "", "`folder` for copies of the images with their regions drawn; empty: none")
	fs.StringVar(&c.Out, "out", "-", "`file` for the outcomes, one line of JSON for each image; -: standard output")
	fs.StringVar(&c.Failed, "failed", "",
		"`file` for a list of the images that failed, which send reads with the argument -; empty: none")
	fs.BoolVar(&c.Resume, "resume", false,
		"continue an interrupted run: images with an outcome in --out are not sent again")
}

// concurrency returns the number of images to send at the same time, or auto.
func (c *Config) concurrency() (n int, auto bool, err error) {
	if c.Concurrency == "auto" {
		return 0, true, nil
	}
	if n, err = strconv.Atoi(c.Concurrency); err != nil || n < 1 {
		return 0, false, exit.Usagef("concurrency: %q, want auto or a number from 1", c.Concurrency)
	}
	return n, false, nil
}

// validate returns an error for a wrong argument.
func (c *Config) validate() error {
	_, _, err := c.concurrency()
	switch {
	case err != nil:
		return err
	case len(c.Paths) == 0:
		return exit.Usagef("no images: name files, folders, globs, or - for a list on stdin")
	case c.Resume && c.Out == "-":
		return exit.Usagef("resume: needs the file of --out")
	case c.Priority != "" && !subject.Priority(c.Priority).Valid():
		return exit.Usagef("priority: %q, want interactive or bulk", c.Priority)
	case c.NATS.URL == "" && !strings.HasPrefix(c.URL, "http://") && !strings.HasPrefix(c.URL, "https://"):
		return exit.Usagef("url: %q, want http:// or https://", c.URL)
	case c.NATS.URL != "" && c.Pipeline == "":
		return exit.Usagef("nats: needs --pipeline")
	case c.Attempts < 1:
		return exit.Usagef("attempts: %d, want 1 or more", c.Attempts)
	}
	return nil
}

// Command runs the sender. It returns an [*exit.Error] unless every job is done.
// When ctx ends, it returns within stopTimeout, even while a file or an output
// blocks.
func Command(ctx context.Context, cfg Config, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	// The first signal stops sending. The second signal ends the process.
	defer context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })()
	_, err := await(ctx, stopTimeout, func() (struct{}, error) {
		return struct{}{}, findAndSend(ctx, cfg, stdin, stdout, stderr)
	})
	if errors.Is(err, errAbandoned) {
		return exit.Interruptedf("%w: outcomes may be missing", err)
	}
	return err
}

// findAndSend finds the images and sends them.
func findAndSend(ctx context.Context, cfg Config, stdin io.Reader, stdout, stderr io.Writer) error {
	n, auto, err := cfg.concurrency()
	if err != nil {
		return err
	}
	images, err := await(ctx, 0, func() (found, error) { return find(ctx, cfg.Paths, stdin) })
	if ctx.Err() != nil {
		return exit.Interruptedf("interrupted: nothing was sent")
	}
	if err != nil {
		return &exit.Error{Status: exit.Failure, Err: err}
	}
	for _, note := range images.notes {
		fmt.Fprintln(stderr, note)
	}
	web := newOverHTTP(cfg.URL, cfg.Pipeline, subject.Priority(cfg.Priority))
	send, drawn := web.deliver, web.draw
	if cfg.NATS.URL != "" {
		nc, err := cfg.NATS.Connect(nats.Name("sightmesh send"), nats.MaxReconnects(-1))
		if err != nil {
			return &exit.Error{Status: exit.Failure, Err: err}
		}
		defer nc.Close()
		c, err := client.New(nc)
		if err != nil {
			return &exit.Error{Status: exit.Failure, Err: err}
		}
		bus := &overNATS{client: c, pipeline: cfg.Pipeline, priority: subject.Priority(cfg.Priority)}
		send, drawn = bus.deliver, bus.draw
	}
	r := run{cfg: cfg, send: send, drawer: drawn, limit: newLimit(n, auto), stderr: stderr}
	return r.sendFiles(ctx, images.files, stdout)
}
