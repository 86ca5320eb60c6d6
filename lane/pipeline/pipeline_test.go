package pipeline

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/lane"
)

func TestBuiltIn(t *testing.T) {
	t.Parallel()
	ps := BuiltIn()
	var names, withText []string
	for _, p := range ps {
		names = append(names, p.Name)
		if p.Text {
			withText = append(withText, p.Name)
		}
	}
	if want := []string{"text", "text-best", "text-tesseract", "faces", "objects", "codes"}; !slices.Equal(names, want) {
		t.Fatalf("the pipelines are %v, want %v", names, want)
	}
	if want := []string{"text", "text-best", "text-tesseract", "codes"}; !slices.Equal(withText, want) {
		t.Errorf("the pipelines that read text are %v, want %v", withText, want)
	}
	for _, p := range ps {
		if got := p.JobDeadline(subject.Interactive); got != p.Deadline {
			t.Errorf("%s: the deadline of interactive jobs is %v, want %v", p.Name, got, p.Deadline)
		}
		if got := p.JobDeadline(subject.Bulk); got <= p.Deadline {
			t.Errorf("%s: the deadline of bulk jobs is %v, want more than %v", p.Name, got, p.Deadline)
		}
	}
}

func TestParse_SetsDefaults(t *testing.T) {
	t.Parallel()
	ps, err := Parse(strings.NewReader("pipelines: [{name: p, detect: {lane: [prog, arg], settings: {a: [1]}}}]"))
	if err != nil {
		t.Fatal(err)
	}
	want := Pipeline{
		Name: "p", Deadline: DefaultDeadline, BulkDeadline: DefaultBulkDeadline, MaxRegions: DefaultMaxRegions,
		CropsPerMessage: DefaultCropsPerMessage, Priority: subject.Interactive,
		Detect: Stage{
			Lane: []string{"prog", "arg"}, Settings: map[string]any{"a": []any{1}}, Timeout: DefaultTimeout,
		},
	}
	if !reflect.DeepEqual(ps[0], want) {
		t.Errorf("got %+v, want %+v", ps[0], want)
	}
	s, err := ps[0].Detect.Setup()
	if err != nil {
		t.Fatal(err)
	}
	if string(s.Settings) != `{"a":[1]}` {
		t.Errorf("the settings are %s", s.Settings)
	}
}

