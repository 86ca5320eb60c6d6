package opencv

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// twoOutputs computes 2x + 1 and -x.
const twoOutputs = `
name: "two"
input: "data"
input_shape { dim: 1 dim: 1 dim: 2 dim: 3 }
layer { name: "double" type: "Power" bottom: "data" top: "double" power_param { scale: 2 shift: 1 } }
layer { name: "minus" type: "Power" bottom: "data" top: "minus" power_param { scale: -1 } }
`

// noWeights is a Caffe weights file of a network with the name "two", without weights.
const noWeights = "\x0a\x03two"

func TestNet_Run(t *testing.T) {
	t.Parallel()
	n, err := readNet(".caffemodel", []byte(noWeights), []byte(twoOutputs))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	names := make([]string, 0, 2)
	for _, o := range n.Outputs() {
		names = append(names, o.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"double", "minus"}) {
		t.Errorf("outputs %q", names)
	}
	in := nets.Tensor{Shape: []int{1, 1, 2, 3}, Data: []float32{0, 1, 2, 3, 4, 5}}
	for range 2 { // a later run must not change what an earlier one returned
		out, err := n.Run(in, "minus", "double")
		if err != nil {
			t.Fatal(err)
		}
		in.Data[5] = 9
		if _, err := n.Run(in); err != nil {
			t.Fatal(err)
		}
		in.Data[5] = 5
		if !slices.Equal(out[0].Shape, in.Shape) {
			t.Errorf("minus: shape %v, want %v", out[0].Shape, in.Shape)
		}
		for i, want := range [][]float32{{0, -1, -2, -3, -4, -5}, {1, 3, 5, 7, 9, 11}} {
			if !slices.Equal(out[i].Data, want) {
				t.Errorf("output %d: %v, want %v", i, out[i].Data, want)
			}
		}
	}
}

// TestNet_RunRejects checks that calls for which OpenCV throws an exception return an
// error, and that the network works afterwards.
func TestNet_RunRejects(t *testing.T) {
	t.Parallel()
	n, err := readNet(".caffemodel", []byte(noWeights), []byte(twoOutputs))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for name, tt := range map[string]struct {
		in      nets.Tensor
		outputs []string
		want    string
	}{
		"unknown output": {nets.NewTensor(1, 1, 2, 3), []string{"triple"}, `"triple"`},
		"no numbers":     {nets.Tensor{Shape: []int{1, 1, 2, 3}}, nil, "0 numbers for an input of [1 1 2 3]"},
		"empty":          {nets.NewTensor(1, 0), nil, "0 numbers for an input of [1 0]"},
	} {
		_, err := n.Run(tt.in, tt.outputs...)
		checkError(t, name, err, tt.want)
	}
	if _, err := n.Run(nets.NewTensor(1, 1, 2, 3)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestOpen_Rejects(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ weights, content, config, want string }{
		"foreign ONNX":      {"net.onnx", "not a network", "", "OpenCV cannot read the network"},
		"other file":        {"net.tflite", "weights", "", `not ".tflite"`},
		"ONNX with config":  {"net.onnx", "weights", twoOutputs, "ONNX has no config"},
		"Caffe alone":       {"net.caffemodel", noWeights, "", "needs a config"},
		"foreign Caffe":     {"net.caffemodel", "\xff\xff\xff", twoOutputs, "OpenCV cannot read the network"},
		"foreign config":    {"net.caffemodel", noWeights, "layer {", "OpenCV cannot read the network"},
		"config of nothing": {"net.caffemodel", noWeights, "name: 'nothing'", "OpenCV cannot read the network"},
	} {
		m := &model.Model{Name: "net", Dir: t.TempDir(), Weights: tt.weights}
		writeFile(t, filepath.Join(m.Dir, tt.weights), tt.content)
		if tt.config != "" {
			m.Config = "net.prototxt"
			writeFile(t, filepath.Join(m.Dir, m.Config), tt.config)
		}
		n, err := Open(m)
		if err == nil {
			n.Close()
		}
		checkError(t, name, err, tt.want, "load model net: ")
	}
}

// TestOpen_Hostile loads and runs models that end a process which calls OpenCV through
// gocv. Each must return an error when it is loaded or run, or NaN.
func TestOpen_Hostile(t *testing.T) {
	t.Parallel()
	const dir = "../../../../../shared/realdata"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no ../shared/realdata: the hostile models are not run")
	}
	hostile, caffe := filepath.Join(dir, "hostile/models"), filepath.Join(dir, "models/ultraface_rfb320_caffe")
	for _, tt := range []struct{ weights, config string }{
		{"zero_byte.onnx", ""}, {"truncated.onnx", ""}, {"bytes_flipped.onnx", ""}, {"text.onnx", ""}, {"html_page.onnx", ""},
		{"random.onnx", ""}, {"git_lfs_pointer.onnx", ""}, {"real_dynamic_shape_yunet.onnx", ""}, {"nan_weights.onnx", ""},
		{"truncated.caffemodel", filepath.Join(caffe, "RFB-320.prototxt")},
		{"zero_byte.caffemodel", filepath.Join(caffe, "RFB-320.prototxt")},
		{filepath.Join(caffe, "RFB-320.caffemodel"), filepath.Join(dir, "models/wechat_qr_caffe_ssd/detect.prototxt")},
		{filepath.Join(caffe, "RFB-320.caffemodel"), "empty.prototxt"},
		{filepath.Join(caffe, "RFB-320.caffemodel"), "garbage.prototxt"},
		{filepath.Join(caffe, "RFB-320.caffemodel"), "unknown_layer.prototxt"},
		{filepath.Join(caffe, "RFB-320.caffemodel"), "real_refused_fields_yufacedetect.prototxt"},
	} {
		content := func(name string) []byte {
			if name == "" {
				return nil
			}
			if filepath.Base(name) == name {
				name = filepath.Join(hostile, name)
			}
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
		n, err := readNet(filepath.Ext(tt.weights), content(tt.weights), content(tt.config))
		if err != nil {
			t.Logf("%s %s: %v", tt.weights, tt.config, err)
			continue
		}
		out, err := n.Run(nets.NewTensor(1, 3, 320, 320))
		n.Close()
		if err != nil {
			t.Logf("%s %s: %v", tt.weights, tt.config, err)
			continue
		}
		if !slices.ContainsFunc(out, func(o nets.Tensor) bool {
			return slices.ContainsFunc(o.Data, func(f float32) bool { return math.IsNaN(float64(f)) })
		}) {
			t.Errorf("%s %s: was loaded, and its outputs are numbers", tt.weights, tt.config)
		}
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

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
