package contracts

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/lane"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// golden gives the type of each golden message by the beginning of its name.
var golden = map[string]func() any{
	"result": func() any { return new(v1.Result) }, "crops": func() any { return new(v1.Crops) },
	"part": func() any { return new(v1.Part) }, "problem": func() any { return new(v1.Problem) },
	"worker-status": func() any { return new(v1.WorkerStatus) }, "pipelines": func() any { return new(v1.Pipelines) },
	"event": func() any { return new(v1.Event) }, "cancellation": func() any { return new(v1.Cancellation) },
	"callback": func() any { return new(v1.Callback) }, "callback-body": func() any { return new(v1.CallbackBody) },
	"manifest": func() any { return new(v1.Manifest) }, "fetch": func() any { return new(v1.Fetch) },
	"report":         func() any { return new(v1.Report) },
	"stream-control": func() any { return new(v1.StreamControl) }, "stream-answer": func() any { return new(v1.StreamAnswer) },
	"stream-end": func() any { return new(v1.StreamEnd) },
	"lane-start": func() any { return new(lane.Start) }, "lane-ready": func() any { return new(lane.Ready) },
	"lane-detect": func() any { return new(lane.Detect) }, "lane-detected": func() any { return new(lane.Detected) },
	"lane-classify": func() any { return new(lane.Classify) }, "lane-classified": func() any { return new(lane.Classified) },
	"lane-failed": func() any { return new(lane.Failed) },
}

func goldenFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/v1/*.json")
	if err != nil || len(files) < len(golden) {
		t.Fatalf("%d golden messages, %v", len(files), err)
	}
	return files
}

// TestGoldenMessages decodes what earlier versions have written, and writes
// the same again: no field is lost, renamed or of another type.
func TestGoldenMessages(t *testing.T) {
	t.Parallel()
	for _, f := range goldenFiles(t) {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		make, ok := golden[name]
		if !ok {
			make, ok = golden[name[:strings.LastIndex(name, "-")]]
		}
		if !ok {
			t.Errorf("%s: no type for it", f)
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		v := make()
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if err := d.Decode(v); err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(again, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: written again it is\n%s", f, again)
		}
	}
}

// TestGoldenMessagesAreNotEdited: they are only added to, with their sum.
func TestGoldenMessagesAreNotEdited(t *testing.T) {
	t.Parallel()
	f, err := os.Open("testdata/v1/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sums := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		sum, name, _ := strings.Cut(s.Text(), "  ")
		sums[name] = sum
	}
	for _, f := range goldenFiles(t) {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		if got := hex.EncodeToString(sum[:]); got != sums[filepath.Base(f)] {
			t.Errorf("%s was edited, or its sum is not in SHA256SUMS: %s", f, got)
		}
		delete(sums, filepath.Base(f))
	}
	for name := range sums {
		t.Errorf("golden message %s is gone", name)
	}
}

// TestEveryProblemIsExplained holds docs/problems.md, to which the type of
// every problem leads, against the codes.
func TestEveryProblemIsExplained(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[v1.Code]bool{}
	for line := range strings.Lines(string(doc)) {
		if code, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			explained[v1.Code(code)] = true
		}
	}
	for _, c := range v1.Codes() {
		if !explained[c] {
			t.Errorf("docs/problems.md has no section %s", c)
		}
		delete(explained, c)
		if p := v1.NewProblem(c, "x"); p.Status < 400 || p.Title == "" || p.Code != c || !strings.HasSuffix(p.Type, "#"+string(c)) {
			t.Errorf("%s: %+v", c, p)
		}
	}
	for c := range explained {
		t.Errorf("docs/problems.md explains %s, which is no code", c)
	}
}