func TestStage_MemoryLimit(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"{kind: k}": 0, "{kind: k, memory: 2GiB}": 2 << 30, "{kind: k, memory: 512 MiB}": 512 << 20,
		"{kind: k, memory: 16MiB}": int64(MinMemory), "{kind: k, memory: 268435456}": 256 << 20,
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

func TestParse_ErrorsNamePipelineAndField(t *testing.T) {
	t.Parallel()
	const classify = "pipelines: [{name: p, detect: {kind: k}, classify: "
	for _, tt := range []struct{ yaml, want string }{
		{"pipelines: []", "pipelines: 0, want 1 to 64"},
		{"pipelines: [{name: p, detcet: {kind: k}}]", `line 1: pipeline "p": detcet: no such field; known are name, `},
		{"pipelines: [{name: P, detect: {kind: k}}]", `pipeline "P": name`},
		{"pipelines: [{name: p, detect: {kind: k}}, {name: p, detect: {kind: k}}]", `pipeline "p": name: given twice`},
		{"pipelines: [{name: p, detect: {}}]", `pipeline "p": detect: want either kind or lane`},
		{"pipelines: [{name: p, detect: {kind: k, lane: [x]}}]", `pipeline "p": detect: want either kind or lane`},
		{"pipelines: [{name: p, detect: {kind: k}, classify: {}}]",
			`pipeline "p": classify: want one of kind, lane and by_label`},
		{"pipelines: [{name: p, deadline: 1ms, detect: {kind: k}}]", `pipeline "p": deadline: 1ms`},
		{"pipelines: [{name: p, bulk_deadline: 100h, detect: {kind: k}}]", `pipeline "p": bulk_deadline: 100h`},
		{"pipelines: [{name: p, max_regions: -1, detect: {kind: k}}]", `pipeline "p": max_regions: -1`},
		{"pipelines: [{name: p, crops_per_message: 5000, detect: {kind: k}}]", `pipeline "p": crops_per_message: 5000`},
		{"pipelines: [{name: p, detect: {kind: k, timeout: 1ns}}]", `pipeline "p": detect.timeout: 1ns`},
		{"pipelines: [{name: p, detect: {kind: k, memory: 15MiB}}]",
			`pipeline "p": detect.memory: 15MiB, want at least 16MiB`},
		{"pipelines: [{name: p, detect: {kind: k, memory: 2}}]", `pipeline "p": detect.memory: 2, want at least 16MiB`},
		{"pipelines: [{name: p, detect: {kind: k, memory: 2GB}}]",
			`pipeline "p": detect.memory: "2GB" is not a number of bytes`},
		{"pipelines: [{name: p, detect: {kind: k}, classify: {kind: k, memory: -1GiB}}]",
			`pipeline "p": classify.memory: "-1GiB" is not a number of bytes`},
		{
			"pipelines: [{name: p, detect: {kind: k, memory: [2GiB]}}]",
			`line 1: pipeline "p": detect.memory: a list, want a string`,
		},
		{
			"pipelines: [{name: p, priority: urgent, detect: {kind: k}}]",
			`pipeline "p": priority: "urgent", want interactive or bulk`,
		},
		{
			"pipelines: [{name: p, detect: {kind: k, by_label: {a: {kind: k}}}}]",
			`pipeline "p": detect.by_label: given, but only classify has it`,
		},
		{
			classify + "{kind: k, by_label: {a: {kind: k}}}}]",
			`pipeline "p": classify: want one of kind, lane and by_label`,
		},
		{classify + "{by_label: {a: {}}}}]", `pipeline "p": classify.by_label.a: want a kind`},
		{
			classify + "{by_label: {a: {kind: k, lane: [x]}}}}]",
			`pipeline "p": classify.by_label.a.lane: no such field; known are kind, settings`,
		},
		{
			classify + "{by_label: {'': {kind: k}}}}]",
			`pipeline "p": classify.by_label: label "" of 0 bytes, want 1 to 256`,
		},
		{
			classify + "{by_label: {a: {kind: k}}, settings: {b: 1}}}]",
			`pipeline "p": classify.settings: given beside by_label`,
		},
		{
			classify + "{by_label: {a: {kind: k, settings: {b: .nan}}}}}]",
			`pipeline "p": classify: by_label.a.settings: json`,
		},
		{"pipelines: [{name: p, detect: {kind: k, batch: 2}}]", `pipeline "p": detect.batch: given, but a lane of detect`},
		{classify + "{kind: k, batch: -1}}]", `pipeline "p": classify.batch: -1, want 1 to 8, which is crops_per_message`},
		{classify + "{kind: k, batch: 9}}]", `pipeline "p": classify.batch: 9, want 1 to 8, which is crops_per_message`},
		{"pipelines: [{name: p, detect: {kind: k}}]\n---\npipelines: []", "more than one YAML document"},
		{"pipelines: [{name: p, deadline: soon, detect: {kind: k}}]", "soon"},
		{"[{name: p, detect: {kind: k}}]", "line 1: a list, want a mapping with the field pipelines"},
		{
			"pipelines:\n- name: p\n  detect: codes",
			`line 3: pipeline "p": detect: "codes", want a mapping, such as {kind: model}`,
		},
		{
			"pipelines: [{name: p, detect: {lane: python3 a.py}}]",
			`want a list, such as [python3, program.py]`,
		},
		{"pipelines: [{name: p, detect: {kind: k, timeout: 5}}]", "detect.timeout: 5, want a duration with a unit"},
	} {
		if _, err := Parse(strings.NewReader(tt.yaml)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.yaml, err, tt.want)
		}
	}
	if _, err := Load("no/such/file.yaml"); err == nil || !strings.Contains(err.Error(), "no/such/file.yaml") {
		t.Errorf("missing file: %v", err)
	}
}

