// Package pipeline reads the pipelines file: the configuration of the pipelines of a mesh.
// Every service and the set-up read the same file.
package pipeline

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
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

// Parse reads and checks a pipelines file, which is YAML. Unknown fields are errors. A field
// without a value has its default. Parse returns all errors together; each has the line, the
// pipeline and the field.
func Parse(r io.Reader) ([]Pipeline, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	root, err := parseYAML(text)
	if err != nil {
		return nil, err
	}
	var faults []fault
	var f file
	d := decoder{report: func(line int, field path, what string) {
		faults = append(faults, fault{line, field.prefix(what)})
	}}
	d.decode(root, &f)
	// Ignore empty entries, such as a "-" without anything.
	f.Pipelines = slices.DeleteFunc(f.Pipelines, func(n yaml.Node) bool { return isNull(&n) })
	if n := len(f.Pipelines); n == 0 && len(faults) == 0 || n > MaxPipelines {
		field := path{"pipelines"}
		d.report(lineOf(root, field), field, fmt.Sprintf("%d, want 1 to %d", n, MaxPipelines))
		return nil, joinFaults(faults)
	}
	pipelines := make([]Pipeline, len(f.Pipelines))
	seen := map[string]bool{}
	for i := range pipelines {
		p, n := &pipelines[i], &f.Pipelines[i]
		value := func(field ...string) *yaml.Node { return valueOf(n, field) }
		var name string
		if v := value("name"); v != nil {
			name = v.Value
		}
		d := decoder{report: func(line int, field path, what string) {
			faults = append(faults, fault{line, fmt.Sprintf("pipeline %q: %s", name, field.prefix(what))})
		}}
		d.decode(n, p)
		report := func(field path, format string, args ...any) {
			if !d.isWrong(field) { // it has an error already
				d.report(lineOf(n, field), field, fmt.Sprintf(format, args...))
			}
		}
		if name != "" && seen[name] {
			report(path{"name"}, "given twice")
		}
		seen[name] = true
		p.setDefaults(value)
		p.validate(value, report)
	}
	if err := joinFaults(faults); err != nil {
		return nil, err
	}
	return pipelines, nil
}

// file is the content of a pipelines file.
type file struct {
	Pipelines []yaml.Node `yaml:"pipelines"`
}

// setDefaults sets the fields without a value. The function value returns the value of a field in the file, or nil.
func (p *Pipeline) setDefaults(value func(field ...string) *yaml.Node) {
	setDefault(&p.Deadline, value("deadline"), DefaultDeadline)
	setDefault(&p.BulkDeadline, value("bulk_deadline"), DefaultBulkDeadline)
	setDefault(&p.MaxRegions, value("max_regions"), DefaultMaxRegions)
	setDefault(&p.CropsPerMessage, value("crops_per_message"), DefaultCropsPerMessage)
	setDefault(&p.Priority, value("priority"), subject.Interactive)
	setDefault(&p.Detect.Timeout, value("detect", "timeout"), DefaultTimeout)
	if p.Classify != nil {
		setDefault(&p.Classify.Timeout, value("classify", "timeout"), DefaultTimeout)
	}
}

func setDefault[T any](field *T, value *yaml.Node, defaultValue T) {
	if value == nil {
		*field = defaultValue
	}
}

