package engines

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
	"github.com/sightmesh/sightmesh/services/internal/nets/onnxruntime"
)

const (
	realdata = "../../../../../shared/realdata"
	// modelsDir is the folder in which make onnxruntime puts the library.
	modelsDir = "../../../../models"
)

// needONNXRuntime skips the test on a machine without the library.
func needONNXRuntime(t *testing.T) {
	t.Helper()
	if _, err := onnxruntime.Find("", modelsDir); errors.Is(err, onnxruntime.ErrNotFound) {
		t.Skip("not run without ONNX Runtime: make onnxruntime installs it")
	} else if err != nil {
		t.Fatal(err)
	}
}

// realWeights reads the weights of a published network, or skips the test.
func realWeights(t *testing.T, name string) []byte {
	t.Helper()
	weights, err := os.ReadFile(filepath.Join(realdata, "models", name))
	if err != nil {
		t.Skip("not run without " + name)
	}
	return weights
}

// loadModel makes a model folder with these engines and these fields of input, and loads it.
func loadModel(t *testing.T, weights []byte, engines, input string) *model.Model {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "net")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	yaml := fmt.Sprintf("version: '1'\nkind: yolo\nengines: [%s]\nweights: net.onnx\n"+
		"input: {resize: letterbox, channels: bgr, %s}\n", engines, input)
	for name, content := range map[string][]byte{model.File: []byte(yaml), "net.onnx": weights} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, err := model.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// openNet opens the network of a model until the test ends.
func openNet(t *testing.T, m *model.Model) nets.Net {
	t.Helper()
	net, err := Open(m, Options{Models: modelsDir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	return net
}

// noise returns an input in which no two rows are equal.
func noise(shape ...int) nets.Tensor {
	in := nets.NewTensor(shape...)
	for i := range in.Data {
		in.Data[i] = float32(i * 7919 % 256)
	}
	return in
}

// TestOpen_ResizableAgreesBetweenEngines runs a network whose file declares 416 × 416 with
// another size: both engines compute the same numbers, and the shapes of input and output
// are those of the new size.
func TestOpen_ResizableAgreesBetweenEngines(t *testing.T) {
	needONNXRuntime(t)
	weights := realWeights(t, "yolox_nano_coco/yolox_nano.onnx")
	const input = "width: 608, height: 320, resizable: true"
	resized := openNet(t, loadModel(t, weights, "onnxruntime, opencv", input))
	if engine := resized.Engine(); !strings.HasPrefix(engine, "onnxruntime ") {
		t.Fatalf("the engine is %s", engine)
	}
	if in := resized.Inputs()[0]; !slices.Equal(in.Shape, []int{1, 3, 320, 608}) {
		t.Errorf("the input is %v", in)
	}
	outputShape := []int{1, 40*76 + 20*38 + 10*19, 85}
	if out := resized.Outputs()[0]; !slices.Equal(out.Shape, outputShape) {
		t.Errorf("the output is %v, want %v", out, outputShape)
	}
	got, err := resized.Run(noise(1, 3, 320, 608))
	if err != nil {
		t.Fatal(err)
	}
	other := openNet(t, loadModel(t, weights, "opencv, onnxruntime", input))
	if engine := other.Engine(); !strings.HasPrefix(engine, "opencv ") {
		t.Fatalf("the other engine is %s", engine)
	}
	want, err := other.Run(noise(1, 3, 320, 608))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got[0].Shape, want[0].Shape) {
		t.Fatalf("shape %v, in OpenCV %v", got[0], want[0])
	}
	for i, w := range want[0].Data {
		if d := got[0].Data[i] - w; d < -0.001 || d > 0.001 {
			t.Fatalf("number %d is %v, in OpenCV %v", i, got[0].Data[i], w)
		}
	}
}

// TestOpen_RejectsUndeclaredSize runs a network without input.resizable in a size that its
// file does not declare.
func TestOpen_RejectsUndeclaredSize(t *testing.T) {
	needONNXRuntime(t)
	weights := realWeights(t, "yolox_nano_coco/yolox_nano.onnx")
	net := openNet(t, loadModel(t, weights, "onnxruntime", "width: 608, height: 608"))
	_, err := net.Run(noise(1, 3, 608, 608))
	checkError(t, err, `input "images" has shape [1 3 416 416]; [1 3 608 608] was given`)
}

// TestOpen_ResizableWithFixedWeights declares a network as resizable whose weights are for one
// size. The error may come when it is run.
func TestOpen_ResizableWithFixedWeights(t *testing.T) {
	needONNXRuntime(t)
	weights := realWeights(t, "ultraface_rfb320/version-RFB-320.onnx")
	m := loadModel(t, weights, "onnxruntime", "width: 640, height: 480, resizable: true")
	net, err := Open(m, Options{Models: modelsDir})
	if err == nil {
		defer net.Close()
		_, err = net.Run(noise(1, 3, 480, 640))
	}
	checkError(t, err, m.WeightsPath())
}

// TestOpen_RejectsResizable checks that the error names the file that cannot be changed,
// and the field.
func TestOpen_RejectsResizable(t *testing.T) {
	needONNXRuntime(t)
	for name, weights := range map[string]string{
		"no network": strings.Repeat("not found ", 100), "no graph": "\x08\x08", "cut": "\x3a\x7f\x5a",
	} {
		m := loadModel(t, []byte(weights), "onnxruntime", "width: 32, height: 32, resizable: true")
		_, err := Open(m, Options{Models: modelsDir})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		checkError(t, err, "load model net: "+m.WeightsPath()+": input.resizable: ")
	}
}

// checkError checks that err contains want.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", want)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}