// TestParse_WrongFields: a value of another type is the only error of its field, and so is a value
// out of range, also when it is zero or empty.
func TestParse_WrongFields(t *testing.T) {
	t.Parallel()
	const (
		fieldsOfPipeline = "name, description, deadline, bulk_deadline, max_regions, crops_per_message, priority, " +
			"scale_from_zero, text, detect, classify"
		fieldsOfStage = "kind, lane, by_label, timeout, memory, batch, settings"
	)
	for _, tt := range []struct{ fields, want string }{
		{"max_regions: 1.9, detect: {kind: k}", "max_regions: 1.9, want a whole number"},
		{"max_regions: '5', detect: {kind: k}", `max_regions: "5", want a whole number`},
		{"crops_per_message: 1.5, detect: {kind: k}", "crops_per_message: 1.5, want a whole number"},
		{
			"crops_per_message: many, detect: {kind: k}, classify: {kind: k, batch: 9}",
			`crops_per_message: "many", want a whole number`,
		},
		{"detect: {kind: k}, classify: {kind: k, batch: 1.5}", "classify.batch: 1.5, want a whole number"},
		{"detect: {kind: k, timeout: 1.5}", "detect.timeout: 1.5, want a duration with a unit, such as 5s"},
		{"text: 1, detect: {kind: k}", "text: 1, want true or false"},

		{"max_regions: 0, detect: {kind: k}", "max_regions: 0, want 1 to 10000"},
		{"crops_per_message: 0, detect: {kind: k}", "crops_per_message: 0, want 1 to 1000"},
		{"deadline: 0s, detect: {kind: k}", "deadline: 0s, want 1s to 24h0m0s"},
		{"bulk_deadline: 0s, detect: {kind: k}", "bulk_deadline: 0s, want 1s to 24h0m0s"},
		{"priority: '', detect: {kind: k}", `priority: "", want interactive or bulk`},
		{"detect: {kind: k, timeout: 0s}", "detect.timeout: 0s, want 10ms to 24h0m0s"},
		{"detect: {kind: k}, classify: {kind: k, timeout: 0s}", "classify.timeout: 0s, want 10ms to 24h0m0s"},
		{"detect: {kind: k, memory: ''}", "detect.memory: empty, want at least 16MiB"},
		{"detect: {kind: k, batch: 0}", "detect.batch: given, but a lane of detect gets one image at a time"},
		{
			"detect: {kind: k}, classify: {kind: k, batch: 0}",
			"classify.batch: 0, want 1 to 8, which is crops_per_message",
		},
		{"detect: {kind: ''}", "detect.kind: empty, want a kind, such as model"},
		{"detect: {kind: '', lane: [x]}", "detect: want either kind or lane"},
		{"detect: {kind: codes, lane: []}", "detect: want either kind or lane"},
		{"detect: {lane: []}", "detect.lane: empty, want a program and its arguments"},
		{"detect: {lane: ['', x]}", "detect.lane: empty, want a program and its arguments"},
		{"detect: {kind: k}, classify: {by_label: {}}", "classify.by_label: empty, want 1 to 256 labels"},
		{
			"detect: {kind: k}, classify: {by_label: {a: {kind: ''}}}",
			"classify.by_label.a.kind: empty, want a kind, such as model",
		},

		{"max_region: 5, detect: {kind: k}", "max_region: no such field; known are " + fieldsOfPipeline},
		{"detect: {kind: k, treshold: 5}", "detect.treshold: no such field; known are " + fieldsOfStage},
		{
			"detect: {kind: k}, classify: {by_label: {a: {kind: k, batch: 5}}}",
			"classify.by_label.a.batch: no such field; known are kind, settings",
		},

		{"detect: codes", `detect: "codes", want a mapping, such as {kind: model}`},
		{
			"detect: {lane: python3 a.py}",
			`detect.lane: "python3 a.py", want a list, such as [python3, program.py]`,
		},
		{"detect: {lane: [[python3, a.py]]}", "detect.lane: a list, want a string"},
		{"detect: {kind: codes, settings: 5}", "detect.settings: 5, want a mapping, such as {model: yunet}"},
		{"detect: {kind: codes, settings: [a]}", "detect.settings: a list, want a mapping, such as {model: yunet}"},
		{"detect: {kind: {model: yunet}}", "detect.kind: a mapping, want a string"},
		{
			"detect: {kind: k}, classify: {by_label: [person]}",
			"classify.by_label: a list, want a mapping, such as {person: {kind: model}}",
		},
		{
			"detect: {kind: k}, classify: {by_label: {person: model}}",
			`classify.by_label.person: "model", want a mapping, such as {kind: model}`,
		},
		{"detect: {kind: k}, classify: {by_label: {a: {kind: []}}}", "classify.by_label.a.kind: a list, want a string"},

		{"text: true, text: true, detect: {kind: k}", "text: given twice, first in line 1"},
		{"detect: {kind: k}, detect: {kind: k}", "detect: given twice, first in line 1"},
		{"detect: {kind: k, kind: k}", "detect.kind: given twice, first in line 1"},
		{
			"detect: {kind: k, settings: {a: [{b: 1, b: 2}]}}",
			"detect.settings.a.b: given twice, first in line 1",
		},
		{
			"detect: &d {kind: k, settings: &s {a: 1.5}}, classify: {<<: *d, timeout: 0s, settings: {<<: *s}}",
			"classify.timeout: 0s, want 10ms to 24h0m0s",
		},
		{"detect: &d {kind: k, timeout: 0s}, classify: *d", "detect.timeout: 0s, want 10ms to 24h0m0s\n" +
			`line 1: pipeline "p": classify.timeout: 0s, want 10ms to 24h0m0s`},
		{"max_regions: &n x, crops_per_message: *n, detect: {kind: k}", `max_regions: "x", want a whole number` +
			"\n" + `line 1: pipeline "p": crops_per_message: "x", want a whole number`},
		{"detect: &d codes, classify: *d", `detect: "codes", want a mapping, such as {kind: model}` +
			"\n" + `line 1: pipeline "p": classify: "codes", want a mapping, such as {kind: model}`},
		{"detect: &d {kind: k, <<: *d}", "yaml: anchor 'd' value contains itself"},
		{
			"detect: &d {kind: k, settings: {a: {<<: *d}}, settings: {}}",
			"detect.settings: given twice, first in line 1",
		},
	} {
		want := `line 1: pipeline "p": ` + tt.want
		_, err := Parse(strings.NewReader("pipelines: [{name: p, " + tt.fields + "}]"))
		if err == nil || err.Error() != want {
			t.Errorf("%s: got\n%v\nwant\n%s", tt.fields, err, want)
		}
	}
}

