package models

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
	"github.com/sightmesh/sightmesh/tools/internal/lanes"
	"github.com/sightmesh/sightmesh/tools/internal/sample"
	"github.com/sightmesh/sightmesh/tools/internal/up"
)

// TrialConfig is the configuration of check and bench.
type TrialConfig struct {
	// Flags are the flags of the lane.
	lanes.Flags
	// Images is how many images bench measures, at least 1.
	Images int
}

// RegisterCheck registers the flags of check.
func (c *TrialConfig) RegisterCheck(fs *flag.FlagSet) {
	c.Register(fs,
		"how long the lane may take to load the model, and then for each image",
		"limit of the resident memory of the lane in `bytes`, such as 2GiB, at least 16MiB; 0: no limit")
}

// RegisterBench registers the flags of bench.
func (c *TrialConfig) RegisterBench(fs *flag.FlagSet) {
	c.RegisterCheck(fs)
	fs.IntVar(&c.Images, "images", 200, "number of images that are measured; the files are repeated in turn")
}

// classifyKinds are the kinds of models for classify, sorted. A test compares them with the kinds of the service. All
// other kinds are for detect.
var classifyKinds = []string{"angle", "classifier", "ctc-text", "embedding", "tesseract"}

// A trial is a lane with one model.
type trial struct {
	name  string
	kind  string // "" when model.yaml cannot be read or has no kind
	stage subject.Stage
	lane  *pool.Lane
	// loaded is how long the lane took from its start until the model was warm.
	loaded time.Duration
}

// startTrial starts a lane with a model, given by its name or by the path of its folder. When the lane cannot use the
// model, the error has the reason of the lane. The caller must call stop, which ends the lane.
func startTrial(ctx context.Context, cfg TrialConfig, which string) (_ *trial, stop func() error, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	models, err := filepath.Abs(cfg.Models)
	if err != nil {
		return nil, nil, fmt.Errorf("models: %w", err)
	}
	dir := filepath.Join(models, which)
	if strings.ContainsRune(which, filepath.Separator) {
		if dir, err = filepath.Abs(which); err != nil {
			return nil, nil, fmt.Errorf("model: %w", err)
		}
	}
	t := &trial{name: filepath.Base(dir), kind: readKind(dir), stage: subject.Detect}
	if slices.Contains(classifyKinds, t.kind) {
		t.stage = subject.Classify
	}
	binary, err := up.FindBinary(string(t.stage))
	if err != nil {
		return nil, nil, err
	}
	settings, err := json.Marshal(map[string]string{"model": dir})
	if err != nil {
		return nil, nil, fmt.Errorf("model: %w", err)
	}
	l, err := lanes.StartLane(ctx, pool.Config{
		Stage: t.stage, Models: models, StartTimeout: cfg.Timeout,
		Programs: []pool.Program{{
			Name: t.name, Argv: []string{binary, "lane"},
			Pipelines: map[string]pool.Pipeline{
				t.name: {Setup: lane.Setup{Kind: "model", Settings: settings}, Timeout: cfg.Timeout},
			},
			Memory: cfg.MemoryLimit(),
		}},
	})
	var notReady *lanes.NotReadyError
	switch {
	case ctx.Err() != nil:
		return nil, nil, exit.Interruptedf("interrupted: %w", err)
	case errors.As(err, &notReady):
		return nil, nil, fmt.Errorf("model %s cannot be used: %w", t.name, err)
	case err != nil:
		return nil, nil, err
	}
	t.lane, t.loaded = l.Lane, l.StartTime
	return t, l.Close, nil
}

// readKind returns the kind that the model.yaml of a folder names, if it can be read. The lane reports the error of an
// invalid file.
func readKind(dir string) string {
	var m struct {
		Kind string `yaml:"kind"`
	}
	path := filepath.Join(dir, "model.yaml")
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return ""
	}
	data, err := os.ReadFile(path)
	if err != nil || yaml.Unmarshal(data, &m) != nil {
		return ""
	}
	return m.Kind
}

// A trialImage is an image in the form of its stage: the file for detect, the pixels of one crop for classify.
type trialImage struct {
	name string
	data []byte
	crop lane.Crop
}

// images reads the image files. Without a file, it draws the sample page.
func (t *trial) images(files []string) ([]trialImage, error) {
	if len(files) == 0 {
		page, err := sample.PageFile()
		if err != nil {
			return nil, err
		}
		drawn, err := t.image("the sample page", page)
		return []trialImage{drawn}, err
	}
	all := make([]trialImage, 0, len(files))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read image: %w", err)
		}
		i, err := t.image(file, data)
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

func (t *trial) image(name string, data []byte) (trialImage, error) {
	if t.stage == subject.Detect {
		return trialImage{name: name, data: data}, nil
	}
	crop, pixels, err := lanes.WholeCrop(data)
	if err != nil {
		return trialImage{}, fmt.Errorf("read image %s: %w", name, err)
	}
	return trialImage{name: name, data: pixels, crop: crop}, nil
}