// validate calls report for each invalid field, with the reason. The function value returns the
// value of a field in the file, or nil: a zero in the file is an error, unlike a missing field.
func (p *Pipeline) validate(
	value func(field ...string) *yaml.Node, report func(field path, format string, args ...any),
) {
	if !subject.ValidPipeline(p.Name) {
		report(path{"name"}, "want 1 to 32 of a-z, 0-9 and '-', a letter first")
	}
	if p.Deadline < time.Second || p.Deadline > MaxDuration {
		report(path{"deadline"}, "%v, want 1s to %v", p.Deadline, MaxDuration)
	}
	if p.BulkDeadline < time.Second || p.BulkDeadline > MaxDuration {
		report(path{"bulk_deadline"}, "%v, want 1s to %v", p.BulkDeadline, MaxDuration)
	}
	if p.MaxRegions < 1 || p.MaxRegions > MaxRegionsLimit {
		report(path{"max_regions"}, "%d, want 1 to %d", p.MaxRegions, MaxRegionsLimit)
	}
	if !p.Priority.Valid() {
		report(path{"priority"}, "%q, want %s or %s", p.Priority, subject.Interactive, subject.Bulk)
	}
	c := p.Classify
	switch {
	case p.CropsPerMessage < 1 || p.CropsPerMessage > MaxCropsPerMessage:
		report(path{"crops_per_message"}, "%d, want 1 to %d", p.CropsPerMessage, MaxCropsPerMessage)
	case c != nil && value("classify", "batch") != nil && (c.Batch < 1 || c.Batch > p.CropsPerMessage):
		report(path{"classify", "batch"}, "%d, want 1 to %d, which is crops_per_message", c.Batch, p.CropsPerMessage)
	}
	if value("detect", "batch") != nil {
		report(path{"detect", "batch"}, "given, but a lane of detect gets one image at a time")
	}
	for _, stage := range []subject.Stage{subject.Detect, subject.Classify} {
		s := p.Stage(stage)
		if s == nil {
			continue
		}
		s.validate(stage, func(field ...string) *yaml.Node {
			return value(slices.Concat(path{string(stage)}, field)...)
		}, func(field path, format string, args ...any) {
			report(slices.Concat(path{string(stage)}, field), format, args...)
		})
	}
}

func (s *Stage) validate(
	stage subject.Stage, value func(field ...string) *yaml.Node, report func(field path, format string, args ...any),
) {
	kind, program, byLabel := value("kind"), value("lane"), value("by_label")
	ways := 0
	for _, way := range []*yaml.Node{kind, program, byLabel} {
		if way != nil {
			ways++
		}
	}
	switch {
	case stage == subject.Detect && byLabel != nil:
		report(path{"by_label"}, "given, but only classify has it")
	case ways != 1 && stage == subject.Detect:
		report(nil, "want either kind or lane")
	case ways != 1:
		report(nil, "want one of kind, lane and by_label")
	case kind != nil && s.Kind == "":
		report(path{"kind"}, "empty, want a kind, such as model")
	case program != nil && (len(s.Lane) == 0 || s.Lane[0] == ""):
		report(path{"lane"}, "empty, want a program and its arguments")
	case byLabel != nil && isEmpty(byLabel):
		report(path{"by_label"}, "empty, want 1 to %d labels", MaxLabels)
	case byLabel != nil && s.Settings != nil:
		report(path{"settings"}, "given beside by_label, where each label has its own")
	}
	labels := slices.Sorted(maps.Keys(s.ByLabel))
	if n := len(labels); n > MaxLabels {
		report(path{"by_label"}, "%d labels, want at most %d", n, MaxLabels)
		labels = nil
	}
	for _, label := range labels {
		switch {
		case label == "" || len(label) > lane.MaxLabel:
			report(path{"by_label"}, "label %.40q of %d bytes, want 1 to %d", label, len(label), lane.MaxLabel)
		case value("by_label", label, "kind") == nil:
			report(path{"by_label", label}, "want a kind")
		case s.ByLabel[label].Kind == "":
			report(path{"by_label", label, "kind"}, "empty, want a kind, such as model")
		}
	}
	if s.Timeout < 10*time.Millisecond || s.Timeout > MaxDuration {
		report(path{"timeout"}, "%v, want 10ms to %v", s.Timeout, MaxDuration)
	}
	if memory := value("memory"); memory != nil && isEmpty(memory) {
		report(path{"memory"}, "empty, want at least %v", MinMemory)
	}
	if _, err := s.MemoryLimit(); err != nil {
		report(path{"memory"}, "%v", err)
	}
	if _, err := s.Setup(); err != nil {
		report(nil, "%v", err)
	}
}
