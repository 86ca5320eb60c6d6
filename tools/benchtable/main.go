// Command benchtable makes the measurements of docs/performance.md and writes that
// page. Each section compares the mesh with a baseline of the same run, as a ratio,
// because machines differ and other load disturbs them. With --only it measures and
// replaces some of the sections.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"image/jpeg"
	"image/png"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/connection"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/tools/internal/bench"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
	"github.com/sightmesh/sightmesh/tools/internal/lanes"
	"github.com/sightmesh/sightmesh/tools/internal/sample"
)

func main() {
	cfg := config{images: map[string]string{}}
	flag.StringVar(&cfg.bin, "bin", "bin", "`folder` of the service binaries")
	flag.StringVar(&cfg.models, "models", "models", "`folder` of the models of the networks")
	flag.StringVar(&cfg.out, "out", "", "`file` for the sections; empty: standard output")
	flag.DurationVar(&cfg.each, "each", 6*time.Second, "`duration` of each measurement")
	flag.IntVar(&cfg.rounds, "rounds", 5,
		"`number` of rounds for networks; a measurement of a round has a third of --each")
	flag.StringVar(&cfg.only, "only", rowNames, "`letters` of the sections to measure; the file keeps the others")
	flag.StringVar(&cfg.litServe, "litserve", "",
		"`folder` of the Python packages of tools/benchtable/litserve/requirements.txt; "+
			"empty: the networks are not compared with LitServe")
	flag.Func("image",
		"image for faces, objects or text in the section of networks, as `PIPELINE=FILE`; the default is drawn",
		func(arg string) error {
			name, file, ok := strings.Cut(arg, "=")
			if !ok {
				return errors.New("want PIPELINE=FILE")
			}
			cfg.images[name] = file
			return nil
		})
	flag.Parse()
	if cfg.rounds < 1 {
		fmt.Fprintf(os.Stderr, "benchtable: rounds: %d, want 1 or more\n", cfg.rounds)
		os.Exit(exit.Usage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchtable:", err)
		os.Exit(1)
	}
}

type config struct {
	bin, models, out string
	each             time.Duration
	rounds           int
	only             string
	litServe         string
	images           map[string]string // files by pipeline
}

// table makes the measurements. section is the text of the current section.
type table struct {
	config
	bin     programs
	dir     string
	noop    string // the lane program
	section strings.Builder
}

const rowNames = "abcdefgh"

func run(ctx context.Context, cfg config) error {
	dir, err := os.MkdirTemp("", "sightmesh-bench")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the folder is temporary
	abs, err := filepath.Abs(cfg.bin)
	if err != nil {
		return fmt.Errorf("find binaries: %w", err)
	}
	if cfg.models, err = filepath.Abs(cfg.models); err != nil {
		return fmt.Errorf("find models: %w", err)
	}
	t := &table{config: cfg, bin: programs{abs}, dir: dir, noop: filepath.Join(abs, "nooplane")}
	for target, pkg := range map[string]string{
		"nats-server": "github.com/nats-io/nats-server/v2",
		"nooplane":    "github.com/sightmesh/sightmesh/tools/benchtable/nooplane",
	} {
		build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(abs, target), pkg)
		if msg, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", target, err, msg)
		}
	}
	var failed []error
	sections := map[byte]string{}
	rows := []func(context.Context) error{
		t.transport, t.debianModels, t.crops, t.sizes, t.measureTraces, t.replicas, t.cluster, t.networks,
	}
	for i, measure := range rows {
		name := rowNames[i]
		if strings.IndexByte(cfg.only, name) < 0 {
			continue
		}
		fmt.Fprintf(os.Stderr, "(%c)\n", name)
		t.section.Reset()
		if err := measure(ctx); err != nil { // the other sections are still useful
			failed = append(failed, fmt.Errorf("(%c): %w", name, err))
			if t.section.Len() == 0 {
				t.printf("%s\n", heading(name))
			}
			t.printf("\nNot measured: %v\n", err)
		}
		sections[name] = t.section.String()
	}
	return errors.Join(append(failed, writePage(cfg.out, sections))...)
}

