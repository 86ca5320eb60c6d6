// Package pipeline is the configuration that says which pipelines a mesh
// serves. Every service and the set-up step read the same file.
package pipeline

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/bytesize"
)

// Pipeline names a detector, a classifier and their limits.
type Pipeline struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	// Deadline is how long after it was accepted a job may still be worked
	// on, for jobs that bring none of their own.
	Deadline time.Duration `yaml:"deadline"`
	// BulkDeadline is the same for jobs of priority bulk, which wait longer.
	BulkDeadline time.Duration `yaml:"bulk_deadline"`
	// MaxRegions bounds the regions of one picture.
	MaxRegions int `yaml:"max_regions"`
	// CropsPerMessage is K: a picture with more regions spreads over several
	// classify workers.
	CropsPerMessage int `yaml:"crops_per_message"`
	// Text says that the pipeline reads: its answers have the whole text,
	// one line for each region.
	Text bool `yaml:"text"`
	// Detect finds regions.
	Detect Stage `yaml:"detect"`
	// Classify says what they are; without it the regions are the answer.
	Classify *Stage `yaml:"classify"`
}

// Stage is how one step of a pipeline is done.
type Stage struct {
	// Kind names what the built-in lane loads.
	Kind string `yaml:"kind"`
	// Lane, instead of the built-in one, is a program with its arguments that
	// speaks the lane protocol.
	Lane []string `yaml:"lane"`
	// Timeout is how long a lane may work on one message before it is ended.
	Timeout time.Duration `yaml:"timeout"`
	// Memory is the resident size over which a lane is ended, in bytes or with
	// a unit such as 2GiB; see [Stage.MemoryLimit].
	Memory string `yaml:"memory"`
	// Settings are handed to the lane as JSON.
	Settings map[string]any `yaml:"settings"`
}

// Setup is what a lane is told of the stage.
func (s Stage) Setup() (lane.Setup, error) {
	settings, err := json.Marshal(s.Settings)
	if err != nil {
		return lane.Setup{}, fmt.Errorf("settings: %w", err)
	}
	return lane.Setup{Kind: s.Kind, Settings: settings}, nil
}

// MemoryLimit returns the number of bytes that Memory says, and 0 when it says
// nothing.
func (s Stage) MemoryLimit() (int64, error) {
	if s.Memory == "" {
		return 0, nil
	}
	n, err := bytesize.Parse(s.Memory)
	if err != nil {
		return 0, err
	}
	if n < LeastMemory {
		return 0, fmt.Errorf("%s, want at least %v", s.Memory, LeastMemory)
	}
	return int64(n), nil
}

// JobDeadline is how long after it was accepted a job of priority p may still
// be worked on.
func (p Pipeline) JobDeadline(prio subject.Priority) time.Duration {
	if prio == subject.Bulk {
		return p.BulkDeadline
	}
	return p.Deadline
}

// Limits of a configuration.
const (
	MaxPipelines       = 64
	MaxRegionsLimit    = 10_000
	MaxCropsPerMessage = 1_000
	MaxDuration        = 24 * time.Hour
	// LeastMemory is the smallest memory limit of a lane.
	LeastMemory bytesize.Size = 16 << 20
)

// Defaults of fields that a file leaves out.
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

// BuiltInNames returns the names of [BuiltIn].
func BuiltInNames() []string {
	var names []string
	for _, p := range BuiltIn() {
		names = append(names, p.Name)
	}
	return names
}

// Load reads the file at path, or returns the built-in pipelines when path is
// empty.
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

// Parse reads a configuration in YAML and checks it. Unknown fields are
// errors; every error names the pipeline and the field.
func Parse(r io.Reader) ([]Pipeline, error) {
	var file struct {
		Pipelines []Pipeline `yaml:"pipelines"`
	}
	d := yaml.NewDecoder(r)
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	if n := len(file.Pipelines); n == 0 || n > MaxPipelines {
		return nil, fmt.Errorf("pipelines: %d, want 1 to %d", n, MaxPipelines)
	}
	seen := map[string]bool{}
	var errs []error
	for i := range file.Pipelines {
		p := &file.Pipelines[i]
		if seen[p.Name] {
			errs = append(errs, fmt.Errorf("pipeline %q: name: given twice", p.Name))
		}
		seen[p.Name] = true
		p.setDefaults()
		errs = append(errs, p.validate()...)
	}
	return file.Pipelines, errors.Join(errs...)
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

func (p *Pipeline) validate() []error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("pipeline %q: %s: %s", p.Name, field, fmt.Sprintf(format, args...)))
	}
	if !subject.ValidPipeline(p.Name) {
		bad("name", "want 1 to 32 of a-z, 0-9 and '-', a letter first")
	}
	if p.Deadline < time.Second || p.Deadline > MaxDuration {
		bad("deadline", "%v, want 1s to %v", p.Deadline, MaxDuration)
	}
	if p.BulkDeadline < time.Second || p.BulkDeadline > MaxDuration {
		bad("bulk_deadline", "%v, want 1s to %v", p.BulkDeadline, MaxDuration)
	}
	if p.MaxRegions < 1 || p.MaxRegions > MaxRegionsLimit {
		bad("max_regions", "%d, want 1 to %d", p.MaxRegions, MaxRegionsLimit)
	}
	if p.CropsPerMessage < 1 || p.CropsPerMessage > MaxCropsPerMessage {
		bad("crops_per_message", "%d, want 1 to %d", p.CropsPerMessage, MaxCropsPerMessage)
	}
	for name, s := range p.stages() {
		if (s.Kind == "") == (len(s.Lane) == 0) {
			bad(name, "want either kind or lane")
		}
		if s.Timeout < 10*time.Millisecond || s.Timeout > MaxDuration {
			bad(name+".timeout", "%v, want 10ms to %v", s.Timeout, MaxDuration)
		}
		if _, err := s.MemoryLimit(); err != nil {
			bad(name+".memory", "%v", err)
		}
		if _, err := s.Setup(); err != nil {
			bad(name, "%v", err)
		}
	}
	return errs
}
