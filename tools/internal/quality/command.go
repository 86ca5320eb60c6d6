package quality

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
	"github.com/sightmesh/sightmesh/tools/internal/lanes"
)

// Config is the configuration of the command.
type Config struct {
	// Images are folders with images and their expectations.
	Images []string
	// URL is the URL of a running mesh. When it is empty, the command starts a mesh.
	URL string
	// Bin is the folder of the binaries.
	Bin string
	// Models is the folder of models, and Pipelines is the pipelines file, of the started
	// mesh and of the lanes. Empty Pipelines means the built-in pipelines.
	Models    string
	Pipelines string
	// Out is a Markdown file with two markers. The tables are written between them.
	Out string
	// NoTargets skips the check of the targets.
	NoTargets bool
}

// Register registers the flags of the configuration.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.Func("images", "`folder` of images, each with NAME.expected.json or NAME.txt; can be given several times",
		func(dir string) error {
			c.Images = append(c.Images, dir)
			return nil
		})
	fs.StringVar(&c.URL, "url", "", "`URL` of a running mesh; empty: start one")
	fs.StringVar(&c.Bin, "bin", "bin", "`folder` of the binaries")
	fs.StringVar(&c.Models, "models", "models", "`folder` of models")
	fs.StringVar(&c.Pipelines, "pipelines", "", "pipelines `file`; empty: the built-in pipelines")
	fs.StringVar(&c.Out, "out", "", "Markdown `file` that gets the tables between its markers; empty: none")
	fs.BoolVar(&c.NoTargets, "no-targets", false, "print the tables, and do not check the targets")
}

// Pipeline is a measured pipeline.
type Pipeline struct {
	Name  string
	Finds kind
}

// kind is the kind of objects that a pipeline finds.
type kind string

const (
	text    kind = "lines of text"
	faces   kind = "faces"
	objects kind = "objects"
	codes   kind = "codes"
)

// Pipelines are the pipelines that are measured when the mesh serves them.
var Pipelines = []Pipeline{
	{"text", text}, {"text-best", text}, {"text-tesseract", text},
	{"faces", faces}, {"objects", objects}, {"codes", codes},
}

// baselineFile has the errors of Tesseract 5.3.0 with text-lines in drawn pages, by image.
//
//go:embed baseline.json
var baselineFile []byte

// imageResult is the result of an image from the mesh and from the lanes alone.
type imageResult struct {
	image  Image
	mesh   v1.Result
	score  Score
	scored bool // whether the image has a score
	agree  bool
	millis float64 // work of the lanes, in milliseconds
}

// measured is a pipeline with its results, one for each image. A pipeline that is not
// served has no results.
type measured struct {
	Pipeline
	results []imageResult
	reason  string // why the pipeline is not served
}

// Command measures the pipelines and prints the tables. A missed target is an error.
func Command(ctx context.Context, cfg Config, stdout, stderr io.Writer) error {
	images, err := cfg.readImages()
	if err != nil {
		return err
	}
	var baseline map[string]TextErrors
	if err := json.Unmarshal(baselineFile, &baseline); err != nil {
		return fmt.Errorf("read baseline.json: %w", err)
	}
	all, err := measure(ctx, cfg, images, stderr)
	if err != nil {
		return err
	}
	targets := judge(all, baseline)
	page := tables(all, images, targets)
	if _, err := io.WriteString(stdout, page); err != nil {
		return fmt.Errorf("print the tables: %w", err)
	}
	if cfg.Out != "" {
		if err := writeBetweenMarkers(cfg.Out, page); err != nil {
			return err
		}
	}
	if cfg.NoTargets {
		return nil
	}
	return missedTargets(targets)
}

func (c Config) readImages() ([]Image, error) {
	if len(c.Images) == 0 {
		return nil, exit.Usagef("no folder of images; give one with --images")
	}
	var images []Image
	for _, dir := range c.Images {
		set, err := readSet(dir)
		if err != nil {
			return nil, err
		}
		images = append(images, set...)
	}
	return images, nil
}

