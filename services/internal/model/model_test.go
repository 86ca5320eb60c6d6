package model

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// good is a valid model.yaml for the files that [folder] writes.
const good = `
version: "1"
kind: yolo
engines: [onnxruntime, opencv]
weights: net.onnx
labels: labels.txt
licence: Apache-2.0
source: https://example.org/net.onnx
input: {width: 416, height: 416, resize: letterbox, pad: 114, channels: bgr}
output: {format: yolox, strides: [8, 16, 32]}
threshold: 0.4
nms: 0.45
classes: 2
`

// writeFolder makes a model folder named "net" with the files of a valid model, and returns its
// path. files replaces their contents by name; the content "absent" leaves a file out.
func writeFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "net")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{File: good, "net.onnx": "weights", "labels.txt": "person\ndog\n"}
	maps.Copy(all, files)
	for name, content := range all {
		if content == "absent" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := writeFolder(t, nil)
	m, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "net" {
		t.Errorf("name %q, want that of the folder", m.Name)
	}
	if m.Kind != "yolo" {
		t.Errorf("kind %q, want yolo", m.Kind)
	}
	if want := (Output{Format: "yolox", Strides: []int{8, 16, 32}}); !reflect.DeepEqual(m.Output, want) {
		t.Errorf("output %+v, want %+v", m.Output, want)
	}
	if !slices.Equal(m.Engines, []Engine{ONNXRuntime, OpenCV}) {
		t.Errorf("engines %v, want the order of the file", m.Engines)
	}
	if !slices.Equal(m.ClassNames, []string{"person", "dog"}) {
		t.Errorf("classes %q", m.ClassNames)
	}
	weights, config, err := m.ReadWeights()
	if err != nil {
		t.Fatal(err)
	}
	if string(weights) != "weights" {
		t.Errorf("weights %q, want those of the file", weights)
	}
	if config != nil {
		t.Errorf("config %q, want none", config)
	}
}

// checkError checks that err contains each of want.
func checkError(t *testing.T, name string, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %q", name, want)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: the error is %q, want %q in it", name, err, w)
		}
	}
}

