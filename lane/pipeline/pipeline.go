// Package pipeline reads the pipelines file: the configuration of the pipelines of a mesh.
// Every service and the set-up read the same file.
package pipeline

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/bytesize"
)

// Pipeline is a detector, an optional classifier, and their limits.
type Pipeline struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	// Deadline is how long after its acceptance a job is processed, for jobs without a
	// deadline of their own.
	Deadline time.Duration `yaml:"deadline"`
	// BulkDeadline is the deadline of jobs of the priority bulk, which wait longer.
	BulkDeadline time.Duration `yaml:"bulk_deadline"`
	// MaxRegions is the largest number of regions of an image.
	MaxRegions int `yaml:"max_regions"`
	// CropsPerMessage is the largest number of crops of a message. An image with more
	// regions has several messages, which several classify workers can process.
	CropsPerMessage int `yaml:"crops_per_message"`
	// Priority is the priority of jobs without one. The default is interactive.
	Priority subject.Priority `yaml:"priority"`
	// ScaleFromZero accepts images while no worker runs. They wait for a worker until their
	// deadline.
	ScaleFromZero bool `yaml:"scale_from_zero"`
	// Text says that the pipeline reads text. Its results have the whole text, with one line
	// for each region.
	Text bool `yaml:"text"`
	// Detect is the stage that finds regions.
	Detect Stage `yaml:"detect"`
	// Classify is the stage that classifies them. Without it, the result is the regions.
	Classify *Stage `yaml:"classify"`
}

// Stage is the configuration of one stage of a pipeline.
type Stage struct {
	// Kind is the kind of detector or classifier that the built-in lane loads.
	Kind string `yaml:"kind"`
	// Lane, instead of Kind, is a lane program and its arguments.
	Lane []string `yaml:"lane"`
	// ByLabel, instead of Kind, has a classifier for the regions of each label. Only Classify
	// can have it. Regions with other labels are not classified.
	ByLabel map[string]Classifier `yaml:"by_label"`
	// Timeout is how long a lane may process one message before it is killed.
	Timeout time.Duration `yaml:"timeout"`
	// Memory is the resident size above which a lane is killed, in bytes or with a unit
	// such as 2GiB. See [Stage.MemoryLimit].
	Memory string `yaml:"memory"`
	// Batch is the largest number of crops of a message that run through the network of
	// Classify at once. The default is one.
	Batch int `yaml:"batch"`
	// Settings are passed to the lane as JSON.
	Settings map[string]any `yaml:"settings"`
}

// Classifier is the configuration of a built-in classifier.
type Classifier struct {
	// Kind is the kind of detector or classifier that the built-in lane loads.
	Kind string `yaml:"kind"`
	// Settings are passed to the lane as JSON.
	Settings map[string]any `yaml:"settings"`
}

// Setup returns the configuration that is sent to a lane.
func (s Stage) Setup() (lane.Setup, error) {
	setup, err := Classifier{s.Kind, s.Settings}.setup()
	if err != nil {
		return lane.Setup{}, err
	}
	for label, c := range s.ByLabel {
		if setup.ByLabel == nil {
			setup.ByLabel = map[string]lane.Setup{}
		}
		if setup.ByLabel[label], err = c.setup(); err != nil {
			return lane.Setup{}, fmt.Errorf("by_label.%s.%w", label, err)
		}
	}
	setup.Batch = s.Batch
	return setup, nil
}

func (c Classifier) setup() (lane.Setup, error) {
	if c.Settings == nil {
		c.Settings = map[string]any{} // a lane program gets an object, not null
	}
	settings, err := json.Marshal(c.Settings)
	if err != nil {
		return lane.Setup{}, fmt.Errorf("settings: %w", err)
	}
	return lane.Setup{Kind: c.Kind, Settings: settings}, nil
}

// MemoryLimit returns Memory as a number of bytes. It is 0 when Memory is empty.
func (s Stage) MemoryLimit() (int64, error) {
	if s.Memory == "" {
		return 0, nil
	}
	n, err := bytesize.Parse(s.Memory)
	if err != nil {
		return 0, err
	}
	if n < MinMemory {
		return 0, fmt.Errorf("%s, want at least %v", s.Memory, MinMemory)
	}
	return int64(n), nil
}