// measure sends every image to every pipeline, one at a time.
func measure(ctx context.Context, cfg Config, images []Image, stderr io.Writer) (_ []measured, err error) {
	m := &mesh{url: strings.TrimRight(cfg.URL, "/")}
	if m.url == "" {
		if m, err = startMesh(cfg); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, m.stop()) }()
	}
	served, err := m.pipelines(ctx)
	if err != nil {
		return nil, err
	}
	configured, err := pipeline.Load(cfg.Pipelines)
	if err != nil {
		return nil, err
	}
	configured = slices.DeleteFunc(configured, func(p pipeline.Pipeline) bool {
		return !served[p.Name].Ready || !slices.ContainsFunc(Pipelines, func(m Pipeline) bool { return m.Name == p.Name })
	})
	l, err := lanes.Start(ctx, lanes.Config{
		Binary: func(service string) (string, error) { return filepath.Join(cfg.Bin, service), nil },
		Models: cfg.Models, StartTimeout: time.Minute,
	}, configured)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for _, p := range configured {
		if why := l.Reason(p); why != "" {
			return nil, fmt.Errorf("start lanes of pipeline %s: %s", p.Name, why)
		}
	}
	var all []measured
	for _, p := range Pipelines {
		s, ok := served[p.Name]
		i := slices.IndexFunc(configured, func(c pipeline.Pipeline) bool { return c.Name == p.Name })
		switch {
		case !ok:
			all = append(all, measured{Pipeline: p, reason: "the mesh has no such pipeline"})
			continue
		case !s.Ready:
			all = append(all, measured{Pipeline: p, reason: s.Reason})
			continue
		case i < 0:
			all = append(all, measured{Pipeline: p, reason: "the pipelines file does not have it"})
			continue
		}
		fmt.Fprintf(stderr, "%s: %d images\n", p.Name, len(images))
		of := measured{Pipeline: p}
		for _, img := range images {
			a, err := measureImage(ctx, m, l, p, configured[i], img)
			if err != nil {
				return nil, fmt.Errorf("%s of %s: %w", p.Name, img.Name, err)
			}
			of.results = append(of.results, a)
		}
		all = append(all, of)
	}
	return all, nil
}

// measureImage analyzes an image with the mesh and with the lanes alone, and compares the results.
func measureImage(
	ctx context.Context, m *mesh, l *lanes.Lanes, p Pipeline, cfg pipeline.Pipeline, img Image,
) (imageResult, error) {
	a := imageResult{image: img}
	var err error
	if a.mesh, err = m.analyze(ctx, p.Name, img.Data); err != nil {
		return a, err
	}
	a.score, a.scored = p.score(img, a.mesh)
	mediaType := ""
	if a.mesh.Image != nil {
		mediaType = a.mesh.Image.Type
	}
	alone, err := l.Analyze(ctx, cfg, mediaType, img.Data)
	if err != nil {
		return a, err
	}
	a.agree = agree(a.mesh, alone)
	a.millis = alone.Timings.Decode + alone.Timings.Detect + alone.Timings.Classify
	return a, nil
}

// Markers of the tables in a Markdown file.
const (
	beginMarker = "<!-- quality: begin, written by make quality -->\n"
	endMarker   = "<!-- quality: end -->\n"
)

// writeBetweenMarkers replaces the text between the markers of the file.
func writeBetweenMarkers(file, page string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("write the tables: %w", err)
	}
	before, rest, begins := bytes.Cut(old, []byte(beginMarker))
	_, after, ends := bytes.Cut(rest, []byte(endMarker))
	if !begins || !ends {
		return fmt.Errorf("write the tables: %s does not have the lines %q and %q", file, beginMarker, endMarker)
	}
	written := slices.Concat(before, []byte(beginMarker), []byte("\n"+page+"\n"), []byte(endMarker), after)
	if err := os.WriteFile(file, written, 0o644); err != nil {
		return fmt.Errorf("write the tables: %w", err)
	}
	return nil
}
