package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/tools/internal/bench"
	"github.com/sightmesh/sightmesh/tools/internal/machine"
)

// networkPipelines has the networks of the built-in pipelines without other engines: the pipeline faces has no
// attributes, which cascades find, and no pipeline has a fallback.
const networkPipelines = `pipelines:
  - name: faces
    max_regions: 100
    detect: {kind: model, settings: {model: yunet}}
  - name: objects
    max_regions: 100
    detect: {kind: model, settings: {model: yolox-nano}}
  - name: text
    max_regions: 400
    crops_per_message: 8
    text: true
    detect: {kind: model, settings: {model: ppocr-v6-tiny-det}}
    classify:
      kind: model
      settings:
        model: ppocr-v6-small-rec
        first: {kind: model, settings: {model: ppocr-v6-tiny-rec, threshold: 0.95}}
`

// Targets of the mesh compared with its lanes alone.
const (
	leastThroughput = 0.9 // share of the throughput of the lanes
	mostAdded       = 3   // additional latency in milliseconds
)

// contestants are the systems that are compared.
type contestants struct {
	alone, mesh bench.Sender
	litServe    bench.Sender // nil without --litserve
}

// turn is the report of one contestant in one round.
type turn struct {
	bench.Report
	// cpu is the processor time for an image in all processes, including the load, in milliseconds.
	cpu float64
	// overhead is the median of the latency without the work of the lanes, in milliseconds.
	overhead float64
}

// turns has the turns of each contestant.
type turns struct{ alone, mesh, litServe []turn }

// networkRow has the measurements of a pipeline.
type networkRow struct {
	pipeline, image string
	full, single    turns // at saturation, and one image at a time
	regions, same   int   // regions from the mesh, and how many of them LitServe has too
	reason          error // why the pipeline is not measured
}

// networks writes section (h): networks in a mesh, in lanes alone, and in LitServe.
func (t *table) networks(ctx context.Context) error {
	load, err := machine.Load()
	if err != nil {
		return err
	}
	began := time.Now()
	file := filepath.Join(t.dir, "networks.yaml")
	if err := os.WriteFile(file, []byte(networkPipelines), 0o644); err != nil {
		return fmt.Errorf("write pipelines: %w", err)
	}
	pipelines, err := pipeline.Load(file)
	if err != nil {
		return err
	}
	var rows []networkRow
	var failed []error
	for _, p := range pipelines {
		row, err := t.network(ctx, file, p)
		if row.reason = err; err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", p.Name, err))
		}
		rows = append(rows, row)
	}
	after, err := machine.Load()
	if err != nil {
		return err
	}
	count := runtime.NumCPU()
	t.printf(`%s Networks

Measured on %s; the load of the machine (1 minute) was %.1f before and %.1f after. YuNet finds faces
and YOLOX-nano finds objects. For text, one network of PP-OCRv6 finds lines and one or two networks read them. All
networks run in ONNX Runtime with one thread for each lane. The systems are measured alternately, in %d rounds of %v
each. The tables have the median of the rounds, and the median of the ratios of each round.

*Lanes alone* are the same networks without a mesh: each network runs in one process that gets one image after the
other over a socket. Saturation is %d lanes for each stage, with %d concurrent images. One at a time is one lane for
each stage.

`, heading('h'), began.UTC().Format("2006-01-02"), load, after, t.rounds, t.each/3, count, 4*count)
	t.printTableHeader("pipeline", "image",
		"lanes alone /s", "mesh /s", fmt.Sprintf("mesh ÷ alone (target %v)", leastThroughput),
		"lanes alone p50, one at a time", "mesh p50", fmt.Sprintf("added (target %d ms)", mostAdded))
	for _, r := range rows {
		if r.reason != nil {
			t.printf("| %s | not measured: %v |\n", r.pipeline, firstLine(r.reason))
			continue
		}
		t.printf("| %s | %s | %.1f | %.1f | %.2f | %.2f ms | %.2f ms | %.2f ms |\n", r.pipeline, r.image,
			median(r.full.alone, perSecond), median(r.full.mesh, perSecond),
			medianOf(r.full.mesh, r.full.alone, ratio(perSecond)),
			median(r.single.alone, p50), median(r.single.mesh, p50), medianOf(r.single.mesh, r.single.alone, addedLatency))
	}
	t.printCPU(rows)
	t.printHops(rows)
	t.printLitServe(rows, count)
	return errors.Join(failed...)
}