// TestParse_WrongFiles: the errors of a file as a whole.
func TestParse_WrongFiles(t *testing.T) {
	t.Parallel()
	const nameless = `pipeline "": name: want 1 to 32 of a-z, 0-9 and '-', a letter first`
	for _, tt := range []struct{ yaml, want string }{
		{"", "the file is empty, want pipelines"},
		{"# pipelines:\n", "the file is empty, want pipelines"},
		{"---\n", "the file is empty, want pipelines"},
		{"pipelines:\n", "line 1: pipelines: 0, want 1 to 64"},
		{"# pipelines\npipelines: []", "line 2: pipelines: 0, want 1 to 64"},
		{"pipeline:\n- name: p\n", "line 1: pipeline: no such field; known are pipelines"},
		{"text", `line 1: "text", want a mapping with the field pipelines`},
		{
			"# pipelines\npipelines:\n  p:\n    detect: {kind: k}\n",
			`line 2: pipelines: a mapping, want a list of pipelines, such as "- name: codes"`,
		},
		{
			"pipelines: [{name: p, detect: {kind: k}}]\npipelines: []",
			"line 2: pipelines: given twice, first in line 1",
		},
		{
			"pipelines:\n- codes\n",
			`line 2: pipeline "": "codes", want a mapping, such as {name: codes, detect: {kind: codes}}`,
		},
		{
			"pipelines:\n- detect: {kind: k}\n- detect: {kind: k}\n",
			"line 2: " + nameless + "\nline 3: " + nameless,
		},
		{
			"pipelines:\n- name: p\n  detect:\n    kind: k\n    settings:\n    - model: m\n",
			`line 5: pipeline "p": detect.settings: a list, want a mapping, such as {model: yunet}`,
		},
		{
			"pipelines:\n- name: p\n  detect:\n    kind: k\n  text: true\n  detect:\n    lane: [x]\n",
			`line 6: pipeline "p": detect: given twice, first in line 3`,
		},
		{
			"pipelines:\n- name: p\n  detect:\n    kind: k\n\t  timeout: 5s\n",
			"line 5: a tab in the indentation, want spaces",
		},
		{"pipelines:\n- name: p\n  detect:\n\t  kind: k\n", "line 4: a tab in the indentation, want spaces"},
		{
			"{\n\t\"pipelines\": [\n\t\t{\"name\": \"p\"},\n\n{\"detect\": @}\n]}",
			"parse: yaml: line 5: found character that cannot start any token",
		},
		{
			"pipelines:\n- name: p\n  detect: {kind: k, settings: &s {? [x] : *s}}\n",
			`line 3: pipeline "p": detect.settings: a list as the name of a field, want a string`,
		},
		{
			"pipelines:\n- name: p\n  detect: {kind: k, settings: &s {<<: {a: 1}, <<: {b: 2}, x: *s}}\n",
			`line 3: pipeline "p": detect.settings.<<: given twice, first in line 3`,
		},
		{"pipelines:\n- name: @\n", "parse: yaml: line 2: found character that cannot start any token"},
		{"pipelines: [{name: p, detect: {kind: k}}]\n---\n}", "parse: yaml: line 2: did not find expected node content"},
	} {
		if _, err := Parse(strings.NewReader(tt.yaml)); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got\n%v\nwant\n%s", tt.yaml, err, tt.want)
		}
	}
}

