package e2e

import (
	"bytes"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sightmesh runs the command sightmesh with variables added to its environment, and returns its output and its exit
// status.
func sightmesh(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(binary(t, "sightmesh"), args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	p, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	return out.String(), errs.String(), exitCode(p.err)
}

// checkModel runs `sightmesh models check` and checks the exit status.
func checkModel(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, got := sightmesh(t, nil, append([]string{"models", "check"}, args...)...)
	if got != code {
		t.Fatalf("models check %q: exit status %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	return stdout, stderr
}

// emptyImage writes an image in which the model rows finds nothing, and returns its path.
func emptyImage(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 7, 4))); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"nothing.png": b.String()})
	return filepath.Join(dir, "nothing.png")
}

func TestModelsCheck_DescribesModel(t *testing.T) {
	t.Parallel()
	models, file := t.TempDir(), emptyImage(t)
	writeFiles(t, filepath.Join(models, "rows"), rowsModel)
	byName, _ := checkModel(t, 0, "rows", "--models", models, file)
	byPath, _ := checkModel(t, 0, filepath.Join(models, "rows"), file)
	for _, want := range []string{
		`model +rows, version 1\.2, kind ssd\n`,
		`engine +opencv 4\S+, one thread\n`,
		`outputs +out`,
		`loaded in +\d+ ms, warm\n`,
		`one run +\d+\.\d ms, ` + regexp.QuoteMeta(file) + `: 0 regions\n`,
		`memory +\d+\.\d MB at most\n`,
	} {
		for how, out := range map[string]string{"name": byName, "path": byPath} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("by its %s: no %q in\n%s", how, want, out)
			}
		}
	}
}

