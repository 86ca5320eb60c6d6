package subject_test

import (
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/subject"
)

// family is a kind of subjects: their builder, their parser, and the wildcard of
// their stream.
type family struct {
	name  string
	build func(subject.Job) string
	parse func(string) (subject.Job, error)
	all   string
}

func families() []family {
	return []family{
		{"images", subject.Images, subject.ParseImages, subject.AllImages()},
		{"crops", subject.Crops, subject.ParseCrops, subject.AllCrops()},
		{"parts", subject.Parts, subject.ParseParts, subject.AllParts()},
		{"results", func(j subject.Job) string { return subject.Results(j.Pipeline, j.ID) },
			subject.ParseResults, subject.AllResults()},
	}
}

func TestParse_ReturnsTheJobOfABuiltSubject(t *testing.T) {
	t.Parallel()
	id := "01JCZ0V9T4ZQ5W8Y3N7K2M6R1B"
	for _, tc := range []struct {
		family string
		job    subject.Job
		want   string
	}{
		{"images", subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: id},
			"sight.v1.images.text.interactive." + id},
		{"images", subject.Job{Pipeline: "a-1", Priority: subject.Bulk, ID: "_-x"}, "sight.v1.images.a-1.bulk._-x"},
		{"crops", subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: id, Part: 0},
			"sight.v1.crops.text.bulk." + id + ".0"},
		{"crops", subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: id, Part: 12},
			"sight.v1.crops.text.interactive." + id + ".12"},
		{"parts", subject.Job{Pipeline: "faces", ID: id, Part: 3}, "sight.v1.parts.faces." + id + ".3"},
		{"results", subject.Job{Pipeline: "faces", ID: id}, "sight.v1.results.faces." + id},
	} {
		for _, f := range families() {
			if f.name != tc.family {
				continue
			}
			if got := f.build(tc.job); got != tc.want {
				t.Errorf("%s of %+v = %q, want %q", f.name, tc.job, got, tc.want)
			}
			got, err := f.parse(tc.want)
			if err != nil {
				t.Errorf("parse %q: %v", tc.want, err)
			}
			if got != tc.job {
				t.Errorf("%q is parsed as %+v, want %+v", tc.want, got, tc.job)
			}
		}
	}
}

func TestParse_RejectsInvalidSubjects(t *testing.T) {
	t.Parallel()
	parsers := map[string]func(string) (subject.Job, error){}
	for _, f := range families() {
		parsers[f.name] = f.parse
	}
	for _, tc := range []struct{ family, subject, why string }{
		{"images", "", "empty"},
		{"images", "sight.v2.images.text.bulk.j", "another version"},
		{"images", "sight.v1.crops.text.bulk.j", "another family"},
		{"images", "sight.v1.images.text.bulk", "a token too few"},
		{"images", "sight.v1.images.text.bulk.j.0", "a token too many"},
		{"images", "sight.v1.images..bulk.j", "an empty token"},
		{"images", "sight.v1.images.Text.bulk.j", "a pipeline with a capital letter"},
		{"images", "sight.v1.images.1text.bulk.j", "a pipeline with a digit first"},
		{"images", "sight.v1.images." + strings.Repeat("a", 33) + ".bulk.j", "a long pipeline"},
		{"images", "sight.v1.images.*.bulk.j", "a wildcard as pipeline"},
		{"images", "sight.v1.images.text.*.j", "a wildcard as priority"},
		{"images", "sight.v1.images.text.bulk.*", "a wildcard as job"},
		{"images", "sight.v1.images.text.bulk.>", "a full wildcard"},
		{"images", "sight.v1.images.text.urgent.j", "an unknown priority"},
		{"images", "sight.v1.images.text.bulk." + strings.Repeat("j", 65), "a long job"},
		{"images", "sight.v1.images.text.bulk.j\n", "a line end"},
		{"images", "sight.v1.images.text.bulk.jö", "a letter outside ASCII"},
		{"crops", "sight.v1.crops.text.bulk.j.-1", "a negative part"},
		{"crops", "sight.v1.crops.text.bulk.j.01", "a part with a leading zero"},
		{"crops", "sight.v1.crops.text.bulk.j.+1", "a part with a sign"},
		{"crops", "sight.v1.crops.text.bulk.j.x", "a part that is not a number"},
		{"crops", "sight.v1.crops.text.bulk.j.99999999999999999999", "a part out of range"},
		{"parts", "sight.v1.parts.text.bulk.j.0", "a priority"},
		{"results", "sight.v1.results.text.j.k", "a job with a dot"},
	} {
		got, err := parsers[tc.family](tc.subject)
		if err == nil {
			t.Errorf("%s: %q is parsed as %+v, want an error", tc.why, tc.subject, got)
		} else if got != (subject.Job{}) {
			t.Errorf("%s: %q is parsed as %+v with an error, want no job", tc.why, tc.subject, got)
		}
	}
}

