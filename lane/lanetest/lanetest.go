// Package lanetest is a conformance suite for lane programs. It starts a program,
// uses the lane protocol with it as a worker does, and reports each rule that the
// program breaks. The program can be written in any language:
//
//	func TestLane(t *testing.T) {
//		lanetest.Run(t, lanetest.Program{
//			Args:       []string{"python3", "colour.py"},
//			MediaTypes: []string{"image/bmp"},
//		})
//	}
//
// Requests go through package pool, the part of a worker that runs lanes. Every
// check of a worker applies to the replies: regions and words lie inside of the
// image or crop, scores are from 0 to 1, labels have at most 256 bytes, there is one
// crop for each region and one entry for each crop, time and memory are within their
// limits. docs/lanes.md describes the protocol.
//
// The suite also communicates with the program directly, without a pool, to check what a
// worker does not notice: that the program writes nothing but its replies to the
// socket, that it ends when the socket is closed, and that it leaves no process
// that a worker could not end.
package lanetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/bytesize"
	"github.com/sightmesh/sightmesh/lane/pool"
)

// Defaults of the fields of [Program]. They are those of a worker.
const (
	DefaultTimeout      = 10 * time.Second
	DefaultStartTimeout = 30 * time.Second
	DefaultMemory       = bytesize.Size(1 << 30)
)

// Program is a lane program to test, and what the suite may ask of it.
type Program struct {
	// Args are the program and its arguments, as in the field lane of a pipelines
	// file.
	Args []string
	// Stage is the stage that the program serves. Empty means subject.Detect.
	Stage subject.Stage
	// Setup is the configuration of the pipeline that is sent to the program. Programs
	// that are not built in usually need only Setup.Settings; the default is an empty object.
	Setup lane.Setup
	// Models is the folder of models that is sent to the program. It may be empty.
	Models string
	// ONNXRuntime configures the engine of built-in lanes. It may be nil.
	ONNXRuntime *lane.ONNXRuntime
	// MediaTypes are the types of the images that a program of detect is sent, out of
	// image/bmp, image/jpeg and image/png. Empty means all three.
	MediaTypes []string
	// Images are files that are sent to a program of detect in addition to the
	// generated ones. The program must accept each of them.
	Images [][]byte
	// Crops tests a program of detect with requests for crops, as those of a pipeline
	// with a classify stage are.
	Crops bool
	// Channels are the numbers of channels of the crops that a program of classify is
	// sent: 1 for grey, 3 for color. Empty means both.
	Channels []int
	// Timeout is how long the program may work on one request. 0 means
	// DefaultTimeout.
	Timeout time.Duration
	// StartTimeout is how long the program may take until it is ready. 0 means
	// DefaultStartTimeout.
	StartTimeout time.Duration
	// Memory is the largest resident size of the program. 0 means DefaultMemory.
	Memory bytesize.Size
}

// withDefaults returns the program with the default of each field that is empty, or
// an error that names a field with an invalid value.
func (p Program) withDefaults() (Program, error) {
	if len(p.Args) == 0 {
		return p, errors.New("field Args: empty, want a program")
	}
	if p.Stage == "" {
		p.Stage = subject.Detect
	}
	if !p.Stage.Valid() {
		return p, fmt.Errorf("field Stage: %q, want %s or %s", p.Stage, subject.Detect, subject.Classify)
	}
	if len(p.MediaTypes) == 0 {
		p.MediaTypes = mediaTypes()
	}
	if len(p.Setup.Settings) == 0 {
		p.Setup.Settings = json.RawMessage("{}") // a stage without settings has an empty object too
	}
	for _, m := range p.MediaTypes {
		if !slices.Contains(mediaTypes(), m) {
			return p, fmt.Errorf("field MediaTypes: %q, want %s", m, strings.Join(mediaTypes(), ", "))
		}
	}
	if len(p.Channels) == 0 {
		p.Channels = []int{1, 3}
	}
	for _, c := range p.Channels {
		if c != 1 && c != 3 {
			return p, fmt.Errorf("field Channels: %d, want 1 or 3", c)
		}
	}
	if p.Timeout == 0 {
		p.Timeout = DefaultTimeout
	}
	if p.StartTimeout == 0 {
		p.StartTimeout = DefaultStartTimeout
	}
	if p.Memory == 0 {
		p.Memory = DefaultMemory
	}
	switch {
	case p.Timeout < 0:
		return p, fmt.Errorf("field Timeout: %v, want 0 or more", p.Timeout)
	case p.StartTimeout < 0:
		return p, fmt.Errorf("field StartTimeout: %v, want 0 or more", p.StartTimeout)
	case p.Memory < 0:
		return p, fmt.Errorf("field Memory: %v, want 0 or more", p.Memory)
	}
	return p, nil
}

// Run tests a program in subtests of t, one for each group of rules. A program that
// does not become ready fails the first, and the others are not run.
func Run(t *testing.T, p Program) {
	t.Helper()
	p, err := p.withDefaults()
	if err != nil {
		t.Fatalf("lanetest: %v", err)
	}
	s, err := newSuite(p)
	if err != nil {
		t.Fatalf("lanetest: %v", err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Errorf("lanetest: %v", err)
		}
	}()
	for i, c := range checks(p) {
		ok := t.Run(c.name, func(t *testing.T) {
			s.output.reset()
			if err := c.run(t.Context(), s); err != nil {
				t.Errorf("%v\noutput of the program:\n%s", err, s.output)
			}
		})
		if !ok && i == 0 {
			return
		}
	}
}