func (t *table) printf(format string, args ...any) { fmt.Fprintf(&t.section, format, args...) }

// printTableHeader begins a Markdown table with these columns.
func (t *table) printTableHeader(columns ...string) {
	t.printf("| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
}

// noopPipelines writes a pipelines file for the lane program that does no work.
func (t *table) noopPipelines(crops, bytes int) (string, error) {
	file := filepath.Join(t.dir, fmt.Sprintf("noop-%d-%d.yaml", crops, bytes))
	yaml := fmt.Sprintf(`pipelines:
  - name: noop
    max_regions: 1000
    crops_per_message: 16
    detect: {lane: [%s], settings: {crops: %d, bytes: %d}}
    classify: {lane: [%s]}
`, t.noop, crops, bytes, t.noop)
	if err := os.WriteFile(file, []byte(yaml), 0o644); err != nil {
		return "", fmt.Errorf("write pipelines: %w", err)
	}
	return file, nil
}

// header returns a file of n bytes with the header of a PNG file and random content. No
// lane of these measurements decodes it.
func header(n int) []byte {
	var b bytes.Buffer
	b.WriteString("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		binary.Write(&b, binary.BigEndian, uint32(len(data))) //nolint:errcheck // into memory
		sum := crc32.NewIEEE()
		w := io.MultiWriter(&b, sum)
		io.WriteString(w, kind)                         //nolint:errcheck // into memory
		w.Write(data)                                   //nolint:errcheck // into memory
		binary.Write(&b, binary.BigEndian, sum.Sum32()) //nolint:errcheck // into memory
	}
	chunk("IHDR", []byte{0, 0, 1, 64, 0, 0, 1, 64, 8, 0, 0, 0, 0})
	noise := make([]byte, max(0, n-b.Len()-12))
	r := rand.NewChaCha8([32]byte{})
	r.Read(noise) //nolint:errcheck // never fails
	chunk("IDAT", noise)
	return b.Bytes()
}

func (t *table) start(ctx context.Context, cfg meshConfig) (*mesh, error) {
	dir, err := os.MkdirTemp(t.dir, "mesh")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	cfg.servers, cfg.replicas, cfg.lanes = max(cfg.servers, 1), max(cfg.replicas, 1), max(cfg.lanes, 1)
	cfg.models = cmp.Or(cfg.models, t.noModels())
	return startMesh(ctx, t.bin, dir, cfg)
}

func (t *table) load(concurrency int) bench.Load {
	return bench.Load{Concurrency: concurrency, WarmUp: t.each / 3, Duration: t.each}
}

func (t *table) measure(
	ctx context.Context, m *mesh, name string, image []byte, concurrency int,
) (bench.Report, error) {
	return t.bench(ctx, bench.HTTP(m.http, name, concurrency), image, t.load(concurrency))
}

// bench runs a load with one image. A failed request or a different result is an error.
func (t *table) bench(ctx context.Context, send bench.Sender, image []byte, load bench.Load) (bench.Report, error) {
	r, err := bench.Run(ctx, send, []bench.Image{{Name: "p", Data: image}}, load, nil)
	if err == nil && (r.Done == 0 || len(r.Errors) > 0 || r.Mismatched > 0) {
		err = fmt.Errorf("%d results, errors %v, %d differ", r.Done, r.Errors, r.Mismatched)
	}
	return r, err
}

func (t *table) floor(ctx context.Context, m *mesh, size, concurrency, replicas int) (bench.Report, error) {
	f, err := bench.StartFloor(ctx, bench.FloorConfig{
		NATS: connection.Config{URL: m.nats}, Replicas: replicas, Storage: jetstream.FileStorage,
		First: size, Second: size, Third: 2 << 10,
	})
	if err != nil {
		return bench.Report{}, err
	}
	defer f.Close(ctx) //nolint:errcheck // the server ends after the section
	return bench.Run(ctx, f.Send, []bench.Image{{Name: "p", Data: make([]byte, size)}}, t.load(concurrency), nil)
}

const hundred = 100 << 10

// transport writes section (a): the mesh compared with its transport.
func (t *table) transport(ctx context.Context) error {
	file, err := t.noopPipelines(1, hundred)
	if err != nil {
		return err
	}
	m, err := t.start(ctx, meshConfig{lanes: 2, pipelines: file})
	if err != nil {
		return err
	}
	defer m.stop()
	t.printf(`
## (a) Mesh and floor

An image of 100 KB, 100 KB of crops, lanes that do no work, one NATS server with file storage.

`)
	t.printTableHeader("concurrent images", "floor p50", "mesh p50", "ratio", "floor p99", "mesh p99", "ratio",
		"floor /s", "mesh /s", "ratio")
	for _, c := range []int{1, 16} {
		f, err := t.floor(ctx, m, hundred, c, 1)
		if err != nil {
			return err
		}
		r, err := t.measure(ctx, m, "noop", header(hundred), c)
		if err != nil {
			return err
		}
		t.printf("| %d | %.2f ms | %.2f ms | %.2f | %.2f ms | %.2f ms | %.2f | %.0f | %.0f | %.2f |\n", c,
			f.Latency.P50, r.Latency.P50, r.Latency.P50/f.Latency.P50,
			f.Latency.P99, r.Latency.P99, r.Latency.P99/f.Latency.P99,
			f.PerSecond, r.PerSecond, r.PerSecond/f.PerSecond)
	}
	return nil
}

func sampleImages() (page, face []byte, err error) {
	img, err := sample.Page()
	if err != nil {
		return nil, nil, err
	}
	var p, f bytes.Buffer
	if err := png.Encode(&p, img); err != nil {
		return nil, nil, fmt.Errorf("encode page: %w", err)
	}
	if err := jpeg.Encode(&f, sample.Face(), nil); err != nil {
		return nil, nil, fmt.Errorf("encode face: %w", err)
	}
	return p.Bytes(), f.Bytes(), nil
}

// noModels returns a folder of models that does not exist. The built-in pipelines then use the models of Debian's
// packages.
func (t *table) noModels() string { return filepath.Join(t.dir, "no-models") }

// debianModels writes section (b): the models of Debian's packages in a mesh and in lanes alone.
func (t *table) debianModels(ctx context.Context) error {
	page, face, err := sampleImages()
	if err != nil {
		return err
	}
	count := runtime.NumCPU()
	m, err := t.start(ctx, meshConfig{lanes: count})
	if err != nil {
		return err
	}
	defer m.stop()
	t.printf(`
## (b) Models of Debian packages, with and without a mesh

*Lanes alone* are the same lanes without a mesh. There are %d lanes of detect and of classify. The images are the
sample page and the sample face of %s. Saturation is %d concurrent requests.

`, count, "`sightmesh up`", 4*count)
	t.printTableHeader("pipeline", "lanes alone /s", "mesh /s", "ratio",
		"lanes alone p50, one at a time", "mesh p50", "added")
	for _, p := range pipeline.BuiltIn() {
		image, ok := map[string][]byte{"text": page, "faces": face}[p.Name]
		if !ok {
			continue // the pipeline has no model in Debian's packages, or no image here
		}
		alone, one, err := t.measureLanes(ctx, p, image, count)
		if err != nil {
			return err
		}
		full, err := t.measure(ctx, m, p.Name, image, 4*count)
		if err != nil {
			return err
		}
		single, err := t.measure(ctx, m, p.Name, image, 1)
		if err != nil {
			return err
		}
		t.printf("| %s | %.1f | %.1f | %.2f | %.2f ms | %.2f ms | %.2f ms |\n", p.Name,
			alone.PerSecond, full.PerSecond, full.PerSecond/alone.PerSecond,
			one.Latency.P50, single.Latency.P50, single.Latency.P50-one.Latency.P50)
	}
	return nil
}

// measureLanes measures the lanes of a pipeline without a mesh, at saturation and with one image at a time.
func (t *table) measureLanes(
	ctx context.Context, p pipeline.Pipeline, image []byte, count int,
) (full, single bench.Report, err error) {
	l, err := t.startLanes(ctx, t.noModels(), p, count)
	if err != nil {
		return full, single, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	send := aloneSender(l, p)
	if full, err = t.bench(ctx, send, image, t.load(4*count)); err != nil {
		return full, single, err
	}
	single, err = t.bench(ctx, send, image, t.load(1))
	return full, single, err
}

// startLanes starts lanes of a pipeline without a mesh. The caller closes them.
func (t *table) startLanes(ctx context.Context, models string, p pipeline.Pipeline, count int) (*lanes.Lanes, error) {
	l, err := lanes.Start(ctx, lanes.Config{
		Binary: func(service string) (string, error) { return t.bin.path(service), nil },
		Models: models, Count: count, StartTimeout: time.Minute,
	}, []pipeline.Pipeline{p})
	if err != nil {
		return nil, err
	}
	if why := l.Reason(p); why != "" {
		return nil, errors.Join(fmt.Errorf("start lanes of pipeline %s: %s", p.Name, why), l.Close())
	}
	return l, nil
}

// aloneSender returns a sender to lanes without a mesh.
func aloneSender(l *lanes.Lanes, p pipeline.Pipeline) bench.Sender {
	return func(ctx context.Context, image bench.Image) (v1.Result, error) {
		r, err := l.Analyze(ctx, p, http.DetectContentType(image.Data), image.Data)
		if err == nil && r.Problem != nil {
			err = r.Problem
		}
		return r, err
	}
}

// crops writes section (c): many crops of one image.
func (t *table) crops(ctx context.Context) error {
	t.printf(`
## (c) Crops of one image

Lanes that do no work, 2 for each stage, at most 16 crops in a message, one image at a time.

`)
	t.printTableHeader("crops", "messages", "p50", "p99", "join p50")
	for _, n := range []int{1, 10, 100} {
		file, err := t.noopPipelines(n, n*(10<<10))
		if err != nil {
			return err
		}
		if err := t.withMesh(ctx, meshConfig{lanes: 2, pipelines: file}, func(m *mesh) error {
			r, err := t.measure(ctx, m, "noop", header(hundred), 1)
			if err == nil {
				t.printf("| %d | %d | %.2f ms | %.2f ms | %.2f ms |\n",
					n, (n+15)/16, r.Latency.P50, r.Latency.P99, r.Hops["join"].P50)
			}
			return err
		}); err != nil {
			return err
		}
	}
	var page bytes.Buffer
	img, err := sample.LongPage(50)
	if err != nil {
		return err
	}
	if err := png.Encode(&page, img); err != nil {
		return fmt.Errorf("encode page: %w", err)
	}
	t.printf("\nA page of 50 lines of text, with 1 and with 2 lanes of classify, one page at a time:\n\n")
	t.printTableHeader("lanes", "p50", "p50 ÷ (p50 of one lane ÷ lanes)")
	var alone float64
	for _, lanes := range []int{1, 2} {
		if err := t.withMesh(ctx, meshConfig{lanes: lanes}, func(m *mesh) error {
			r, err := t.measure(ctx, m, "text", page.Bytes(), 1)
			if err != nil {
				return err
			}
			if lanes == 1 {
				alone = r.Latency.P50
			}
			t.printf("| %d | %.0f ms | %.2f |\n", lanes, r.Latency.P50, r.Latency.P50/(alone/float64(lanes)))
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// withMesh starts a mesh, calls f with it, and stops it.
func (t *table) withMesh(ctx context.Context, cfg meshConfig, f func(*mesh) error) error {
	m, err := t.start(ctx, cfg)
	if err != nil {
		return err
	}
	defer m.stop()
	return f(m)
}

// sizes writes section (d): small and large images.
func (t *table) sizes(ctx context.Context) error {
	file, err := t.noopPipelines(1, 20<<10)
	if err != nil {
		return err
	}
	t.printf(`
## (d) Sizes of images

Lanes that do no work, 20 KB of crops, one image at a time. The first two messages of the floor contain the image.

`)
	t.printTableHeader("image", "floor p50", "mesh p50", "ratio")
	return t.withMesh(ctx, meshConfig{lanes: 2, pipelines: file}, func(m *mesh) error {
		for _, kb := range []int{10, 100, 1000, 8000} {
			f, err := t.floor(ctx, m, kb<<10, 1, 1)
			if err != nil {
				return err
			}
			r, err := t.measure(ctx, m, "noop", header(kb<<10), 1)
			if err != nil {
				return err
			}
			t.printf("| %d KB | %.2f ms | %.2f ms | %.2f |\n", kb, f.Latency.P50, r.Latency.P50, r.Latency.P50/f.Latency.P50)
		}
		return nil
	})
}

// measureTraces writes section (e): the cost of traces.
func (t *table) measureTraces(ctx context.Context) error {
	page, _, err := sampleImages()
	if err != nil {
		return err
	}
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) //nolint:errcheck // the content does not matter
	}))
	defer sink.Close()
	lanes := runtime.NumCPU()
	t.printf(`
## (e) Traces

The pipeline %s at saturation. The spans are sent over OTLP/HTTP to a receiver on the same machine.

`, "`text`")
	t.printTableHeader("sampled", "images /s", "ratio to none")
	var none float64
	for _, s := range []struct{ name, arg string }{{"none", ""}, {"1 %", "0.01"}, {"100 %", "1"}} {
		var env []string
		if s.arg != "" {
			env = []string{
				"OTEL_EXPORTER_OTLP_ENDPOINT=" + sink.URL,
				"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=" + s.arg,
			}
		}
		if err := t.withMesh(ctx, meshConfig{lanes: lanes, env: env}, func(m *mesh) error {
			r, err := t.measure(ctx, m, "text", page, 4*lanes)
			if err != nil {
				return err
			}
			if none == 0 {
				none = r.PerSecond
			}
			t.printf("| %s | %.1f | %.2f |\n", s.name, r.PerSecond, r.PerSecond/none)
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// replicas writes section (f): one and two replicas of every service.
func (t *table) replicas(ctx context.Context) error {
	file, err := t.noopPipelines(1, hundred)
	if err != nil {
		return err
	}
	t.printf(`
## (f) Replicas

The same as (a) with 16 concurrent images through one ingress. On one machine a second replica adds processes but no
cores.

`)
	t.printTableHeader("replicas of each service", "p50", "images /s")
	for _, n := range []int{1, 2} {
		if err := t.withMesh(ctx, meshConfig{lanes: 2, replicas: n, pipelines: file}, func(m *mesh) error {
			r, err := t.measure(ctx, m, "noop", header(hundred), 16)
			if err == nil {
				t.printf("| %d | %.2f ms | %.0f |\n", n, r.Latency.P50, r.PerSecond)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// cluster writes section (g): three NATS servers.
func (t *table) cluster(ctx context.Context) error {
	file, err := t.noopPipelines(1, hundred)
	if err != nil {
		return err
	}
	t.printf(`
## (g) Three NATS servers with three replicas of each stream

The same as (a), with all three servers on the same machine.

`)
	t.printTableHeader("concurrent images", "floor p50", "mesh p50", "ratio", "floor /s", "mesh /s", "ratio")
	return t.withMesh(ctx, meshConfig{servers: 3, lanes: 2, pipelines: file}, func(m *mesh) error {
		for _, c := range []int{1, 8} {
			f, err := t.floor(ctx, m, hundred, c, 3)
			if err != nil {
				return err
			}
			r, err := t.measure(ctx, m, "noop", header(hundred), c)
			if err != nil {
				return err
			}
			t.printf("| %d | %.2f ms | %.2f ms | %.2f | %.0f | %.0f | %.2f |\n", c,
				f.Latency.P50, r.Latency.P50, r.Latency.P50/f.Latency.P50,
				f.PerSecond, r.PerSecond, r.PerSecond/f.PerSecond)
		}
		return nil
	})
}