// TestLoad_RejectsFields checks that the error names the file and the field.
func TestLoad_RejectsFields(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ old, new, want string }{
		{"version: \"1\"", "", "version: missing"},
		{"version: \"1\"", "version: " + strings.Repeat("1", 65), "version: \"1111"},
		{"version: \"1\"", `version: "1\e[31m"`, `version: "1\x1b[31m"`},
		{"kind: yolo", "", "kind: missing"},
		{"kind: yolo", "kind: [yolo]", "cannot unmarshal"},
		{"kind: yolo", "kind: yolo\ncolour: red", "field colour not found"},
		{"pad: 114", "padding: 114", "field padding not found"},
		{"engines: [onnxruntime, opencv]", "engines: []", "engines: none"},
		{"engines: [onnxruntime, opencv]", "engines: [tensorflow]", `engines: "tensorflow"`},
		{"engines: [onnxruntime, opencv]", "engines: [opencv, opencv]", "engines: opencv is given twice"},
		{"weights: net.onnx", "weights: ''", `weights: ""`},
		{"weights: net.onnx", "weights: ../net.onnx", `weights: "../net.onnx"`},
		{"weights: net.onnx", "weights: /etc/passwd", `weights: "/etc/passwd"`},
		{"weights: net.onnx", "weights: .", `weights: "."`},
		{"labels: labels.txt", "labels: ../labels.txt", `labels: "../labels.txt"`},
		{"kind: yolo", "kind: yolo\nconfig: a/../../b", `config: "a/../../b"`},
		{"kind: yolo", "kind: yolo\ndictionary: /keys.txt", `dictionary: "/keys.txt"`},
		{"kind: yolo", "kind: yolo\nsha256: {other.onnx: " + strings.Repeat("0", 64) + "}", `sha256: "other.onnx"`},
		{"kind: yolo", "kind: yolo\nsha256: {net.onnx: 12ab}", `sha256: net.onnx: "12ab"`},
		{"resize: letterbox", "resize: shrink", "engines: opencv finds nothing in inputs of another size"},
		{"pad: 114", "multiple: 32", "input.multiple: not used with input.resize letterbox, which has a fixed size"},
		{"resize: letterbox, pad: 114", "resize: height, multiple: 500", "input.multiple: 500, want 1 to 416"},
		{"strides: [8, 16, 32]", "pixel: 2", "output.pixel: 2"},
		{"strides: [8, 16, 32]", "unclip: -1", "output.unclip: -1"},
		{"strides: [8, 16, 32]", "space: .nan", "output.space: NaN"},
		{"width: 416", "width: 0", "input.width: 0"},
		{"height: 416", "height: 100000", "input.height: 100000"},
		{"resize: letterbox", "resize: crop", `input.resize: "crop"`},
		{"pad: 114", "resizable: 2", "cannot unmarshal"},
		{"letterbox, pad: 114", "shrink, resizable: true", "input.resizable: not used with input.resize shrink"},
		{
			"[onnxruntime, opencv]\nweights: net.onnx\nlabels: labels.txt\nlicence: Apache-2.0\n" +
				"source: https://example.org/net.onnx\ninput: {",
			"[opencv]\nweights: net.onnx\nlabels: labels.txt\ninput: {resizable: true, ",
			"input.resizable: only onnxruntime needs it",
		},
		{"channels: bgr", "channels: cmyk", `input.channels: "cmyk"`},
		{"pad: 114", "pad: 300", "input.pad: 300"},
		{"pad: 114", "mean: [1, 2]", "input.mean: 2 numbers, want 3"},
		{"pad: 114", "mean: [.nan, 1, 2]", "input.mean: [NaN 1 2]"},
		{"pad: 114", "std: [1]", "input.std: 1 numbers, want 3"},
		{"pad: 114", "std: [1, 0, 1]", "input.std: [1 0 1]"},
		{"pad: 114", "scale: -1", "input.scale: -1"},
		{"pad: 114", "scale: 2, std: [1, 1, 1]", "input.scale: given together with std"},
		{"[8, 16, 32]", "[8, 0]", "output.strides: 0"},
		{"[8, 16, 32]", "[8], names: [a, a]", "output.names: a is given twice"},
		{"[8, 16, 32]", "[8], names: ['']", "output.names: an empty name"},
		{"[8, 16, 32]", "[8], priors: [[]]", "output.priors: []"},
		{"[8, 16, 32]", "[8], variances: [-1]", "output.variances: [-1]"},
		{"threshold: 0.4", "threshold: 40", "threshold: 40"},
		{"threshold: 0.4", "threshold: .nan", "threshold: NaN"},
		{"nms: 0.45", "nms: -0.1", "nms: -0.1"},
		{"classes: 2", "classes: -1", "classes: -1"},
		{"classes: 2", "classes: 3", "classes: 3, but labels.txt has 2 lines"},
		{"classes: 2", "", "classes: 0, but labels.txt has 2 lines"},
		{"classes: 2", "classes: 2\n---\nkind: other", "want one YAML document"},
	} {
		text := strings.Replace(good, tt.old, tt.new, 1)
		if text == good {
			t.Fatalf("%q is not in the file", tt.old)
		}
		dir := writeFolder(t, map[string]string{File: text})
		_, err := Load(dir)
		checkError(t, tt.new, err, tt.want, filepath.Join(dir, File))
	}
}