// TestParse_FieldsWithoutValue: a field without a value has its default.
func TestParse_FieldsWithoutValue(t *testing.T) {
	t.Parallel()
	got, err := Parse(strings.NewReader("pipelines: [{name: p, deadline: , max_regions: , priority: , classify: , " +
		"detect: {kind: k, lane: , timeout: , memory: , batch: , settings: }}]"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse(strings.NewReader("pipelines: [{name: p, detect: {kind: k}}]"))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestParse_LabelsWithDots: a label can begin with another label.
func TestParse_LabelsWithDots(t *testing.T) {
	t.Parallel()
	for _, labels := range []string{
		"a: {kind: k}, a.b: {kind: k}, a.kind: {kind: k}", "a.kind: {kind: k}, a.b: {kind: k}, a: {kind: k}",
	} {
		got, err := Parse(strings.NewReader("pipelines: [{name: p, detect: {kind: k}, " +
			"classify: {by_label: {" + labels + "}}}]"))
		if err != nil {
			t.Errorf("%s: %v", labels, err)
			continue
		}
		if n := len(got[0].Classify.ByLabel); n != 3 {
			t.Errorf("%s: %d labels, want 3", labels, n)
		}
	}
}

// TestParse_AcceptsWholeNumbersAndEmptyEntries: both were accepted by earlier versions.
func TestParse_AcceptsWholeNumbersAndEmptyEntries(t *testing.T) {
	t.Parallel()
	got, err := Parse(strings.NewReader("pipelines:\n-\n- {name: p, max_regions: 5.0, detect: {kind: k}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 {
		t.Fatalf("%d pipelines, want 1", len(got))
	}
	if got[0].MaxRegions != 5 {
		t.Errorf("max_regions is %d, want 5", got[0].MaxRegions)
	}
}

// TestParse_ManyAliases: aliases that package yaml rejects take no long time.
func TestParse_ManyAliases(t *testing.T) {
	t.Parallel()
	var bomb strings.Builder
	bomb.WriteString("pipelines: [{name: p, detect: {kind: k, settings: {a0: &a0 {x: 1}")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&bomb, ", a%d: &a%d {l: *a%d, r: *a%d}", i, i, i-1, i-1)
	}
	bomb.WriteString("}}}]")
	if _, err := Parse(strings.NewReader(bomb.String())); err == nil {
		t.Error("the file is accepted")
	}
}

// TestParse_MergedFields: a mapping can have fields of another one, and replace some.
func TestParse_MergedFields(t *testing.T) {
	t.Parallel()
	ps, err := Parse(strings.NewReader(`pipelines:
  - &a
    name: a
    max_regions: 7
    detect: &d {kind: k, timeout: 1s}
    classify: *d
  - <<: *a
    name: b
    detect:
      <<: [*d, {memory: 2GiB}]
      timeout: 2s
`))
	if err != nil {
		t.Fatal(err)
	}
	a := Stage{Kind: "k", Timeout: time.Second}
	want := ps[0]
	want.Name, want.MaxRegions, want.Classify = "b", 7, &a
	want.Detect = Stage{Kind: "k", Timeout: 2 * time.Second, Memory: "2GiB"}
	if !reflect.DeepEqual(ps[1], want) {
		t.Errorf("got %+v, want %+v", ps[1], want)
	}
}

// TestParse_AllErrorsWithTheirLines: one call returns all errors, ordered by line.
func TestParse_AllErrorsWithTheirLines(t *testing.T) {
	t.Parallel()
	_, err := Parse(strings.NewReader(`pipelines:
  - name: objects
    deadline: soon
    detcet:
      kind: model
    detect:
      kind: model
      timeout: 1ns
      memory: [2]
    classify:
      by_label:
        traffic.light:
          kindd: x
        car: {kind: model, settings: {model: 7}}
  - name: Objects
    priority: urgent
    detect: {kind: x}
`))
	want := `line 3: pipeline "objects": deadline: "soon", want a duration with a unit, such as 5s
line 4: pipeline "objects": detcet: no such field; known are name, description, deadline, bulk_deadline, ` +
		`max_regions, crops_per_message, priority, scale_from_zero, text, detect, classify
line 8: pipeline "objects": detect.timeout: 1ns, want 10ms to 24h0m0s
line 9: pipeline "objects": detect.memory: a list, want a string
line 12: pipeline "objects": classify.by_label.traffic.light: want a kind
line 13: pipeline "objects": classify.by_label.traffic.light.kindd: no such field; known are kind, settings
line 15: pipeline "Objects": name: want 1 to 32 of a-z, 0-9 and '-', a letter first
line 16: pipeline "Objects": priority: "urgent", want interactive or bulk`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// TestPipeline_DetectRequest: only the crops that have a classifier are requested.
func TestPipeline_DetectRequest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		classify string
		want     lane.Detect
	}{
		"no classifier": {"", lane.Detect{}},
		"one for all":   {", classify: {kind: k}", lane.Detect{Crops: true}},
		"a lane":        {", classify: {lane: [x]}", lane.Detect{Crops: true}},
		"some by labels": {
			", classify: {by_label: {person: {kind: a}, car: {kind: b}}}",
			lane.Detect{Crops: true, CropLabels: []string{"car", "person"}},
		},
	} {
		text := "pipelines: [{name: p, max_regions: 7, detect: {kind: k}" + tt.classify + "}]"
		ps, err := Parse(strings.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tt.want.Pipeline, tt.want.MaxRegions, tt.want.MediaType = "p", 7, "image/png"
		if got := ps[0].DetectRequest("image/png"); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestStage_SetupWithoutSettings(t *testing.T) {
	t.Parallel()
	got, err := Stage{Lane: []string{"program"}}.Setup()
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Settings) != "{}" {
		t.Errorf("the settings are %s, want {}", got.Settings)
	}
}

func TestStage_SetupByLabel(t *testing.T) {
	t.Parallel()
	ps, err := Parse(strings.NewReader(`
pipelines:
  - name: p
    detect: {kind: k}
    classify:
      batch: 8
      by_label: {person: {kind: face-attributes}, car: {kind: model, settings: {model: plates}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ps[0].Classify.Setup()
	if err != nil {
		t.Fatal(err)
	}
	if got.Kind != "" {
		t.Errorf("the kind is %q, want none, because the labels have kinds", got.Kind)
	}
	if got.Batch != 8 {
		t.Errorf("the batch is %d, want 8", got.Batch)
	}
	if s := got.ByLabel["person"]; s.Kind != "face-attributes" {
		t.Errorf("person: %+v", s)
	}
	car := got.ByLabel["car"]
	if car.Kind != "model" {
		t.Errorf("the kind of car is %q, want model", car.Kind)
	}
	if string(car.Settings) != `{"model":"plates"}` {
		t.Errorf("the settings of car are %s", car.Settings)
	}
}

func TestPipeline_Priority(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]subject.Priority{
		"": subject.Interactive, "priority: interactive, ": subject.Interactive, "priority: bulk, ": subject.Bulk,
	} {
		ps, err := Parse(strings.NewReader("pipelines: [{name: p, " + text + "detect: {kind: k}}]"))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if got := ps[0].Priority; got != want {
			t.Errorf("%q: the priority is %q, want %q", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(builtIn))
	f.Add("pipelines: [&p {name: p, name: q, detect: &d {kind: k, settings: &s {a: {<<: *s}}}, classify: {<<: [*d]}}, *p]")
	f.Add("pipelines: [{name: p, detect: {kind: k, settings: &s {? [x] : *s, <<: {a: 1}, <<: {b: 2}, x: *s}}}]")
	f.Fuzz(func(t *testing.T, s string) {
		ps, err := Parse(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, p := range ps {
			if !subject.ValidPipeline(p.Name) {
				t.Errorf("the name %q is accepted", p.Name)
			}
			if p.Deadline < time.Second {
				t.Errorf("the deadline %v is accepted", p.Deadline)
			}
			if p.MaxRegions < 1 {
				t.Errorf("the max_regions %d is accepted", p.MaxRegions)
			}
			if p.Detect.Timeout <= 0 {
				t.Errorf("the timeout %v is accepted", p.Detect.Timeout)
			}
		}
	})
}
