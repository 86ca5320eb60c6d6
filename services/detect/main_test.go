package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/services/internal/worker"
)

// TestMain makes the test binary also the program detect, and so its own lane program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == worker.LaneCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

// yunetYAML and ultraFaceYAML are the model.yaml with which the hostile models are loaded.
const (
	yunetYAML = `
version: "1"
kind: yunet
engines: [opencv]
weights: %s
labels: labels.txt
input: {width: 320, height: 320, resize: letterbox, channels: bgr}
threshold: 0.8
nms: 0.3
classes: 1
`
	ultraFaceYAML = `
version: "1"
kind: ultraface
engines: [opencv]
weights: %s
config: %s
labels: labels.txt
input: {width: 320, height: 240, resize: stretch, channels: rgb, mean: [127, 127, 127], scale: 0.0078125}
output: {format: corners}
threshold: 0.6
nms: 0.3
classes: 2
`
)

// TestLane_HostileModels checks that a pipeline whose model cannot be used is not ready,
// with a reason that names the model, and that other pipelines are ready.
func TestLane_HostileModels(t *testing.T) {
	t.Parallel()
	realdata, err := filepath.Abs("../../../shared/realdata")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(realdata); err != nil {
		t.Skip("no ../shared/realdata: no hostile model was loaded")
	}
	hostile := func(name string) string { return filepath.Join(realdata, "hostile/models", name) }
	good := func(name string) string { return filepath.Join(realdata, "models", name) }
	caffe := good("ultraface_rfb320_caffe/RFB-320.caffemodel")
	prototxt := good("ultraface_rfb320_caffe/RFB-320.prototxt")
	const unreadable = "OpenCV cannot read the network"
	root := t.TempDir()
	want := map[string]string{}
	for name, tt := range map[string]struct{ weights, config, reason string }{
		"bytes-flipped":    {hostile("bytes_flipped.onnx"), "", unreadable},
		"git-lfs-pointer":  {hostile("git_lfs_pointer.onnx"), "", "a Git LFS pointer in place of the file"},
		"html-page":        {hostile("html_page.onnx"), "", "an HTML page in place of the file"},
		"nan-weights":      {hostile("nan_weights.onnx"), "", "not numbers (NaN)"},
		"random":           {hostile("random.onnx"), "", unreadable},
		"dynamic-shape":    {hostile("real_dynamic_shape_yunet.onnx"), "", unreadable},
		"text-file":        {hostile("text.onnx"), "", unreadable},
		"truncated":        {hostile("truncated.onnx"), "", unreadable},
		"zero-byte":        {hostile("zero_byte.onnx"), "", "the file has no bytes"},
		"cascade":          {hostile("not_a_cascade.xml"), "", "OpenCV reads files named .onnx and .caffemodel"},
		"other-kind":       {good("yolox_nano_coco/yolox_nano.onnx"), "", `it has no output "cls_8", but ["output"]`},
		"truncated-caffe":  {hostile("truncated.caffemodel"), prototxt, unreadable},
		"zero-byte-caffe":  {hostile("zero_byte.caffemodel"), prototxt, "the file has no bytes"},
		"foreign-weights":  {caffe, good("wechat_qr_caffe_ssd/detect.prototxt"), `it has no output "scores"`},
		"empty-prototxt":   {caffe, hostile("empty.prototxt"), "config: "},
		"garbage-prototxt": {caffe, hostile("garbage.prototxt"), unreadable},
		"unknown-layer":    {caffe, hostile("unknown_layer.prototxt"), `it has no output "scores", but ["x"]`},
		"refused-fields":   {caffe, hostile("real_refused_fields_yufacedetect.prototxt"), unreadable},
	} {
		dir := filepath.Join(root, name)
		description, labels := fmt.Sprintf(yunetYAML, filepath.Base(tt.weights)), "face\n"
		if tt.config != "" {
			description = fmt.Sprintf(ultraFaceYAML, filepath.Base(tt.weights), filepath.Base(tt.config))
			labels = "background\nface\n"
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{"model.yaml": description, "labels.txt": labels} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range []string{tt.weights, tt.config} {
			if f == "" {
				continue
			}
			if err := os.Symlink(f, filepath.Join(dir, filepath.Base(f))); err != nil {
				t.Fatal(err)
			}
		}
		want[name] = tt.reason
	}

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	all := pool.Program{Name: "built-in", Argv: []string{self, worker.LaneCommand}, Pipelines: map[string]pool.Pipeline{
		"text": {Setup: lane.Setup{Kind: "text-lines"}, Timeout: time.Minute},
	}}
	for name := range want {
		all.Pipelines[name] = pool.Pipeline{
			Setup: lane.Setup{Kind: "model", Settings: []byte(`{"model":"` + name + `"}`)}, Timeout: time.Minute,
		}
	}
	lanes, err := pool.New(pool.Config{
		Stage: subject.Detect, Lanes: 1, Programs: []pool.Program{all}, Models: root, StartTimeout: 2 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- lanes.Run(ctx) }()
	<-lanes.Ready()
	status := lanes.Status()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the lanes ended with %v", err)
	}
	if text := status["text"]; !text.Ready {
		t.Errorf("text is not ready: %s", text.Reason)
	}
	for name, reason := range want {
		switch got := status[name]; {
		case got.Ready:
			t.Errorf("%s is ready", name)
		case !strings.Contains(got.Reason, reason):
			t.Errorf("%s: the reason is %q, want %q", name, got.Reason, reason)
		case !strings.Contains(got.Reason, "model "+name+":"):
			t.Errorf("%s: the reason is %q, want the name of the model in it", name, got.Reason)
		}
	}
}