// printCPU writes the table of the processor time for an image.
func (t *table) printCPU(rows []networkRow) {
	t.printf(`
Processor time for an image at saturation, in all processes, including the load. Other programs on the machine affect
it less than the throughput.

`)
	t.printTableHeader("pipeline",
		"lanes alone", "mesh", fmt.Sprintf("lanes alone ÷ mesh (target %v)", leastThroughput),
		"LitServe", "LitServe ÷ mesh")
	for _, r := range rows {
		if r.reason != nil {
			continue
		}
		t.printf("| %s | %.1f ms | %.1f ms | %.2f |", r.pipeline,
			median(r.full.alone, cpu), median(r.full.mesh, cpu), medianOf(r.full.alone, r.full.mesh, ratio(cpu)))
		if len(r.full.litServe) == 0 {
			t.printf(" not measured | |\n")
			continue
		}
		t.printf(" %.1f ms | %.2f |\n", median(r.full.litServe, cpu), medianOf(r.full.litServe, r.full.mesh, ratio(cpu)))
	}
}

// printHops writes the table of the time of each step for one image.
func (t *table) printHops(rows []networkRow) {
	t.printf(`
Time of each step for one image at a time (p50). The lanes measure decode, detect and classify. *Other* is the rest of
the time of an image: the sockets for lanes alone; HTTP, NATS with its files, and the services for the mesh.

`)
	t.printTableHeader("pipeline", "system", "decode", "detect", "classify", "other")
	for _, r := range rows {
		if r.reason != nil {
			continue
		}
		for _, of := range []struct {
			name  string
			turns []turn
		}{{"lanes alone", r.single.alone}, {"mesh", r.single.mesh}} {
			t.printf("| %s | %s |", r.pipeline, of.name)
			for _, hop := range []string{"decode", "detect", "classify"} {
				t.printf(" %.2f ms |", median(of.turns, func(t turn) float64 { return t.Hops[hop].P50 }))
			}
			t.printf(" %.2f ms |\n", median(of.turns, overhead))
		}
	}
}

