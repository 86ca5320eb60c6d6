package classifiers

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets/onnxruntime"
)

const (
	catalogue = "../../../../tools/internal/models/catalogue"
	realdata  = "../../../../../shared/realdata"
)

// linkCatalogueModel makes a folder of models with one model of the catalogue, which runs in
// this engine. weights is the path of its weights. It skips the test if the weights or the
// engine are missing.
func linkCatalogueModel(t testing.TB, name, weights string, engine model.Engine) (root string) {
	t.Helper()
	if _, err := os.Stat(weights); err != nil {
		t.Skipf("%s was not run: no %s", name, weights)
	}
	root = t.TempDir()
	library, err := filepath.Abs("../../../../models/onnxruntime")
	if err != nil {
		t.Fatal(err)
	}
	_, err = onnxruntime.Find("", filepath.Dir(library))
	switch {
	case engine == model.ONNXRuntime && err != nil:
		t.Skipf("%s was not run without ONNX Runtime: make onnxruntime installs it", name)
	case engine == model.ONNXRuntime:
		if err := os.Symlink(library, filepath.Join(root, "onnxruntime")); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(root, name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(catalogue, name))); err != nil {
		t.Fatal(err)
	}
	if weights, err = filepath.Abs(weights); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(weights, filepath.Join(dir, filepath.Base(weights))); err != nil {
		t.Fatal(err)
	}
	if engine == model.OpenCV { // even if the system has ONNX Runtime
		file := filepath.Join(dir, model.File)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.Replace(text, []byte("[onnxruntime, opencv]"), []byte("[opencv]"), 1)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// classifyImage classifies a whole image with the pipeline p.
func classifyImage(t *testing.T, h *handler, m gocv.Mat) lane.CropLabel {
	t.Helper()
	crop := lane.Crop{Width: m.Cols(), Height: m.Rows(), Channels: m.Channels()}
	out, err := h.Classify(lane.Classify{Pipeline: "p", Crops: []lane.Crop{crop}}, m.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	return out.Answers[0]
}

// TestShuffleNet_AgreesWithReference compares the labels with those that other code got from
// the same network. The scores differ by at most 0.02.
func TestShuffleNet_AgreesWithReference(t *testing.T) {
	t.Parallel()
	const name = "shufflenet-v2-int8"
	for _, engine := range []model.Engine{model.OpenCV, model.ONNXRuntime} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			root := linkCatalogueModel(t, name, filepath.Join(realdata,
				"models/shufflenet_v2_int8_imagenet/shufflenet-v2-12-int8.onnx"), engine)
			h, loaded := startModel(t, root, name, map[string]any{"threshold": 0.001, "top": 1000})
			checkLoaded(t, loaded, name)
			if got := loaded.Networks[0].Engine; !strings.HasPrefix(got, string(engine)) {
				t.Errorf("it runs in %s, want %s", got, engine)
			}
			data, err := os.ReadFile(filepath.Join(realdata, "reference/shufflenet_v2_int8_imagenet.json"))
			if err != nil {
				t.Fatal(err)
			}
			var reference struct {
				Photos map[string][]struct {
					Label string
					Score float64
				}
			}
			if err := json.Unmarshal(data, &reference); err != nil {
				t.Fatal(err)
			}
			if len(reference.Photos) == 0 {
				t.Fatal("the reference has no photos")
			}
			for photo, want := range reference.Photos {
				m := gocv.IMRead(filepath.Join(realdata, "photos", photo), gocv.IMReadColor)
				got := classifyImage(t, h, m)
				m.Close()
				if first := firstLabel(got); first != want[0].Label {
					t.Errorf("%s: the first label is %q, want %q", photo, first, want[0].Label)
				}
				for _, w := range want {
					i := slices.IndexFunc(got.Labels, func(l v1.Label) bool { return l.Label == w.Label })
					score := 0.0 // below the threshold
					if i >= 0 {
						score = got.Labels[i].Score
					}
					if math.Abs(score-w.Score) > 0.02 {
						t.Errorf("%s: %s has the score %v, want %v", photo, w.Label, score, w.Score)
					}
				}
			}
		})
	}
}

// firstLabel returns the best label of a crop, or "" if it has none.
func firstLabel(c lane.CropLabel) string {
	if len(c.Labels) == 0 {
		return ""
	}
	return c.Labels[0].Label
}

