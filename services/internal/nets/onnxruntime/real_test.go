package onnxruntime_test

import (
	"fmt"
	"image"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/services/internal/nets"
	"github.com/sightmesh/sightmesh/services/internal/nets/onnxruntime"
)

const realdata = "../../../../../shared/realdata"

// A realNet is a published net, with its input and the shapes of its outputs.
type realNet struct {
	file    string
	input   []int
	scale   float64
	outputs map[string][]int
}

var realNets = []realNet{
	{"yunet_n/yunet_n_320_320.onnx", []int{1, 3, 320, 320}, 1, yunetOutputs(320)},
	{"yunet_n/yunet_n_640_640.onnx", []int{1, 3, 640, 640}, 1, yunetOutputs(640)},
	{"yolox_nano_coco/yolox_nano.onnx", []int{1, 3, 416, 416}, 1, map[string][]int{"output": {1, 3549, 85}}},
	{"fastestdet_coco/FastestDet.onnx", []int{1, 3, 352, 352}, 1.0 / 255, map[string][]int{"758": {1, 85, 22, 22}}},
	{"ultraface_rfb320/version-RFB-320.onnx", []int{1, 3, 240, 320}, 1.0 / 128,
		map[string][]int{"scores": {1, 4420, 2}, "boxes": {1, 4420, 4}}},
	{"shufflenet_v2_int8_imagenet/shufflenet-v2-12-int8.onnx", []int{1, 3, 224, 224}, 1 / (255 * 0.226),
		map[string][]int{"output": {1, 1000}}},
	// This net accepts any height and width that are multiples of 32.
	{"ppocr_v3_det/ch_PP-OCRv3_det_infer.onnx", []int{1, 3, 640, 640}, 1 / (255 * 0.226),
		map[string][]int{"sigmoid_0.tmp_0": {1, 1, 640, 640}}},
	{"ppocr_v3_det/ch_PP-OCRv3_det_infer.onnx", []int{1, 3, 320, 480}, 1 / (255 * 0.226),
		map[string][]int{"sigmoid_0.tmp_0": {1, 1, 320, 480}}},
}

// yunetOutputs returns the outputs of YuNet for a square image.
func yunetOutputs(side int) map[string][]int {
	outputs := make(map[string][]int)
	for _, stride := range []int{8, 16, 32} {
		for name, numbers := range map[string]int{"cls": 1, "obj": 1, "bbox": 4, "kps": 10} {
			outputs[fmt.Sprint(name, "_", stride)] = []int{1, side / stride * (side / stride), numbers}
		}
	}
	return outputs
}

// path returns the path of the file, or skips the test if it does not exist.
func (r realNet) path(t testing.TB) string {
	t.Helper()
	path := filepath.Join(realdata, "models", r.file)
	if _, err := os.Stat(path); err != nil {
		t.Skip("not run without " + r.file)
	}
	return path
}

// blob returns a photo as input of the net.
func (r realNet) blob(t testing.TB) gocv.Mat {
	t.Helper()
	photo := gocv.IMRead(filepath.Join(realdata, "photos/beach_four.jpg"), gocv.IMReadColor)
	if photo.Empty() {
		t.Skip("not run without beach_four.jpg")
	}
	defer photo.Close()
	blob := gocv.BlobFromImage(photo, r.scale, image.Pt(r.input[3], r.input[2]), gocv.NewScalar(0, 0, 0, 0), false, false)
	t.Cleanup(func() { blob.Close() })
	return blob
}

// tensor returns the numbers of a matrix. They belong to the matrix.
func tensor(t testing.TB, m gocv.Mat) nets.Tensor {
	t.Helper()
	data, err := m.DataPtrFloat32()
	if err != nil {
		t.Fatal(err)
	}
	return nets.Tensor{Shape: m.Size(), Data: data}
}

func TestNet_AgreesWithOpenCV(t *testing.T) {
	library := openOrSkip(t)
	for _, r := range realNets {
		t.Run(fmt.Sprint(r.file, r.input), func(t *testing.T) {
			path, blob := r.path(t), r.blob(t)
			net := loadNet(t, library, path)
			var names []string
			for _, o := range net.Outputs() {
				names = append(names, o.Name)
			}
			if len(names) != len(r.outputs) {
				t.Fatalf("outputs are %q", names)
			}
			out, err := net.Run(tensor(t, blob))
			if err != nil {
				t.Fatal(err)
			}
			reference := gocv.ReadNetFromONNX(path)
			defer reference.Close()
			reference.SetInput(blob, "")
			for i, m := range reference.ForwardLayers(names) {
				defer m.Close()
				if !slices.Equal(out[i].Shape, r.outputs[names[i]]) {
					t.Errorf("shape of %s is %v, not %v", names[i], out[i].Shape, r.outputs[names[i]])
				}
				if d := maxDifference(t, out[i], tensor(t, m)); d > 1e-3 {
					t.Errorf("%s differs by %g from OpenCV", names[i], d)
				}
			}
		})
	}
}