func (t *table) printLitServe(rows []networkRow, count int) {
	if t.litServe == "" {
		t.printf("\nNot compared with LitServe: `make litserve` installs it, with pip.\n")
		return
	}
	t.printf(`
[LitServe](https://github.com/Lightning-AI/LitServe) (%s) serves the same network
files with tools/benchtable/litserve/server.py: %d workers of one thread at saturation, and one worker for one image at
a time. The load, the requests over HTTP and the settings of the networks are the same. LitServe does not store images;
they are lost when it stops. Its lines of text are not in reading order, and have no positions of words. *Same regions*
have the same label, the same text except for spaces, and boxes that overlap by 0.8 or more.

`, strings.Join(litServeVersions(), ", "), count)
	t.printTableHeader("pipeline", "LitServe /s", "mesh /s", "mesh ÷ LitServe",
		"LitServe p50, one at a time", "mesh p50", "mesh ÷ LitServe", "same regions")
	for _, r := range rows {
		if r.reason != nil {
			continue
		}
		t.printf("| %s | %.1f | %.1f | %.2f | %.2f ms | %.2f ms | %.2f | %d of %d |\n", r.pipeline,
			median(r.full.litServe, perSecond), median(r.full.mesh, perSecond),
			medianOf(r.full.mesh, r.full.litServe, ratio(perSecond)),
			median(r.single.litServe, p50), median(r.single.mesh, p50), medianOf(r.single.mesh, r.single.litServe, ratio(p50)),
			r.same, r.regions)
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// network measures the network of a pipeline.
func (t *table) network(ctx context.Context, file string, p pipeline.Pipeline) (networkRow, error) {
	row := networkRow{pipeline: p.Name}
	name, image, err := t.networkImage(p.Name)
	if err != nil {
		return row, err
	}
	row.image = name
	count := runtime.NumCPU()
	err = t.withContestants(ctx, file, p, count, func(c contestants) error {
		if err := row.compare(ctx, c, image); err != nil {
			return err
		}
		row.full, err = t.measureInTurns(ctx, c, image, 4*count)
		return err
	})
	if err != nil {
		return row, err
	}
	err = t.withContestants(ctx, file, p, 1, func(c contestants) error {
		row.single, err = t.measureInTurns(ctx, c, image, 1)
		return err
	})
	return row, err
}

// networkImage returns the image of a pipeline, and its name in the table.
func (t *table) networkImage(pipeline string) (string, []byte, error) {
	if file, ok := t.images[pipeline]; ok {
		image, err := os.ReadFile(file)
		if err != nil {
			return "", nil, fmt.Errorf("read image: %w", err)
		}
		return filepath.Base(file), image, nil
	}
	page, face, err := sampleImages()
	if pipeline == "text" {
		return "the sample page", page, err
	}
	return "the drawn face", face, err
}

// withContestants starts a pipeline in lanes alone, in a mesh, and in LitServe, each with count lanes or workers, and
// calls f with them.
func (t *table) withContestants(
	ctx context.Context, file string, p pipeline.Pipeline, count int, f func(contestants) error,
) (err error) {
	l, err := t.startLanes(ctx, t.models, p, count)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return t.withMesh(ctx, meshConfig{lanes: count, pipelines: file, models: t.models}, func(m *mesh) error {
		c := contestants{alone: aloneSender(l, p), mesh: bench.HTTP(m.http, p.Name, 4*count)}
		if t.litServe == "" {
			return f(c)
		}
		s, err := startLitServe(ctx, litServeConfig{
			packages: t.litServe, dir: t.dir, models: t.models, pipeline: p.Name, workers: count,
		})
		if err != nil {
			return err
		}
		defer s.stop()
		c.litServe = bench.HTTP(s.url, p.Name, 4*count)
		return f(c)
	})
}

// measureInTurns measures the contestants one after the other, several times, so that other load on the machine
// affects all of them.
func (t *table) measureInTurns(ctx context.Context, c contestants, image []byte, concurrency int) (turns, error) {
	var all turns
	load := bench.Load{Concurrency: concurrency, WarmUp: t.each / 12, Duration: t.each / 3}
	for range t.rounds {
		for _, one := range []struct {
			send  bench.Sender
			turns *[]turn
		}{{c.alone, &all.alone}, {c.mesh, &all.mesh}, {c.litServe, &all.litServe}} {
			if one.send == nil {
				continue
			}
			now, err := t.measureTurn(ctx, one.send, image, load)
			if err != nil {
				return all, err
			}
			*one.turns = append(*one.turns, now)
		}
	}
	return all, nil
}

// measureTurn measures one contestant. Meanwhile this process and its other children are idle.
func (t *table) measureTurn(ctx context.Context, send bench.Sender, image []byte, load bench.Load) (turn, error) {
	var mu sync.Mutex
	var overhead []float64 // one for each image
	before, err := machine.ProcessTreeCPU()
	if err != nil {
		return turn{}, err
	}
	r, err := t.bench(ctx, func(ctx context.Context, image bench.Image) (v1.Result, error) {
		began := time.Now()
		result, err := send(ctx, image)
		elapsed := v1.Milliseconds(time.Since(began))
		if lanes := result.Timings; lanes != nil {
			elapsed -= lanes.Decode + lanes.Detect + lanes.Classify
		}
		mu.Lock()
		defer mu.Unlock()
		overhead = append(overhead, elapsed)
		return result, err
	}, image, load)
	if err != nil {
		return turn{}, err
	}
	after, err := machine.ProcessTreeCPU()
	slices.Sort(overhead)
	return turn{r, v1.Milliseconds(after-before) / float64(len(overhead)), overhead[len(overhead)/2]}, err
}

// compare counts the regions of an image that are the same from LitServe and from the mesh.
func (r *networkRow) compare(ctx context.Context, c contestants, image []byte) error {
	if c.litServe == nil {
		return nil
	}
	of, err := c.mesh(ctx, bench.Image{Data: image})
	if err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	other, err := c.litServe(ctx, bench.Image{Data: image})
	if err != nil {
		return fmt.Errorf("LitServe: %w", err)
	}
	r.regions, r.same = len(of.Regions), 0
	for _, a := range of.Regions {
		if slices.ContainsFunc(other.Regions, func(b v1.Region) bool {
			return a.Label == b.Label && withoutSpaces(a.Text) == withoutSpaces(b.Text) &&
				intersectionOverUnion(a.Box, b.Box) >= 0.8
		}) {
			r.same++
		}
	}
	return nil
}

func withoutSpaces(text string) string { return strings.Join(strings.Fields(text), "") }

// intersectionOverUnion returns the intersection over union of two boxes.
func intersectionOverUnion(a, b v1.Box) float64 {
	w := min(a.X+a.Width, b.X+b.Width) - max(a.X, b.X)
	h := min(a.Y+a.Height, b.Y+b.Height) - max(a.Y, b.Y)
	both := float64(max(w, 0) * max(h, 0))
	return both / (float64(a.Width*a.Height+b.Width*b.Height) - both)
}

func perSecond(t turn) float64 { return t.PerSecond }

func p50(t turn) float64 { return t.Latency.P50 }

func cpu(t turn) float64 { return t.cpu }

func overhead(t turn) float64 { return t.overhead }

// ratio returns a function that divides a figure of two turns.
func ratio(figure func(turn) float64) func(a, b turn) float64 {
	return func(a, b turn) float64 { return figure(a) / figure(b) }
}

func addedLatency(a, b turn) float64 { return a.Latency.P50 - b.Latency.P50 }

// median returns the median of a figure of turns.
func median(all []turn, figure func(turn) float64) float64 {
	return medianOf(all, all, func(a, _ turn) float64 { return figure(a) })
}

// medianOf returns the median of a figure that compares two turns of the same round.
func medianOf(a, b []turn, figure func(a, b turn) float64) float64 {
	figures := make([]float64, len(a))
	for i := range a {
		figures[i] = figure(a[i], b[i])
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}