// Stage returns a stage of the pipeline, or nil when the pipeline does not have it.
func (p *Pipeline) Stage(stage subject.Stage) *Stage {
	if stage == subject.Classify {
		return p.Classify
	}
	return &p.Detect
}

// DetectRequest returns the request to a lane of detect for an image.
func (p Pipeline) DetectRequest(mediaType string) lane.Detect {
	r := lane.Detect{Pipeline: p.Name, MediaType: mediaType, MaxRegions: p.MaxRegions}
	if p.Classify != nil {
		r.Crops = true
		r.CropLabels = slices.Sorted(maps.Keys(p.Classify.ByLabel))
	}
	return r
}

// JobDeadline returns how long after its acceptance a job of priority prio is processed.
func (p Pipeline) JobDeadline(prio subject.Priority) time.Duration {
	if prio == subject.Bulk {
		return p.BulkDeadline
	}
	return p.Deadline
}

// Limits of a pipelines file.
const (
	MaxPipelines       = 64
	MaxRegionsLimit    = 10_000
	MaxCropsPerMessage = 1_000
	MaxDuration        = 24 * time.Hour
	// MaxLabels is the largest number of labels of ByLabel.
	MaxLabels = 256
	// MinMemory is the smallest memory limit of a lane.
	MinMemory bytesize.Size = 16 << 20
)

// Defaults of the fields.
const (
	DefaultDeadline        = time.Minute
	DefaultBulkDeadline    = time.Hour
	DefaultTimeout         = 10 * time.Second
	DefaultMaxRegions      = 100
	DefaultCropsPerMessage = 8
)

//go:embed default.yaml
var builtIn []byte

// BuiltIn returns the pipelines of default.yaml.
func BuiltIn() []Pipeline {
	p, err := Parse(bytes.NewReader(builtIn))
	if err != nil {
		panic(fmt.Sprintf("built-in pipelines: %v", err)) // a test parses them
	}
	return p
}

// BuiltInFile returns default.yaml.
func BuiltInFile() []byte { return slices.Clone(builtIn) }

// BuiltInNames returns the names of [BuiltIn].
func BuiltInNames() []string {
	return Names(BuiltIn())
}

// Names returns the names of pipelines, in their order.
func Names(pipelines []Pipeline) []string {
	var names []string
	for _, p := range pipelines {
		names = append(names, p.Name)
	}
	return names
}

// Load reads the file at path. It returns the built-in pipelines when path is empty.
func Load(path string) ([]Pipeline, error) {
	if path == "" {
		return BuiltIn(), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load pipelines: %w", err)
	}
	defer f.Close()
	p, err := Parse(f)
	if err != nil {
		return nil, fmt.Errorf("load pipelines from %s: %w", path, err)
	}
	return p, nil
}