func TestParse_Requests(t *testing.T) {
	t.Parallel()
	pipeline, err := subject.ParseAnalyze(subject.Analyze("faces"))
	if err != nil {
		t.Errorf("ParseAnalyze: %v", err)
	}
	if pipeline != "faces" {
		t.Errorf("ParseAnalyze returns %q, want faces", pipeline)
	}
	job, err := subject.ParseLookup(subject.Lookup("j-1"))
	if err != nil {
		t.Errorf("ParseLookup: %v", err)
	}
	if job != "j-1" {
		t.Errorf("ParseLookup returns %q, want j-1", job)
	}
	for _, s := range []string{"sight.v1.analyze", "sight.v1.analyze.a.b", "sight.v1.lookup.j"} {
		if got, err := subject.ParseAnalyze(s); err == nil {
			t.Errorf("ParseAnalyze(%q) = %q, want an error", s, got)
		}
	}
	for _, s := range []string{"sight.v1.lookup.", "sight.v1.lookup.*", "sight.v1.lookup.a.b"} {
		if got, err := subject.ParseLookup(s); err == nil {
			t.Errorf("ParseLookup(%q) = %q, want an error", s, got)
		}
	}
	part := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "j", Part: 2}
	for got, want := range map[string]string{
		subject.Status("detect"):                          "sight.v1.status.detect",
		subject.Cancel("j"):                               "sight.v1.cancel.j",
		subject.Quarantine(subject.Classify, "text", "j"): "sight.v1.quarantine.classify.text.j",
		subject.ImagesOf("text", subject.Bulk):            "sight.v1.images.text.bulk.*",
		subject.CropsOf("text", subject.Interactive):      "sight.v1.crops.text.interactive.*.*",
		subject.AllQuarantine():                           "sight.v1.quarantine.>",
		subject.Attempts(subject.Classify, part):          "sight.v1.jobs.attempts.classify.text.j.2",
		string(subject.Priorities()[0]):                   "interactive",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestWildcards_MatchTheirFamily: the wildcard of a family, and that of a pipeline and
// priority, match its subjects and no other.
func TestWildcards_MatchTheirFamily(t *testing.T) {
	t.Parallel()
	job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "j", Part: 1}
	for _, built := range families() {
		for _, f := range families() {
			if got, want := matches(f.all, built.build(job)), f.name == built.name; got != want {
				t.Errorf("%q matches %q: %v, want %v", f.all, built.build(job), got, want)
			}
		}
	}
	for _, p := range []string{"text", "faces"} {
		for _, prio := range subject.Priorities() {
			want := p == job.Pipeline && prio == job.Priority
			if got := matches(subject.ImagesOf(p, prio), subject.Images(job)); got != want {
				t.Errorf("ImagesOf(%s, %s) matches: %v, want %v", p, prio, got, want)
			}
			if got := matches(subject.CropsOf(p, prio), subject.Crops(job)); got != want {
				t.Errorf("CropsOf(%s, %s) matches: %v, want %v", p, prio, got, want)
			}
		}
	}
}

// matches reports whether a subject matches a pattern of NATS: * stands for one token,
// > for one or more at the end.
func matches(pattern, s string) bool {
	p, t := strings.Split(pattern, "."), strings.Split(s, ".")
	for i, token := range p {
		if token == ">" {
			return len(t) > i
		}
		if i >= len(t) || (token != "*" && token != t[i]) {
			return false
		}
	}
	return len(p) == len(t)
}

// FuzzParse checks that the builder returns each subject that a parser accepts, and
// that it is possible to publish to the subject.
func FuzzParse(f *testing.F) {
	for _, fam := range families() {
		f.Add(fam.build(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "01J", Part: 7}))
		f.Add(fam.all)
	}
	f.Add("sight.v1.crops.a.bulk.b.-0")
	f.Add("sight.v1.images.a.bulk.\x00")
	f.Fuzz(func(t *testing.T, s string) {
		for _, fam := range families() {
			job, err := fam.parse(s)
			if err != nil {
				continue
			}
			if got := fam.build(job); got != s {
				t.Errorf("%s accepts %q, which it builds as %q", fam.name, s, got)
			}
			if strings.ContainsAny(s, "*> \t\r\n\x00") || strings.Contains(s, "..") {
				t.Errorf("%s accepts %q, which is not a subject to publish to", fam.name, s)
			}
		}
	})
}

// FuzzBuild checks that a parser returns each job that the validators accept.
func FuzzBuild(f *testing.F) {
	f.Add("text", "interactive", "01J", 0)
	f.Add("a-b", "bulk", "_", 123456)
	f.Add("a.b", "bulk", "*", -1)
	f.Fuzz(func(t *testing.T, pipeline, priority, id string, part int) {
		job := subject.Job{Pipeline: pipeline, Priority: subject.Priority(priority), ID: id, Part: part}
		valid := subject.ValidPipeline(pipeline) && job.Priority.Valid() && subject.ValidJob(id) && part >= 0
		got, err := subject.ParseCrops(subject.Crops(job))
		switch {
		case valid && err != nil:
			t.Errorf("the subject of %+v is rejected: %v", job, err)
		case valid && got != job:
			t.Errorf("the subject of %+v is parsed as %+v", job, got)
		case !valid && err == nil:
			t.Errorf("%+v is not valid, and ParseCrops accepts its subject %q", job, subject.Crops(job))
		}
	})
}

func BenchmarkParseCrops(b *testing.B) {
	const id = "01JCZ0V9T4ZQ5W8Y3N7K2M6R1B"
	s := subject.Crops(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: id, Part: 3})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := subject.ParseCrops(s); err != nil {
			b.Fatal(err)
		}
	}
}

func TestParseReportOutcome(t *testing.T) {
	t.Parallel()
	report, status, n, err := subject.ParseReportOutcome(subject.ReportOutcome("R1", "done", 12))
	if err != nil {
		t.Fatal(err)
	}
	if report != "R1" {
		t.Errorf("the report is %s, want R1", report)
	}
	if status != "done" {
		t.Errorf("the status is %s, want done", status)
	}
	if n != 12 {
		t.Errorf("the image is %d, want 12", n)
	}
	for _, s := range []string{
		subject.Report("R1"), subject.ReportFinished("R1"), "sight.v1.reports.R1.done.x", "sight.v1.reports.R1.done.-1",
		"sight.v1.results.text.j.1",
	} {
		if _, _, _, err := subject.ParseReportOutcome(s); err == nil {
			t.Errorf("%s: no error", s)
		}
	}
}