// TestModel_RequireFields checks that the error names the missing field. A network needs fields
// that a cascade does not.
func TestModel_RequireFields(t *testing.T) {
	t.Parallel()
	for field, line := range map[string]string{
		"engines": "engines: [onnxruntime, opencv]\n", "weights": "weights: net.onnx\n",
		"input": "input: {width: 416, height: 416, resize: letterbox, pad: 114, channels: bgr}\n", "": "",
	} {
		dir := writeFolder(t, map[string]string{File: strings.Replace(good, line, "", 1)})
		m, err := Load(dir)
		if err != nil {
			t.Errorf("without %s: %v", field, err)
			continue
		}
		err = m.RequireFields("engines", "weights", "input")
		if field != "" {
			checkError(t, "without "+field, err, filepath.Join(dir, File)+": "+field+": missing")
		} else if err != nil {
			t.Errorf("a complete model: %v", err)
		}
	}
}

// TestModel_CheckFields checks that the error names each field that a kind does not use.
func TestModel_CheckFields(t *testing.T) {
	t.Parallel()
	m, err := Load(writeFolder(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	used := []string{"labels", "threshold", "nms", "classes", "output.format", "output.strides"}
	if err := m.CheckNetwork(used...); err != nil {
		t.Errorf("all are used: %v", err)
	}
	err = m.CheckFields(append(used[1:5:5], "weights")...)
	if err == nil {
		t.Fatal("no error, although some fields are not used")
	}
	for _, unused := range []string{"engines", "input", "labels", "output.strides"} {
		checkError(t, unused, err, unused+": not used by yolo with output.format yolox")
	}
	if strings.Contains(err.Error(), "threshold") {
		t.Errorf("the error names a field that is used: %v", err)
	}
}

// TestLoad_RejectsFiles checks that the error names the path and the reason.
func TestLoad_RejectsFiles(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ file, content, want string }{
		"no model.yaml":    {File, "absent", "no such file"},
		"empty model.yaml": {File, "", "no bytes"},
		"HTML model.yaml":  {File, " <!DOCTYPE html><title>404</title>", "an HTML page"},
		"no YAML":          {File, "}", "did not find expected node content"},
		"huge model.yaml":  {File, strings.Repeat("#", maxDescription+1), "want at most"},
		"no labels":        {"labels.txt", "absent", "labels: "},
		"LFS labels":       {"labels.txt", "version https://git-lfs.github.com/spec/v1\noid x\n", "a Git LFS pointer"},
		"empty label":      {"labels.txt", "person\n\n", "line 2 is empty"},
		"Latin-1 label":    {"labels.txt", "person\ncaf\xe9\n", "line 2: not UTF-8"},
		"NUL in a label":   {"labels.txt", "per\x00son\ndog\n", "line 1: \"per\\x00son\" has a control character"},
		"long label":       {"labels.txt", strings.Repeat("x", 257) + "\ndog\n", "line 1: 257 bytes, want at most 256"},
	} {
		dir := writeFolder(t, map[string]string{tt.file: tt.content})
		_, err := Load(dir)
		checkError(t, name, err, tt.want, filepath.Join(dir, tt.file))
	}
}

// TestLoad_RejectsPipe checks that Load does not open a pipe, which would block forever.
func TestLoad_RejectsPipe(t *testing.T) {
	t.Parallel()
	dir := writeFolder(t, map[string]string{File: "absent"})
	if err := syscall.Mkfifo(filepath.Join(dir, File), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Load(dir)
	checkError(t, "a pipe", err, "not a regular file")
}

// TestModel_ReadWeightsRejects checks that the error says what a failed download has left
// in place of the weights.
func TestModel_ReadWeightsRejects(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte("weights"))
	hashed := strings.Replace(good, "kind: yolo", "kind: yolo\nsha256: {net.onnx: "+hex.EncodeToString(sum[:])+"}", 1)
	for name, tt := range map[string]struct{ description, weights, want string }{
		"right sum":   {hashed, "weights", ""},
		"wrong sum":   {hashed, "weighty", "its SHA-256 is"},
		"cut":         {hashed, "wei", "its SHA-256 is"},
		"absent":      {good, "absent", "no such file"},
		"empty":       {good, "", "no bytes"},
		"LFS pointer": {good, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer"},
		"HTML page":   {good, "\n<html><body>Sign in</body></html>", "an HTML page"},
	} {
		dir := writeFolder(t, map[string]string{File: tt.description, "net.onnx": tt.weights})
		m, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = m.ReadWeights()
		if tt.want != "" {
			checkError(t, name, err, tt.want, "weights: ", filepath.Join(dir, "net.onnx"))
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoad_AbsentFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nosuch")
	_, err := Load(dir)
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("the error is %v, want %v", err, ErrNotFound)
	}
	checkError(t, "absent", err, dir)
	_, err = Load(writeFolder(t, map[string]string{File: "absent"}))
	if err == nil {
		t.Errorf("a folder without %s was loaded", File)
	}
	if errors.Is(err, ErrNotFound) {
		t.Errorf("a folder without %s: %v, want another error than for an absent folder", File, err)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"yunet": "/models/yunet", "./own/net": "own/net", "/srv/net": "/srv/net", "a/b": "a/b",
		"": "", "..": "", ".": "", // rejected
	} {
		got, err := Find("/models", name)
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
		if failed := err != nil; failed != (want == "") {
			t.Errorf("%q: the error is %v", name, err)
		}
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := writeFolder(t, nil)
	for _, name := range []string{"net", dir, dir + "/"} {
		m, err := Open(filepath.Dir(dir), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.Dir != dir {
			t.Errorf("%s: the folder is %s, want %s", name, m.Dir, dir)
		}
	}
}

// TestOpen_Rejects checks that only the error for a name has the hints for names.
func TestOpen_Rejects(t *testing.T) {
	t.Parallel()
	root, empty := t.TempDir(), t.TempDir()
	for _, name := range []string{"yunet", "yolox-nano", "onnxruntime"} {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if name == "onnxruntime" {
			continue // not a model
		}
		if err := os.WriteFile(filepath.Join(dir, File), []byte(good), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const pull = ": the folder does not exist; sightmesh models pull fetches models, see docs/models.md"
	for _, tt := range []struct{ root, name, want string }{
		{root, "", "settings.model: missing, want the name of a model or the path of a folder"},
		{root, "..", `settings.model: "..", want the name of a model or the path of a folder, with a slash`},
		{root, "yolo-nano",
			"load model yolo-nano: " + root + "/yolo-nano" + pull + "; the folder " + root + " has yolox-nano, yunet"},
		{empty, "yolo-nano", "load model yolo-nano: " + empty + "/yolo-nano" + pull},
		{empty + "/absent", "net", "load model net: " + empty + "/absent/net" + pull},
		{"", "yolo-nano", "load model yolo-nano: yolo-nano" + pull},
		{root, "./mine/nets", "load model nets: mine/nets: the folder does not exist"},
		{root, root + "/yolo-nano", "load model yolo-nano: " + root + "/yolo-nano: the folder does not exist"},
	} {
		if _, err := Open(tt.root, tt.name); err == nil || err.Error() != tt.want {
			t.Errorf("%q: the error is %v, want %s", tt.name, err, tt.want)
		}
	}
}

// TestOpen_ManyModels: the error for an absent folder names 20 models of the root.
func TestOpen_ManyModels(t *testing.T) {
	t.Parallel()
	for models, want := range map[int]string{
		20: "m18, m19, m20",
		22: "m18, m19, m20 and 2 more",
	} {
		root := t.TempDir()
		for i := range models {
			dir := filepath.Join(root, fmt.Sprintf("m%02d", i+1))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, File), []byte(good), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(root, "absent"); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%d models: the error is %v, want %q at its end", models, err, want)
		}
	}
}

func TestInput_Table(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in   Input
		want float32 // of the pixel value 129 in channel 1
	}{
		"nothing": {Input{}, 129},
		"scale":   {Input{Scale: 0.5}, 64.5},
		"mean":    {Input{Mean: []float64{1, 2, 3}}, 127},
		"std":     {Input{Mean: []float64{1, 9, 3}, Std: []float64{1, 10, 1}}, 12},
	} {
		if got := tt.in.Table(1)[129]; got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