// Parse reads and checks a pipelines file, which is YAML. Unknown fields are errors. Parse
// returns all errors together; each has the line, the pipeline and the field.
func Parse(r io.Reader) ([]Pipeline, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	var file struct {
		Pipelines []Pipeline `yaml:"pipelines"`
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	err = d.Decode(&file)
	var wrongTypes *yaml.TypeError
	if err != nil && !errors.As(err, &wrongTypes) {
		return nil, fmt.Errorf("parse: %w", err)
	}
	if d.Decode(new(yaml.Node)) == nil {
		return nil, errors.New("parse: more than one YAML document")
	}
	at, err := newPositions(text)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	var faults []fault
	if wrongTypes != nil {
		for _, e := range wrongTypes.Errors {
			faults = append(faults, at.typeError(e))
		}
	}
	if n := len(file.Pipelines); n == 0 && len(faults) == 0 || n > MaxPipelines {
		return nil, fmt.Errorf("pipelines: %d, want 1 to %d", n, MaxPipelines)
	}
	seen := map[string]bool{}
	for i := range file.Pipelines {
		p := &file.Pipelines[i]
		report := func(field, format string, args ...any) {
			what := fmt.Sprintf("pipeline %q: %s: %s", p.Name, field, fmt.Sprintf(format, args...))
			faults = append(faults, fault{at.line(i, field), what})
		}
		if seen[p.Name] {
			report("name", "given twice")
		}
		seen[p.Name] = true
		p.setDefaults()
		p.validate(report)
	}
	if err := joinFaults(faults); err != nil {
		return nil, err
	}
	return file.Pipelines, nil
}

func (p *Pipeline) setDefaults() {
	if p.Deadline == 0 {
		p.Deadline = DefaultDeadline
	}
	if p.BulkDeadline == 0 {
		p.BulkDeadline = DefaultBulkDeadline
	}
	if p.MaxRegions == 0 {
		p.MaxRegions = DefaultMaxRegions
	}
	if p.CropsPerMessage == 0 {
		p.CropsPerMessage = DefaultCropsPerMessage
	}
	if p.Priority == "" {
		p.Priority = subject.Interactive
	}
	for _, s := range p.stages() {
		if s.Timeout == 0 {
			s.Timeout = DefaultTimeout
		}
	}
}

func (p *Pipeline) stages() map[string]*Stage {
	m := map[string]*Stage{string(subject.Detect): &p.Detect}
	if p.Classify != nil {
		m[string(subject.Classify)] = p.Classify
	}
	return m
}

// validate calls report for each invalid field, with the reason.
func (p *Pipeline) validate(report func(field, format string, args ...any)) {
	if !subject.ValidPipeline(p.Name) {
		report("name", "want 1 to 32 of a-z, 0-9 and '-', a letter first")
	}
	if p.Deadline < time.Second || p.Deadline > MaxDuration {
		report("deadline", "%v, want 1s to %v", p.Deadline, MaxDuration)
	}
	if p.BulkDeadline < time.Second || p.BulkDeadline > MaxDuration {
		report("bulk_deadline", "%v, want 1s to %v", p.BulkDeadline, MaxDuration)
	}
	if p.MaxRegions < 1 || p.MaxRegions > MaxRegionsLimit {
		report("max_regions", "%d, want 1 to %d", p.MaxRegions, MaxRegionsLimit)
	}
	if p.CropsPerMessage < 1 || p.CropsPerMessage > MaxCropsPerMessage {
		report("crops_per_message", "%d, want 1 to %d", p.CropsPerMessage, MaxCropsPerMessage)
	}
	if !p.Priority.Valid() {
		report("priority", "%q, want %s or %s", p.Priority, subject.Interactive, subject.Bulk)
	}
	if c := p.Classify; c != nil && (c.Batch < 0 || c.Batch > p.CropsPerMessage) {
		report("classify.batch", "%d, want 1 to %d, which is crops_per_message", c.Batch, p.CropsPerMessage)
	}
	if p.Detect.Batch != 0 {
		report("detect.batch", "given, but a lane of detect gets one image at a time")
	}
	for name, s := range p.stages() {
		s.validate(subject.Stage(name), func(field, format string, args ...any) {
			report(strings.Trim(name+"."+field, "."), format, args...)
		})
	}
}

func (s *Stage) validate(stage subject.Stage, report func(field, format string, args ...any)) {
	ways := 0
	for _, isGiven := range []bool{s.Kind != "", len(s.Lane) > 0, len(s.ByLabel) > 0} {
		if isGiven {
			ways++
		}
	}
	switch {
	case stage == subject.Detect && s.ByLabel != nil:
		report("by_label", "given, but only classify has it")
	case ways != 1 && stage == subject.Detect:
		report("", "want either kind or lane")
	case ways != 1:
		report("", "want one of kind, lane and by_label")
	case len(s.ByLabel) > 0 && s.Settings != nil:
		report("settings", "given beside by_label, where each label has its own")
	}
	if n := len(s.ByLabel); n > MaxLabels {
		report("by_label", "%d labels, want at most %d", n, MaxLabels)
	}
	for _, label := range slices.Sorted(maps.Keys(s.ByLabel)) {
		switch {
		case label == "" || len(label) > lane.MaxLabel:
			report("by_label", "label %.40q of %d bytes, want 1 to %d", label, len(label), lane.MaxLabel)
		case s.ByLabel[label].Kind == "":
			report("by_label."+label, "want a kind")
		}
	}
	if s.Timeout < 10*time.Millisecond || s.Timeout > MaxDuration {
		report("timeout", "%v, want 10ms to %v", s.Timeout, MaxDuration)
	}
	if _, err := s.MemoryLimit(); err != nil {
		report("memory", "%v", err)
	}
	if _, err := s.Setup(); err != nil {
		report("", "%v", err)
	}
}