// check is a group of rules. run returns one error for each rule that is broken,
// joined.
type check struct {
	name string
	run  func(ctx context.Context, s *suite) error
}

// checks returns the checks of a program. The first is whether it is ready.
func checks(p Program) []check {
	cs := []check{{"Ready", checkReady}}
	if p.Stage == subject.Classify {
		cs = append(cs,
			check{"Crops", checkCrops},
			check{"SmallestCrop", checkSmallestCrop},
		)
	} else {
		cs = append(cs,
			check{"Images", checkImages},
			check{"SmallestImage", checkSmallestImage},
			check{"MaxRegions", checkMaxRegions},
			check{"DamagedImage", checkDamagedImage},
		)
		if slices.Contains(p.MediaTypes, jpegType) {
			cs = append(cs, check{"Orientation", checkOrientation})
		}
		if p.Crops {
			cs = append(cs, check{"CropLabels", checkCropLabels})
		}
	}
	return append(cs,
		check{"ManyRequests", checkManyRequests},
		check{"NothingElseOnTheSocket", checkSocket},
		check{"EndOfFile", checkEndOfFile},
		check{"EndOfFileDuringARequest", checkEndOfFileDuringRequest},
	)
}

// pipelineName is the name of the pipeline that the program serves.
const pipelineName = "lanetest"

// suite is a program under test, in a pool with one lane.
type suite struct {
	program  Program
	pool     *pool.Pool
	restarts *restarts
	output   *output
	// endTimeout is how long the program may take to end after the socket was closed
	// while it had no request.
	endTimeout time.Duration
	stop       context.CancelFunc
	stopped    chan error
}

func newSuite(p Program) (*suite, error) {
	s := &suite{
		program: p, restarts: &restarts{}, output: &output{}, endTimeout: 5 * time.Second, stopped: make(chan error, 1),
	}
	var err error
	s.pool, err = pool.New(pool.Config{
		Stage: p.Stage, Lanes: 1, Models: p.Models, ONNXRuntime: p.ONNXRuntime, StartTimeout: p.StartTimeout,
		Programs: []pool.Program{{
			Name: p.Args[0], Argv: p.Args,
			Pipelines: map[string]pool.Pipeline{pipelineName: {Setup: p.Setup, Timeout: p.Timeout}},
			Memory:    pool.MemoryLimit{Bytes: int64(p.Memory), Setting: "Memory"},
		}},
		Metrics: s.restarts, Logger: slog.New(s.output),
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { s.stopped <- s.pool.Run(ctx) }()
	return s, nil
}

// close ends the pool and its processes.
func (s *suite) close() error {
	s.stop()
	return <-s.stopped
}

// acquire waits for the lane. A process that has ended is replaced first.
func (s *suite) acquire(ctx context.Context) (*pool.Lane, error) {
	ctx, cancel := context.WithTimeout(ctx, s.program.StartTimeout)
	defer cancel()
	l, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("no process of the program is ready: %w", err)
	}
	return l, nil
}

// start returns the first message of the protocol to the program.
func (s *suite) start() lane.Start {
	return lane.Start{
		Type: lane.TypeStart, Protocol: lane.Protocol, Stage: string(s.program.Stage), Models: s.program.Models,
		ONNXRuntime: s.program.ONNXRuntime, Pipelines: map[string]lane.Setup{pipelineName: s.program.Setup},
	}
}

// restarts counts the processes that ended. It is the [pool.Metrics] of the suite.
type restarts struct {
	mu      sync.Mutex
	reasons []string
}

func (r *restarts) SetBusy(int)                              {}
func (r *restarts) AddRequest(string, string, time.Duration) {}

func (r *restarts) AddRestart(_, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reasons = append(r.reasons, reason)
}

// count returns how many processes have ended until now.
func (r *restarts) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.reasons)
}

// output keeps what the processes of the program write to standard output and
// standard error, for the message of a failed test. It is an io.Writer for processes
// of the suite, and a [slog.Handler] for those of the pool.
type output struct {
	mu   sync.Mutex
	text []byte
}

// maxOutput is how many bytes of output are kept, of the end.
const maxOutput = 4 << 10

func (o *output) Write(b []byte) (int, error) {
	o.add(string(b))
	return len(b), nil
}

func (o *output) add(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, text...)
	o.text = o.text[max(0, len(o.text)-maxOutput):]
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

func (o *output) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = nil
}

// Enabled implements [slog.Handler].
func (o *output) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler]. It keeps the attribute output of a record, with
// which the pool logs what a process writes.
func (o *output) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "output" {
			o.add(a.Value.String() + "\n")
		}
		return true
	})
	return nil
}

// WithAttrs implements [slog.Handler].
func (o *output) WithAttrs([]slog.Attr) slog.Handler { return o }

// WithGroup implements [slog.Handler].
func (o *output) WithGroup(string) slog.Handler { return o }

// mediaType returns the type of an image file from its first bytes.
func mediaType(file []byte) string {
	for _, signature := range []string{"II*\x00", "MM\x00*"} {
		if strings.HasPrefix(string(file[:min(4, len(file))]), signature) {
			return "image/tiff"
		}
	}
	return http.DetectContentType(file)
}