// maxDifference returns the largest difference between two numbers at the same index, relative
// for numbers above 1. Numbers that are not finite fail the test.
func maxDifference(t *testing.T, got, want nets.Tensor) float64 {
	t.Helper()
	if len(got.Data) != len(want.Data) {
		t.Fatalf("shape is %s, with OpenCV %s", got, want)
	}
	worst := 0.0
	for i := range got.Data {
		g, w := float64(got.Data[i]), float64(want.Data[i])
		if math.IsNaN(g) || math.IsInf(g, 0) {
			t.Fatalf("number %d is %v", i, g)
		}
		worst = max(worst, math.Abs(g-w)/max(1, math.Abs(w)))
	}
	return worst
}

// hostileEnv is the environment variable with the path of the net that the process loads
// instead of running tests, because a net may crash it.
const hostileEnv = "ONNXRUNTIME_TEST_HOSTILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(hostileEnv); path != "" {
		fmt.Println(runHostile(path))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runHostile loads and runs a net, and returns the outcome.
func runHostile(path string) string {
	library, err := openLibrary()
	if err != nil {
		return err.Error()
	}
	net, err := library.Load(path, onnxruntime.Options{})
	if err != nil {
		return err.Error()
	}
	defer net.Close()
	in := nets.NewTensor(1, 3, 320, 320)
	for i := range in.Data {
		in.Data[i] = float32(i % 256)
	}
	out, err := net.Run(in)
	if err != nil {
		return err.Error()
	}
	for _, o := range out {
		if slices.ContainsFunc(o.Data, func(v float32) bool { return math.IsNaN(float64(v)) }) {
			return "returns NaN"
		}
	}
	return "runs"
}

// hostileNets has the outcome of each file. For the library a net with wrong weights is
// valid: the code that uses the numbers has to check them.
var hostileNets = map[string]string{
	"bytes_flipped.onnx":            "Protobuf parsing failed",
	"git_lfs_pointer.onnx":          "Protobuf parsing failed",
	"html_page.onnx":                "Protobuf parsing failed",
	"nan_weights.onnx":              "returns NaN",
	"random.onnx":                   "Protobuf parsing failed",
	"real_dynamic_shape_yunet.onnx": "runs",
	"text.onnx":                     "Protobuf parsing failed",
	"truncated.onnx":                "Protobuf parsing failed",
	"zero_byte.onnx":                "does not have a graph",
}

func TestLoad_HostileNetsDoNotCrashTheProcess(t *testing.T) {
	openOrSkip(t)
	files, err := filepath.Glob(filepath.Join(realdata, "hostile/models/*.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("not run without realdata/hostile/models")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), hostileEnv+"="+file, "GORACE=atexit_sleep_ms=0")
			out, err := child.CombinedOutput()
			if err != nil {
				t.Fatalf("the process ended with %v:\n%s", err, out)
			}
			want, known := hostileNets[filepath.Base(file)]
			if !known {
				t.Fatalf("the expected outcome of this file is not known; it is:\n%s", out)
			}
			if !strings.Contains(string(out), want) {
				t.Errorf("the outcome is not %q:\n%s", want, out)
			}
		})
	}
}

// BenchmarkNet_BesideOpenCV runs a net alternately with both engines, on one thread each,
// and reports the milliseconds of each engine and their ratio.
func BenchmarkNet_BesideOpenCV(b *testing.B) {
	library := openOrSkip(b)
	for _, r := range realNets[1:3] {
		b.Run(strings.TrimSuffix(filepath.Base(r.file), ".onnx"), func(b *testing.B) {
			path, blob := r.path(b), r.blob(b)
			net, in := loadNet(b, library, path), tensor(b, blob)
			var names []string
			for _, o := range net.Outputs() {
				names = append(names, o.Name)
			}
			reference := gocv.ReadNetFromONNX(path)
			defer reference.Close()
			var mine, others time.Duration
			for b.Loop() {
				start := time.Now()
				if _, err := net.Run(in); err != nil {
					b.Fatal(err)
				}
				turn := time.Now()
				reference.SetInput(blob, "")
				for _, m := range reference.ForwardLayers(names) {
					m.Close()
				}
				mine, others = mine+turn.Sub(start), others+time.Since(turn)
			}
			b.ReportMetric(float64(mine.Microseconds())/1e3/float64(b.N), "onnxruntime-ms/op")
			b.ReportMetric(float64(others.Microseconds())/1e3/float64(b.N), "opencv-ms/op")
			b.ReportMetric(float64(others)/float64(mine), "times-faster")
		})
	}
}
