package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/lane/pipeline"
)

// checkPipelines runs `sightmesh pipelines check` on a file with this content, and checks the exit
// status. It returns the lines of the standard output by the name of the pipeline.
func checkPipelines(t *testing.T, code int, content string, args ...string) (lines map[string]string, stderr string) {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"pipelines.yaml": content})
	stdout, stderr, got := sightmesh(t, nil,
		append([]string{"pipelines", "check", filepath.Join(dir, "pipelines.yaml")}, args...)...)
	if got != code {
		t.Fatalf("pipelines check %q: exit status %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	lines = map[string]string{}
	for line := range strings.Lines(stdout) {
		lines[strings.Fields(line)[0]] = line
	}
	return lines, stderr
}

// checkLines checks that each line matches the pattern with the same name.
func checkLines(t *testing.T, lines, want map[string]string) {
	t.Helper()
	for name, pattern := range want {
		if !regexp.MustCompile(pattern).MatchString(lines[name]) {
			t.Errorf("the line of %s is %q, want %q", name, lines[name], pattern)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("%d lines, want %d: %q", len(lines), len(want), lines)
	}
}

// header is the pattern of the first line.
const header = `^PIPELINE +STATE +REGIONS +TIME +MODELS OR REASON\n$`

// TestPipelinesCheck_RunsAnImage checks that every pipeline processes the sample page, also
// pipelines with a classifier for each label. Pipelines without models are ready.
func TestPipelinesCheck_RunsAnImage(t *testing.T) {
	t.Parallel()
	lines, _ := checkPipelines(t, 0, `
pipelines:
  - {name: lines, detect: {kind: text-lines}}
  - {name: text, detect: {kind: text-lines}, classify: {kind: tesseract}}
  - name: labels
    detect: {kind: text-lines}
    classify: {by_label: {text: {kind: tesseract}, face: {kind: face-attributes}}}
  - name: others
    detect: {kind: text-lines}
    classify: {by_label: {face: {kind: face-attributes}}}
`, "--models", t.TempDir())
	checkLines(t, lines, map[string]string{
		"PIPELINE": header,
		"lines":    `^lines +ready +6 +\d+ ms +text-lines 1\n$`,
		"text":     `^text +ready +[4-6] +\d+ ms +text-lines 1, tesseract-eng \S+\n$`,
		"labels":   `^labels +ready +[4-6] +\d+ ms +text-lines 1, haarcascade_eye .*tesseract-eng \S+\n$`,
		"others":   `^others +ready +6 +\d+ ms +text-lines 1, haarcascade_eye \S+`,
	})
}

// TestPipelinesCheck_AnImage processes the image of the flag --image.
func TestPipelinesCheck_AnImage(t *testing.T) {
	t.Parallel()
	models, dir := t.TempDir(), t.TempDir()
	writeFiles(t, filepath.Join(models, "rows"), rowsModel)
	writeFiles(t, dir, map[string]string{"box.png": string(boxImage(t))})
	lines, _ := checkPipelines(t, 0, "pipelines: [{name: rows, detect: {kind: model, settings: {model: rows}}}]",
		"--models", models, "--image", filepath.Join(dir, "box.png"))
	checkLines(t, lines, map[string]string{"PIPELINE": header, "rows": `^rows +ready +1 +\d+ ms +rows 1\.2\n$`})
}

// TestPipelinesCheck_Reason checks that each unusable pipeline has a reason and does not
// affect other pipelines, also when its program ends or needs too much memory.
func TestPipelinesCheck_Reason(t *testing.T) {
	t.Parallel()
	models := t.TempDir()
	writeFiles(t, filepath.Join(models, "rows"), rowsModel)
	colour := filepath.Join(root(t), "docs/lanes/colour.py")
	lines, stderr := checkPipelines(t, 1, fmt.Sprintf(`
pipelines:
  - {name: fine, detect: {kind: text-lines}}
  - {name: kind, detect: {kind: oracle}}
  - {name: settings, detect: {kind: text-lines, settings: {long: 2}}}
  - name: label
    detect: {kind: text-lines}
    classify: {by_label: {text: {kind: tesseract}, car: {kind: model, settings: {model: plates}}}}
  - {name: model, detect: {kind: model, settings: {model: nosuch}}}
  - {name: dies, detect: {lane: [sh, -c, echo out of luck; exit 7]}}
  - {name: nowhere, detect: {lane: [/no/such/program]}}
  - {name: small, detect: {kind: text-lines, memory: 16MiB}}
  - {name: image, detect: {lane: [python3, %s]}}
`, colour), "--models", models, "--timeout", "1m")
	checkLines(t, lines, map[string]string{
		"PIPELINE": header,
		"fine":     `^fine +ready +6 `,
		"kind":     `^kind +not ready +detect: detect has no kind "oracle", want one of cascade, codes, model, text-lines\n$`,
		"settings": `^settings +not ready +detect: settings\.long: no such setting; known are long_side\n$`,
		"label":    `^label +not ready +classify: by_label\.car: load model plates: ` + models + `/plates: `,
		"model":    `^model +not ready +detect: load model nosuch: ` + models + `/nosuch: the folder does not exist`,
		"dies":     `^dies +not ready +detect: .*exit status 7, last output: out of luck`,
		"nowhere":  `^nowhere +not ready +detect: .*/no/such/program`,
		"small":    `^small +not ready +detect: .*more than the 16777216 that detect\.memory of pipeline small allows`,
		"image":    `^image +failed +damaged: not a BMP file\n$`,
	})
	if want := "8 of 9 pipelines failed"; !strings.Contains(stderr, want) {
		t.Errorf("standard error is %q, want %q in it", stderr, want)
	}
}

// TestPipelinesCheck_LaneThatHangs checks that a lane program that does not start within
// --timeout does not affect another pipeline.
func TestPipelinesCheck_LaneThatHangs(t *testing.T) {
	t.Parallel()
	lines, _ := checkPipelines(t, 1, `
pipelines:
  - {name: fine, detect: {kind: text-lines}}
  - {name: hangs, detect: {lane: [sleep, "600"]}}
`, "--timeout", "15s")
	checkLines(t, lines, map[string]string{
		"PIPELINE": header,
		"fine":     `^fine +ready +6 `,
		"hangs":    `^hangs +not ready +detect: .*timeout after 15s`,
	})
}

// TestPipelinesCheck_HostileModels checks that each hostile model has a reason, and that the
// other pipelines are ready.
func TestPipelinesCheck_HostileModels(t *testing.T) {
	t.Parallel()
	models := t.TempDir()
	var file strings.Builder
	file.WriteString("pipelines:\n  - {name: fine, detect: {kind: text-lines}}\n")
	want := map[string]string{"PIPELINE": header, "fine": `^fine +ready`}
	for name, reasons := range hostileModels {
		p := fmt.Sprintf("m%d", len(want))
		hostileFolder(t, filepath.Join(models, p), name, "opencv")
		fmt.Fprintf(&file, "  - {name: %s, detect: {kind: model, settings: {model: %s}}}\n", p, p)
		want[p] = `^` + p + ` +not ready +detect: .*` + regexp.QuoteMeta(reasons.opencv)
	}
	lines, _ := checkPipelines(t, 1, file.String(), "--models", models)
	checkLines(t, lines, want)
}

// TestPipelinesCheck_NamesLineAndField checks that every error of a file is reported with its
// line and field, before any lane starts.
func TestPipelinesCheck_NamesLineAndField(t *testing.T) {
	t.Parallel()
	lines, stderr := checkPipelines(t, 1, `pipelines:
  - name: objects
    detect:
      kind: model
      treshold: 0.5
    classify:
      by_label:
        person: {}
  - name: text
    max_regions: 100000
    detect: {kind: text-lines}
`)
	if len(lines) != 0 {
		t.Errorf("lanes were started: %q", lines)
	}
	for _, want := range []string{
		`line 5: pipeline "objects": detect.treshold: no such field; known are kind, lane, by_label, timeout, memory, batch`,
		`line 8: pipeline "objects": classify.by_label.person: want a kind`,
		`line 10: pipeline "text": max_regions: 100000, want 1 to 10000`,
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("standard error has no %q:\n%s", want, stderr)
		}
	}
}

func TestPipelinesCheck_WrongArguments(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pipelines.yaml")
	const content = "pipelines: [{name: p, detect: {kind: text-lines}}]"
	writeFiles(t, filepath.Dir(file), map[string]string{"pipelines.yaml": content})
	for name, args := range map[string][]string{
		"no file":        {"check"},
		"two files":      {"check", file, file},
		"empty name":     {"check", ""},
		"missing file":   {"check", file + ".no"},
		"no image":       {"check", file, "--image", file + ".png"},
		"unknown flag":   {"check", file, "--no-such-flag"},
		"no time":        {"check", file, "--timeout", "0s"},
		"little memory":  {"check", file, "--lane-memory", "1"},
		"no command":     {},
		"other command":  {"verify", file},
		"argument shown": {"show", file},
	} {
		if _, stderr, code := sightmesh(t, nil, append([]string{"pipelines"}, args...)...); code != 2 {
			t.Errorf("%s: exit status %d, want 2: %s", name, code, stderr)
		}
	}
}

// TestPipelinesShow checks that the printed file can be loaded.
func TestPipelinesShow(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := sightmesh(t, nil, "pipelines", "show")
	if code != 0 {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	file := filepath.Join(t.TempDir(), "pipelines.yaml")
	if err := os.WriteFile(file, []byte(stdout), 0o644); err != nil {
		t.Fatal(err)
	}
	ps, err := pipeline.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(ps) != len(pipeline.BuiltIn()) {
		t.Errorf("%d pipelines, want the %d that are built in", len(ps), len(pipeline.BuiltIn()))
	}
}