// TestAngle_DetectsUpsideDownLines classifies rendered lines, upright and upside down. The weights
// are those that make models has downloaded into models.
func TestAngle_DetectsUpsideDownLines(t *testing.T) {
	t.Parallel()
	const name = "ppocr-v2-cls"
	root := linkCatalogueModel(t, name, "../../../../models/ppocr-v2-cls/ch_ppocr_mobile_v2.0_cls_infer.onnx",
		model.ONNXRuntime)
	h, loaded := startModel(t, root, name, nil)
	checkLoaded(t, loaded, name)
	for _, file := range []string{"line_en.png", "line_en_invoice.png", "line_zh.png", "line_zh_mixed.png"} {
		m := gocv.IMRead(filepath.Join(realdata, "rendered", file), gocv.IMReadColor)
		if m.Empty() {
			t.Skip("no ../shared/realdata: no line was read")
		}
		upright := classifyImage(t, h, m)
		gocv.Rotate(m, &m, gocv.Rotate180Clockwise)
		turned := classifyImage(t, h, m)
		m.Close()
		for want, got := range map[string]lane.CropLabel{"0": upright, "180": turned} {
			if len(got.Labels) != 1 {
				t.Errorf("%s rotated by %s: %d labels, want 1", file, want, len(got.Labels))
			}
			if first := firstLabel(got); first != want {
				t.Errorf("%s rotated by %s: the label is %q", file, want, first)
			}
		}
	}
}

// TestPPOCR_ReadsLines reads rendered lines with each PP-OCR network that make models has
// downloaded. All characters and all spaces between English words must be correct. PP-OCRv4
// leaves out spaces unless the model sets output.space.
func TestPPOCR_ReadsLines(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ppocr-v6-tiny-rec", "ppocr-v6-small-rec", "ppocr-v4-rec"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := linkLineReader(t, name)
			h, loaded := startModel(t, root, name, nil)
			checkLoaded(t, loaded, name)
			for _, line := range []string{"line_en", "line_zh"} {
				text, err := os.ReadFile(filepath.Join(realdata, "rendered", line+".txt"))
				if err != nil {
					t.Skip("no ../shared/realdata: no line was read")
				}
				image := gocv.IMRead(filepath.Join(realdata, "rendered", line+".png"), gocv.IMReadColor)
				got := classifyImage(t, h, image)
				image.Close()
				if want := strings.TrimSpace(string(text)); got.Text != want {
					t.Errorf("%s: read %q, want %q", line, got.Text, want)
				}
				if got.Score < 0.9 {
					t.Errorf("%s: the score is %v, want 0.9 or more", line, got.Score)
				}
			}
		})
	}
}

// TestFirst_KeepsCropsThatItDoesNotDrop checks that the outcome of a first classifier is kept, and
// that the crops that it drops are classified by the network.
func TestFirst_KeepsCropsThatItDoesNotDrop(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeColoursModel(t, root, "colours", editModelYAML(t, "scale: 0.01", "scale: 0.0039")) // white is 0.99
	reader := func(score float64) map[string]any {
		return map[string]any{
			"kind": "tesseract", "settings": map[string]any{"languages": []string{"eng"}, "min_score": score},
		}
	}
	crop, pixels := drawLine("Images go in")
	for name, tt := range map[string]struct {
		first map[string]any
		text  string
	}{
		"kept":    {reader(0.6), "Images go in"},
		"dropped": {reader(1), ""},
	} {
		h, loaded := startModel(t, root, "colours", map[string]any{"first": tt.first})
		if loaded.Error != "" {
			t.Fatalf("%s: %s", name, loaded.Error)
		}
		if len(loaded.Models) != 2 {
			t.Errorf("%s: the models are %+v, want both", name, loaded.Models)
		}
		out, err := h.Classify(lane.Classify{Pipeline: "p", Crops: []lane.Crop{crop}}, pixels)
		if err != nil {
			t.Fatal(err)
		}
		if got := out.Answers[0]; got.Text != tt.text {
			t.Errorf("%s: read %q, want %q", name, got.Text, tt.text)
		}
		if got := out.Answers[0]; (tt.text == "") != (len(got.Labels) > 0) {
			t.Errorf("%s: the labels are %+v, want those of the network only if nothing was read", name, got.Labels)
		}
	}
	_, loaded := startModel(t, root, "colours", map[string]any{"first": map[string]any{"kind": "oracle"}})
	if want := `first: classify has no kind "oracle"`; !strings.Contains(loaded.Error, want) {
		t.Errorf("a first of an unknown kind: %q, want %q", loaded.Error, want)
	}
}
