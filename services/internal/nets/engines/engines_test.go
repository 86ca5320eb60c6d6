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
	// installed is the folder in which make onnxruntime puts the library.
	installed = "../../../../models"
)

// needONNXRuntime skips the test on a machine without the library.
func needONNXRuntime(t *testing.T) {
	t.Helper()
	if _, err := onnxruntime.Find("", installed); errors.Is(err, onnxruntime.ErrNotFound) {
		t.Skip("not run without ONNX Runtime: make onnxruntime installs it")
	} else if err != nil {
		t.Fatal(err)
	}
}

// realWeights reads the weights of a network of others, or skips the test.
func realWeights(t *testing.T, name string) []byte {
	t.Helper()
	weights, err := os.ReadFile(filepath.Join(realdata, "models", name))
	if err != nil {
		t.Skip("not run without " + name)
	}
	return weights
}

// folder makes the folder of a model with these engines and the fields of an input.
func folder(t *testing.T, weights []byte, engines, input string) *model.Model {
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

// opened opens the network of a model for the length of the test.
func opened(t *testing.T, m *model.Model) nets.Net {
	t.Helper()
	net, err := Open(m, Options{Models: installed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	return net
}

// noise is an input without two equal rows.
func noise(shape ...int) nets.Tensor {
	in := nets.NewTensor(shape...)
	for i := range in.Data {
		in.Data[i] = float32(i * 7919 % 256)
	}
	return in
}

// TestOpen_ResizableAgreesBetweenEngines: a network whose file declares 416 × 416 gives the
// same numbers in both engines for another size, and is described with it.
func TestOpen_ResizableAgreesBetweenEngines(t *testing.T) {
	needONNXRuntime(t)
	weights := realWeights(t, "yolox_nano_coco/yolox_nano.onnx")
	const input = "width: 608, height: 320, resizable: true"
	resized := opened(t, folder(t, weights, "onnxruntime, opencv", input))
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
	other := opened(t, folder(t, weights, "opencv, onnxruntime", input))
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

// TestOpen_KeepsToTheDeclaredSize of a network of which nobody says that it takes others.
func TestOpen_KeepsToTheDeclaredSize(t *testing.T) {
	needONNXRuntime(t)
	net := opened(t, folder(t, realWeights(t, "yolox_nano_coco/yolox_nano.onnx"), "onnxruntime", "width: 608, height: 608"))
	_, err := net.Run(noise(1, 3, 608, 608))
	checkError(t, err, `input "images" has shape [1 3 416 416]; [1 3 608 608] was given`)
}

// TestOpen_ResizableThatIsNot: the weights of this network are for one size, which is seen
// when it is run.
func TestOpen_ResizableThatIsNot(t *testing.T) {
	needONNXRuntime(t)
	weights := realWeights(t, "ultraface_rfb320/version-RFB-320.onnx")
	m := folder(t, weights, "onnxruntime", "width: 640, height: 480, resizable: true")
	net, err := Open(m, Options{Models: installed})
	if err == nil {
		defer net.Close()
		_, err = net.Run(noise(1, 3, 480, 640))
	}
	checkError(t, err, m.WeightsPath())
}

// TestOpen_RejectsResizable names the file that cannot be changed, and the field.
func TestOpen_RejectsResizable(t *testing.T) {
	needONNXRuntime(t)
	for name, weights := range map[string]string{
		"no network": strings.Repeat("not found ", 100), "no graph": "\x08\x08", "cut": "\x3a\x7f\x5a",
	} {
		m := folder(t, []byte(weights), "onnxruntime", "width: 32, height: 32, resizable: true")
		_, err := Open(m, Options{Models: installed})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		checkError(t, err, "load model net: "+m.WeightsPath()+": input.resizable: ")
	}
}

// checkError expects an error that says this.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", want)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}