// process sends an image to the lane. It returns a description of the reply, and the inference time of the model.
func (t *trial) process(ctx context.Context, i trialImage) (found string, inference time.Duration, err error) {
	if t.stage == subject.Classify {
		named, err := t.lane.Classify(ctx, lane.Classify{Pipeline: t.name, Crops: []lane.Crop{i.crop}}, i.data)
		if err != nil {
			return "", 0, fmt.Errorf("model %s cannot be used: %s: %w", t.name, i.name, err)
		}
		a := named.Answers[0]
		found = a.Text
		for _, l := range a.Labels[:min(len(a.Labels), 3)] {
			found = strings.TrimSpace(fmt.Sprintf("%s %s %.2f", found, l.Label, l.Score))
		}
		return cmp.Or(found, "nothing"), inferenceTime(named.Timing), nil
	}
	detected, _, err := t.lane.Detect(ctx, lane.Detect{Pipeline: t.name, MaxRegions: 400}, i.data)
	if err != nil {
		return "", 0, fmt.Errorf("model %s cannot be used: %s: %w", t.name, i.name, err)
	}
	return fmt.Sprintf("%d regions", len(detected.Regions)), inferenceTime(detected.Timing), nil
}

func inferenceTime(t lane.Timing) time.Duration {
	return time.Duration(t.InferMS * float64(time.Millisecond))
}

// describe prints the model, its engine, its inputs and its outputs, as the lane reports them.
func (t *trial) describe(w io.Writer) {
	for _, m := range t.lane.Models(t.name) {
		fmt.Fprintf(w, "model\t%s, version %s, kind %s\n", m.Name, m.Version, t.kind)
	}
	for _, n := range t.lane.Networks(t.name) {
		fmt.Fprintf(w, "engine\t%s, one thread\n", n.Engine)
		fmt.Fprintf(w, "inputs\t%s\n", tensors(n.Inputs))
		fmt.Fprintf(w, "outputs\t%s\n", tensors(n.Outputs))
	}
}

// tensors lists names and shapes, with ? for a side of any length.
func tensors(all []lane.Tensor) string {
	if len(all) == 0 {
		return "not known to the engine"
	}
	results := make([]string, 0, len(all))
	for _, t := range all {
		sides := make([]string, 0, len(t.Shape))
		for _, n := range t.Shape {
			side := fmt.Sprint(n)
			if n < 0 {
				side = "?"
			}
			sides = append(sides, side)
		}
		results = append(results, strings.TrimSpace(t.Name+" "+strings.Join(sides, "×")))
	}
	return strings.Join(results, ", ")
}

// Check loads a model in a lane, processes each image once, and prints the properties, times and memory of the model.
func Check(ctx context.Context, cfg TrialConfig, which string, files []string, out io.Writer) (err error) {
	t, stop, err := startTrial(ctx, cfg, which)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	images, err := t.images(files)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	t.describe(w)
	fmt.Fprintf(w, "loaded in\t%d ms, warm\n", t.loaded.Milliseconds())
	for _, i := range images {
		found, took, err := t.process(ctx, i)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "one run\t%.1f ms, %s: %s\n", v1.Milliseconds(took), i.name, found)
	}
	memory, err := t.lane.PeakMemory(t.name)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "memory\t%s at most\n", megabytes(memory))
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// Bench processes images with a model, one after the other, and prints the times and the memory.
func Bench(ctx context.Context, cfg TrialConfig, which string, files []string, out io.Writer) (err error) {
	if cfg.Images < 1 {
		return exit.Usagef("images: %d, want 1 or more", cfg.Images)
	}
	t, stop, err := startTrial(ctx, cfg, which)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	images, err := t.images(files)
	if err != nil {
		return err
	}
	for _, i := range images { // not measured: the first image of a shape takes longer
		if _, _, err := t.process(ctx, i); err != nil {
			return err
		}
	}
	var whole, model []time.Duration
	began := time.Now()
	for n := range cfg.Images {
		start := time.Now()
		_, took, err := t.process(ctx, images[n%len(images)])
		if err != nil {
			return err
		}
		whole, model = append(whole, time.Since(start)), append(model, took)
	}
	elapsed := time.Since(began)
	memory, err := t.lane.PeakMemory(t.name)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	t.describe(w)
	fmt.Fprintf(w, "images\t%d in %.1f s, one after the other: %.1f images/s\n",
		cfg.Images, elapsed.Seconds(), float64(cfg.Images)/elapsed.Seconds())
	fmt.Fprintf(w, "image\tp50 %s, p99 %s\n", percentile(whole, 50), percentile(whole, 99))
	fmt.Fprintf(w, "model alone\tp50 %s, p99 %s\n", percentile(model, 50), percentile(model, 99))
	fmt.Fprintf(w, "memory\t%s at most\n", megabytes(memory))
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// percentile formats a percentile of times. It sorts the times.
func percentile(all []time.Duration, percent int) string {
	slices.Sort(all)
	at := (len(all)*percent + 99) / 100
	return fmt.Sprintf("%.1f ms", v1.Milliseconds(all[max(at, 1)-1]))
}
