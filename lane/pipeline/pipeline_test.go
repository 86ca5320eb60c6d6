package pipeline

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
)

func TestBuiltIn(t *testing.T) {
	t.Parallel()
	ps := BuiltIn()
	var names, reading []string
	for _, p := range ps {
		names = append(names, p.Name)
		if p.Text {
			reading = append(reading, p.Name)
		}
	}
	if want := []string{"text", "text-best", "text-tesseract", "faces", "objects", "codes"}; !slices.Equal(names, want) {
		t.Fatalf("the pipelines are %v, want %v", names, want)
	}
	if want := []string{"text", "text-best", "text-tesseract", "codes"}; !slices.Equal(reading, want) {
		t.Errorf("those that read are %v, want %v", reading, want)
	}
	for _, p := range ps {
		if p.JobDeadline(subject.Interactive) != p.Deadline || p.JobDeadline(subject.Bulk) <= p.Deadline {
			t.Errorf("%s: deadlines %v and %v", p.Name, p.Deadline, p.BulkDeadline)
		}
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	t.Parallel()
	ps, err := Parse(strings.NewReader("pipelines: [{name: p, detect: {lane: [prog, arg], settings: {a: [1]}}}]"))
	if err != nil {
		t.Fatal(err)
	}
	p := ps[0]
	if p.Deadline != DefaultDeadline || p.BulkDeadline != DefaultBulkDeadline || p.MaxRegions != DefaultMaxRegions || p.CropsPerMessage != DefaultCropsPerMessage || p.Detect.Timeout != DefaultTimeout || p.Classify != nil {
		t.Errorf("got %+v", p)
	}
	if s, err := p.Detect.Setup(); err != nil || string(s.Settings) != `{"a":[1]}` {
		t.Errorf("got %s, %v", s.Settings, err)
	}
}

func TestStage_MemoryLimit(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"{kind: k}": 0, "{kind: k, memory: 2GiB}": 2 << 30, "{kind: k, memory: 512 MiB}": 512 << 20,
		"{kind: k, memory: 16MiB}": int64(LeastMemory), "{kind: k, memory: 268435456}": 256 << 20,
	} {
		ps, err := Parse(strings.NewReader("pipelines: [{name: p, detect: " + in + "}]"))
		if err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		got, err := ps[0].Detect.MemoryLimit()
		if err != nil {
			t.Errorf("%s: %v", in, err)
		}
		if got != want {
			t.Errorf("%s is %d bytes, want %d", in, got, want)
		}
	}
}

// TestErrorsNamePipelineAndField: nobody should have to guess.
func TestErrorsNamePipelineAndField(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ yaml, want string }{
		{"", "parse: EOF"},
		{"pipelines: []", "pipelines: 0, want 1 to 64"},
		{"pipelines: [{name: p, detcet: {kind: k}}]", "field detcet not found"},
		{"pipelines: [{name: P, detect: {kind: k}}]", `pipeline "P": name`},
		{"pipelines: [{name: p, detect: {kind: k}}, {name: p, detect: {kind: k}}]", `pipeline "p": name: given twice`},
		{"pipelines: [{name: p, detect: {}}]", `pipeline "p": detect: want either kind or lane`},
		{"pipelines: [{name: p, detect: {kind: k, lane: [x]}}]", `pipeline "p": detect: want either kind or lane`},
		{"pipelines: [{name: p, detect: {kind: k}, classify: {}}]", `pipeline "p": classify: want either`},
		{"pipelines: [{name: p, deadline: 1ms, detect: {kind: k}}]", `pipeline "p": deadline: 1ms`},
		{"pipelines: [{name: p, bulk_deadline: 100h, detect: {kind: k}}]", `pipeline "p": bulk_deadline: 100h`},
		{"pipelines: [{name: p, max_regions: -1, detect: {kind: k}}]", `pipeline "p": max_regions: -1`},
		{"pipelines: [{name: p, crops_per_message: 5000, detect: {kind: k}}]", `pipeline "p": crops_per_message: 5000`},
		{"pipelines: [{name: p, detect: {kind: k, timeout: 1ns}}]", `pipeline "p": detect.timeout: 1ns`},
		{"pipelines: [{name: p, detect: {kind: k, memory: 15MiB}}]", `pipeline "p": detect.memory: 15MiB, want at least 16MiB`},
		{"pipelines: [{name: p, detect: {kind: k, memory: 2}}]", `pipeline "p": detect.memory: 2, want at least 16MiB`},
		{"pipelines: [{name: p, detect: {kind: k, memory: 2GB}}]", `pipeline "p": detect.memory: "2GB" is no number of bytes`},
		{"pipelines: [{name: p, detect: {kind: k}, classify: {kind: k, memory: -1GiB}}]", `pipeline "p": classify.memory: "-1GiB" is no number of bytes`},
		{"pipelines: [{name: p, detect: {kind: k, memory: [2GiB]}}]", "line 1: cannot unmarshal !!seq"},
		{"pipelines: [{name: p, deadline: soon, detect: {kind: k}}]", "soon"},
	} {
		if _, err := Parse(strings.NewReader(tt.yaml)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.yaml, err, tt.want)
		}
	}
	if _, err := Load("no/such/file.yaml"); err == nil || !strings.Contains(err.Error(), "no/such/file.yaml") {
		t.Errorf("missing file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(builtIn))
	f.Fuzz(func(t *testing.T, s string) {
		ps, err := Parse(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, p := range ps {
			if !subject.ValidPipeline(p.Name) || p.Deadline < time.Second || p.MaxRegions < 1 || p.Detect.Timeout <= 0 {
				t.Errorf("accepted %+v", p)
			}
		}
	})
}