// TestModelsCheck_DrawsASample runs YuNet, as it was pulled, on the sample page, which is used without a file.
func TestModelsCheck_DrawsASample(t *testing.T) {
	t.Parallel()
	models := pullModels(t, "yunet")
	out, _ := checkModel(t, 0, "yunet", "--models", models)
	for _, want := range []string{"kind yunet", "cls_8", "the sample page: 0 regions"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestModelsCheck_NamesCrops runs a classifier on a whole image.
func TestModelsCheck_NamesCrops(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(filepath.Join(root(t), "models", "onnxruntime")); err != nil {
		t.Skip("ONNX Runtime is missing; make onnxruntime installs it")
	}
	model := filepath.Join(pullModels(t, "shufflenet-v2-int8"), "shufflenet-v2-int8")
	photo := filepath.Join(root(t), "..", "shared", "realdata", "photos", "coffee.png")
	out, _ := checkModel(t, 0, model, photo, "--models", filepath.Join(root(t), "models"))
	for _, want := range []string{"kind classifier", "input 1×3×224×224", "output 1×1000", "coffee.png: espresso"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// pullModels installs models from realdata with `sightmesh models pull`, and returns the folder of models.
func pullModels(t *testing.T, names ...string) string {
	t.Helper()
	readRealdata(t, "models/models.json")
	models := t.TempDir()
	from := filepath.Join(root(t), "..", "shared", "realdata")
	args := append([]string{"models", "pull", "--models", models, "--from", from}, names...)
	if stdout, stderr, code := sightmesh(t, nil, args...); code != 0 {
		t.Fatalf("%q: exit status %d\n%s%s", args, code, stdout, stderr)
	}
	return models
}

func TestModelsBench_Measures(t *testing.T) {
	t.Parallel()
	models := t.TempDir()
	writeFiles(t, filepath.Join(models, "rows"), rowsModel)
	out, stderr, code := sightmesh(t, nil, "models", "bench", "rows", emptyImage(t), "--models", models, "--images", "20")
	if code != 0 {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	for _, want := range []string{
		`model +rows, version 1\.2, kind ssd\n`,
		`images +20 in \d+\.\d s, one after the other: \d+\.\d images/s\n`,
		`image +p50 \d+\.\d ms, p99 \d+\.\d ms\n`,
		`model alone +p50 \d+\.\d ms, p99 \d+\.\d ms\n`,
		`memory +\d+\.\d MB at most\n`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestModelsCheck_BoundsTheLane(t *testing.T) {
	t.Parallel()
	models := t.TempDir()
	writeFiles(t, filepath.Join(models, "rows"), rowsModel)
	_, stderr := checkModel(t, 1, "rows", "--models", models, "--timeout", "1ms")
	want := "model rows cannot be used: start lane program rows: no ready message: timeout after 1ms"
	if !strings.Contains(stderr, want) {
		t.Errorf("standard error has no %q:\n%s", want, stderr)
	}
	_, stderr = checkModel(t, 1, "rows", "--models", models, "--lane-memory", "16MiB")
	if want := "more than the 16777216 that --lane-memory allows"; !strings.Contains(stderr, want) {
		t.Errorf("standard error has no %q:\n%s", want, stderr)
	}
	_, stderr = checkModel(t, 1, "nosuch", "--models", models)
	if want := filepath.Join(models, "nosuch") + ": the folder does not exist"; !strings.Contains(stderr, want) {
		t.Errorf("standard error has no %q:\n%s", want, stderr)
	}
	noImage := filepath.Join(models, "rows", "labels.txt")
	_, stderr = checkModel(t, 1, "rows", noImage, "--models", models)
	if want := "rows cannot be used: " + noImage + ": "; !strings.Contains(stderr, want) {
		t.Errorf("standard error has no %q:\n%s", want, stderr)
	}
}

// hostileModels are the files of realdata/hostile/models, with a part of the error of each engine. An empty text means
// that the file is not tested with the engine; ONNX Runtime supports dynamic shapes.
var hostileModels = map[string]struct{ opencv, onnxruntime string }{
	"broken_cascade.xml":                        {"broken_cascade.xml: ", ""},
	"bytes_flipped.onnx":                        {"OpenCV cannot read the network", "Protobuf parsing failed"},
	"empty.prototxt":                            {"the file has no bytes", ""},
	"garbage.prototxt":                          {"OpenCV cannot read the network", ""},
	"git_lfs_pointer.onnx":                      {"a Git LFS pointer", "a Git LFS pointer"},
	"html_page.onnx":                            {"an HTML page", "an HTML page"},
	"nan_weights.onnx":                          {"not numbers (NaN)", "not numbers (NaN)"},
	"not_a_cascade.xml":                         {"not_a_cascade.xml contains no cascade", ""},
	"random.onnx":                               {"OpenCV cannot read the network", "Protobuf parsing failed"},
	"real_dynamic_shape_yunet.onnx":             {"OpenCV cannot read the network", ""},
	"real_refused_fields_yufacedetect.prototxt": {"OpenCV cannot read the network", ""},
	"text.onnx":                                 {"OpenCV cannot read the network", "Protobuf parsing failed"},
	"truncated.caffemodel":                      {"OpenCV cannot read the network", ""},
	"truncated.onnx":                            {"OpenCV cannot read the network", "Protobuf parsing failed"},
	"unknown_layer.prototxt":                    {"NoSuchLayer", ""},
	"zero_byte.caffemodel":                      {"the file has no bytes", ""},
	"zero_byte.onnx":                            {"the file has no bytes", "the file has no bytes"},
}

const (
	onnxYAML = `
version: "1"
kind: yunet
engines: [ENGINE]
weights: FILE
labels: labels.txt
input: {width: 320, height: 320, resize: letterbox, pad: 0, channels: bgr}
output: {strides: [8, 16, 32]}
threshold: 0.8
nms: 0.3
classes: 1
`
	caffeYAML = `
version: "1"
kind: ssd
engines: [opencv]
weights: WEIGHTS
config: CONFIG
labels: labels.txt
input: {width: 320, height: 240, resize: stretch, channels: bgr}
threshold: 0.5
classes: 2
`
	cascadeYAML = `
version: "1"
kind: cascade
weights: FILE
labels: labels.txt
classes: 1
`
)

// hostileFolder writes a model folder with a hostile file.
func hostileFolder(t *testing.T, dir, file, engine string) {
	t.Helper()
	files := map[string]string{file: string(readRealdata(t, "hostile/models/"+file)), "labels.txt": "face\n"}
	fill := strings.NewReplacer("ENGINE", engine, "FILE", file)
	switch filepath.Ext(file) {
	case ".onnx":
		files["model.yaml"] = fill.Replace(onnxYAML)
	case ".xml":
		files["model.yaml"] = fill.Replace(cascadeYAML)
	default: // the background is a class, and the other file of the network is valid
		weights, config := "RFB-320.caffemodel", "RFB-320.prototxt"
		for _, name := range []string{weights, config} {
			files[name] = string(readRealdata(t, "models/ultraface_rfb320_caffe/"+name))
		}
		if filepath.Ext(file) == ".prototxt" {
			config = file
		} else {
			weights = file
		}
		files["labels.txt"] = "background\nface\n"
		files["model.yaml"] = strings.NewReplacer("WEIGHTS", weights, "CONFIG", config).Replace(caffeYAML)
	}
	writeFiles(t, dir, files)
}

// TestModelsCheck_NamesTheReasonOfHostileModels checks that every hostile model is rejected with a reason, in each
// engine.
func TestModelsCheck_NamesTheReasonOfHostileModels(t *testing.T) {
	t.Parallel()
	found, err := os.ReadDir(filepath.Join(root(t), "..", "shared", "realdata", "hostile", "models"))
	if err != nil {
		t.Skipf("no hostile models in realdata: %v", err)
	}
	if len(found) != len(hostileModels) {
		t.Errorf("realdata has %d hostile models, and this test has %d", len(found), len(hostileModels))
	}
	hasONNX := false
	if _, err := os.Stat(filepath.Join(root(t), "models", "onnxruntime")); err == nil {
		hasONNX = true
	}
	for file, want := range hostileModels {
		for engine, reason := range map[string]string{"opencv": want.opencv, "onnxruntime": want.onnxruntime} {
			if reason == "" {
				continue
			}
			t.Run(file+" in "+engine, func(t *testing.T) {
				t.Parallel()
				if engine == "onnxruntime" && !hasONNX {
					t.Skip("ONNX Runtime is missing; make onnxruntime installs it")
				}
				dir := filepath.Join(t.TempDir(), "hostile")
				hostileFolder(t, dir, file, engine)
				_, stderr := checkModel(t, 1, dir, "--models", filepath.Join(root(t), "models"))
				if want := "sightmesh: model hostile cannot be used: "; !strings.HasPrefix(stderr, want) {
					t.Errorf("standard error does not begin with %q:\n%s", want, stderr)
				}
				if !strings.Contains(stderr, reason) {
					t.Errorf("standard error has no %q:\n%s", reason, stderr)
				}
			})
		}
	}
}
