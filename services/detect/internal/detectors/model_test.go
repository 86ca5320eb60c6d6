package detectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets/onnxruntime"
)

const (
	catalogue = "../../../../tools/internal/models/catalogue"
	realdata  = "../../../../../shared/realdata"
)

// catalogueEntry is a model of the catalogue.
type catalogueEntry struct {
	name string
	// dir is the folder with the files: a path, or a folder of ../shared/realdata/models.
	// reference is the name of the file with the expected regions.
	dir, reference string
	threshold      float64 // threshold of the reference; 0 means that of the model
}

// detectionModels are the detection models of the catalogue.
var detectionModels = []catalogueEntry{
	{"yunet", "yunet_n", "yunet_n_640", 0.6},
	{"yunet-320", "yunet_n", "yunet_n_320", 0.6},
	{"yolox-nano-416", "yolox_nano_coco", "yolox_nano_coco", 0},
	{"fastestdet", "fastestdet_coco", "fastestdet_coco", 0},
	{"ultraface-rfb320", "ultraface_rfb320", "ultraface_rfb320", 0},
	{"ultraface-rfb320-caffe", "ultraface_rfb320_caffe", "ultraface_rfb320_caffe", 0},
	{"yufacedetect", "yufacedetect_v1_caffe_ssd", "yufacedetect_v1_caffe_ssd", 0},
	{"wechat-qr", "wechat_qr_caffe_ssd", "wechat_qr_caffe_ssd", 0},
	{"hog-people", "hog_people", "hog_people", 0},
	{"haar-frontalface-alt2", "/usr/share/opencv4/haarcascades", "haar_frontalface_alt2", 0},
	{"haar-frontalface-default", "/usr/share/opencv4/haarcascades", "haar_frontalface_default", 0},
	{"lbp-frontalface-improved", "/usr/share/opencv4/lbpcascades", "lbp_frontalface_improved", 0},
}

// resizedModel is the model of the catalogue with another input size than its file declares. Its
// reference is for the declared size; only the names of the photos are used.
var resizedModel = catalogueEntry{"yolox-nano", "yolox_nano_coco", "yolox_nano_coco", 0}

// linkCatalogueModel makes the folder of a model of the catalogue in root. files is the folder
// with its weights, see [catalogueEntry].
func linkCatalogueModel(t *testing.T, root, name, files string) {
	t.Helper()
	dir := filepath.Join(root, name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(catalogue, name))); err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{m.Weights, m.Config} {
		if _, err := os.Stat(filepath.Join(dir, f)); f == "" || err == nil { // in the catalogue
			continue
		}
		from := filepath.Join(files, f)
		if !filepath.IsAbs(files) {
			if from, err = filepath.Abs(filepath.Join(realdata, "models", from)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(from, filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
}

// startModels starts a lane with one pipeline for each of these models in root, with the
// name of the model.
func startModels(
	t *testing.T, root string, settings map[string]any, names ...string,
) (*handler, map[string]lane.Loaded) {
	t.Helper()
	start := lane.Start{Models: root, Pipelines: map[string]lane.Setup{}}
	for _, name := range names {
		s := map[string]any{"model": name}
		for k, v := range settings {
			s[k] = v
		}
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		start.Pipelines[name] = lane.Setup{Kind: "model", Settings: raw}
	}
	h := newHandler()
	loaded, err := h.Start(start)
	if err != nil {
		t.Fatal(err)
	}
	return h, loaded
}

// TestCatalogue_Parses checks every model.yaml of the catalogue.
func TestCatalogue_Parses(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(catalogue)
	if err != nil {
		t.Fatal(err)
	}
	// Other tests check these: the kinds of classify, and one kind without a reference.
	elsewhere := []string{"angle", "classifier", "ctc-text", "embedding", "tesseract", dbText}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(catalogue, e.Name(), model.File)); err != nil {
			continue
		}
		m, err := model.Load(filepath.Join(catalogue, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // its dictionary is downloaded; everything else has been checked
		}
		if err != nil {
			t.Error(err)
			continue
		}
		tested := e.Name() == resizedModel.name ||
			slices.ContainsFunc(detectionModels, func(c catalogueEntry) bool { return c.name == e.Name() })
		if !tested && !slices.Contains(elsewhere, m.Kind) {
			t.Errorf("%s is not compared with a reference", e.Name())
		}
		if m.Licence == "" {
			t.Errorf("%s: no licence", e.Name())
		}
		if m.Source == "" {
			t.Errorf("%s: no source", e.Name())
		}
		if _, ok := m.SHA256[m.Weights]; !ok {
			t.Errorf("%s: no sha256 of %s", e.Name(), m.Weights)
		}
	}
}

// TestModel_AgreesWithReference compares the regions of each model of the catalogue with
// those that other code found with the same network in the same photos: the number of
// regions is equal, each overlaps its reference by 0.9, and the scores differ by at most
// 0.02.
func TestModel_AgreesWithReference(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(realdata); err != nil {
		t.Skip("no ../shared/realdata: no model of the catalogue was run")
	}
	for _, tt := range detectionModels {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			checkReference(t, t.TempDir(), tt)
		})
		m, err := model.Load(filepath.Join(catalogue, tt.name))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(m.Engines, model.ONNXRuntime) {
			continue
		}
		t.Run(tt.name+" in ONNX Runtime", func(t *testing.T) {
			t.Parallel()
			checkReference(t, rootWithLibrary(t), tt)
		})
	}
}

// rootWithLibrary returns a folder of models that contains only the library of ONNX Runtime,
// or skips the test on a machine without it.
func rootWithLibrary(t *testing.T) string {
	t.Helper()
	library, err := filepath.Abs("../../../../models/onnxruntime")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := onnxruntime.Find("", filepath.Dir(library)); err != nil {
		t.Skipf("not run without ONNX Runtime: make onnxruntime installs it")
	}
	root := t.TempDir()
	if err := os.Symlink(library, filepath.Join(root, "onnxruntime")); err != nil {
		t.Fatal(err)
	}
	return root
}

// TestModel_ResizedAgreesBetweenEngines compares the regions of both engines. OpenCV loads
// the unchanged file, ONNX Runtime one with the input size changed.
func TestModel_ResizedAgreesBetweenEngines(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(realdata); err != nil {
		t.Skip("no ../shared/realdata: " + resizedModel.name + " was not run")
	}
	start := func(root, engine string) *handler {
		linkCatalogueModel(t, root, resizedModel.name, resizedModel.dir)
		h, loaded := startModels(t, root, nil, resizedModel.name)
		checkLoaded(t, loaded[resizedModel.name], resizedModel.name)
		if used := loaded[resizedModel.name].Networks[0].Engine; !strings.HasPrefix(used, engine) {
			t.Fatalf("the engine is %s, want %s", used, engine)
		}
		return h
	}
	reference, h := start(rootWithLibrary(t), "onnxruntime"), start(t.TempDir(), "opencv")
	found := 0
	for photo := range readReference(t, resizedModel.reference) {
		want := detectPhoto(t, reference, resizedModel.name, photo).Regions
		expected := make([]referenceRegion, len(want))
		for i, r := range want {
			b := r.Box
			corners := [4]float64{float64(b.X), float64(b.Y), float64(b.X + b.Width), float64(b.Y + b.Height)}
			expected[i] = referenceRegion{r.Label, r.Score, corners}
		}
		checkRegions(t, photo, detectPhoto(t, h, resizedModel.name, photo), expected)
		found += len(want)
	}
	if found < 40 {
		t.Errorf("%d regions in all, want 40 or more", found)
	}
}

// checkLoaded checks that a pipeline is loaded with one model of this name.
func checkLoaded(t *testing.T, l lane.Loaded, name string) {
	t.Helper()
	if l.Error != "" {
		t.Fatalf("not loaded: %s, want %s", l.Error, name)
	}
	if len(l.Models) != 1 {
		t.Fatalf("%d models, want %s", len(l.Models), name)
	}
	if l.Models[0].Name != name {
		t.Errorf("the model is %s, want %s", l.Models[0].Name, name)
	}
}

// checkReference compares a model of the catalogue with its reference. root may contain the
// library of ONNX Runtime.
func checkReference(t *testing.T, root string, tt catalogueEntry) {
	t.Helper()
	linkCatalogueModel(t, root, tt.name, tt.dir)
	disableReduction(t, filepath.Join(root, tt.name, model.File))
	settings := map[string]any{}
	if tt.threshold != 0 {
		settings["threshold"] = tt.threshold
	}
	h, loaded := startModels(t, root, settings, tt.name)
	checkLoaded(t, loaded[tt.name], tt.name)
	for photo, want := range readReference(t, tt.reference) {
		checkRegions(t, photo, detectPhoto(t, h, tt.name, photo), want)
	}
}

// readReference returns the regions that other code found, by the name of the photo.
func readReference(t *testing.T, name string) map[string][]referenceRegion {
	t.Helper()
	var reference struct{ Photos map[string][]referenceRegion }
	readJSON(t, filepath.Join(realdata, "reference", name+".json"), &reference)
	if len(reference.Photos) == 0 {
		t.Fatal("the reference has no photos")
	}
	return reference.Photos
}

// detectPhoto returns the result of a pipeline for a photo.
func detectPhoto(t *testing.T, h *handler, pipeline, photo string) lane.Detected {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(realdata, "photos", photo))
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := h.Detect(lane.Detect{Pipeline: pipeline, MaxRegions: 1000}, data)
	if err != nil {
		t.Fatalf("%s: %v", photo, err)
	}
	return got
}

// checkRegions checks that the regions found in a photo are those of the reference.
func checkRegions(t *testing.T, photo string, got lane.Detected, want []referenceRegion) {
	t.Helper()
	if len(got.Regions) != len(want) {
		t.Errorf("%s: %d regions, the reference has %d:\n%+v\n%+v", photo, len(got.Regions), len(want), got.Regions, want)
	}
	left := slices.Clone(got.Regions)
	for _, w := range want {
		box := newClippedBox(w.Box, got.Width, got.Height)
		best, at := 0.0, -1
		for i, r := range left {
			if w.Label != "" && w.Label != r.Label {
				continue
			}
			if o := iou(r.Box, box); o > best {
				best, at = o, i
			}
		}
		if at < 0 {
			t.Errorf("%s: %+v is not found", photo, w)
			continue
		}
		if best < 0.9 {
			t.Errorf("%s: %+v overlaps %+v by %.3f, want 0.9", photo, left[at], w, best)
		}
		if math.Abs(left[at].Score-w.Score) > 0.02 {
			t.Errorf("%s: the score of %+v is %v, want it within 0.02", photo, w, left[at].Score)
		}
		left = slices.Delete(left, at, at+1)
	}
}

// referenceRegion is a region of a reference. In the file it is an object, or only a box for a
// model with one label and without scores.
type referenceRegion struct {
	Label string
	Score float64
	Box   [4]float64
}

func (f *referenceRegion) UnmarshalJSON(data []byte) error {
	if data[0] == '[' {
		f.Score = 1
		return json.Unmarshal(data, &f.Box)
	}
	type object referenceRegion
	return json.Unmarshal(data, (*object)(f))
}

// disableReduction changes a model.yaml so that large images are not reduced: the references of
// cascades and HOG were made without reducing.
func disableReduction(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("long_side: 2000"), []byte("long_side: 20000"), 1)
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

// newClippedBox returns the box of left, top, right and bottom, clipped to the image.
func newClippedBox(c [4]float64, width, height int) v1.Box {
	left, top := clampRound(c[0], 0, width), clampRound(c[1], 0, height)
	return v1.Box{X: left, Y: top, Width: clampRound(c[2], 0, width) - left, Height: clampRound(c[3], 0, height) - top}
}

// iou returns the intersection over union of two boxes.
func iou(a, b v1.Box) float64 {
	i := toRectangle(a).Intersect(toRectangle(b))
	both := float64(i.Dx() * i.Dy())
	return both / (float64(a.Width*a.Height+b.Width*b.Height) - both)
}

// rowsNetwork is a network whose output equals its input. An image with rows of 7 pixels is the
// table of boxes that it "finds", where the pixel value 100 means 1.
const rowsNetwork = `
name: "rows"
input: "data"
input_shape { dim: 1 dim: 1 dim: 4 dim: 7 }
layer { name: "out" type: "Power" bottom: "data" top: "out" power_param { scale: 1 } }
`

const rowsModel = `
version: "1.2"
kind: ssd
engines: [onnxruntime, opencv]
weights: rows.caffemodel
config: rows.prototxt
labels: labels.txt
input: {width: 7, height: 4, resize: stretch, channels: grey, scale: 0.01}
threshold: 0.5
classes: 3
`

// writeRowsModel makes the model folder of rows in root. files replaces or adds files.
func writeRowsModel(t *testing.T, root, name string, files map[string]string) {
	t.Helper()
	all := map[string]string{
		model.File: rowsModel, "rows.caffemodel": "\x0a\x04rows", "rows.prototxt": rowsNetwork,
		"labels.txt": "background\nred\nblue\n",
	}
	maps.Copy(all, files)
	if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range all {
		if err := os.WriteFile(filepath.Join(root, name, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// newRowsImage returns an image file for the network rows, with one region per row.
func newRowsImage(t *testing.T, cells ...[7]byte) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, 7, 4))
	for y, row := range cells {
		copy(img.Pix[y*img.Stride:], row[:])
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestModel_FindsRegions(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeRowsModel(t, root, "rows", nil)
	file := newRowsImage(t,
		[7]byte{0, 200, 60, 43, 25, 100, 100}, // blue, left edge at 3.01
		[7]byte{0, 100, 90, 0, 0, 57, 50},     // red, 4 x 2
		[7]byte{0, 100, 40, 0, 0, 100, 100},   // below the threshold
	)
	blue := lane.Region{Box: v1.Box{X: 3, Y: 1, Width: 4, Height: 3}, Score: 0.6, Label: "blue"}
	red := lane.Region{Box: v1.Box{X: 0, Y: 0, Width: 4, Height: 2}, Score: 0.9, Label: "red"}
	for name, tt := range map[string]struct {
		settings map[string]any
		most     int
		want     []lane.Region
	}{
		"all":             {nil, 10, []lane.Region{red, blue}},
		"the surest":      {nil, 1, []lane.Region{red}},
		"other threshold": {map[string]any{"threshold": 0.7}, 10, []lane.Region{red}},
		"square crops":    {map[string]any{"square_crops": true}, 10, []lane.Region{red, blue}},
		"a path":          {map[string]any{"model": filepath.Join(root, "rows")}, 10, []lane.Region{red, blue}},
	} {
		h, loaded := startModels(t, root, tt.settings, "rows")
		checkLoaded(t, loaded["rows"], "rows")
		if got := loaded["rows"].Models[0].Version; got != "1.2" {
			t.Errorf("%s: the version is %q, want 1.2", name, got)
		}
		got, crops, err := h.Detect(lane.Detect{Pipeline: "rows", MaxRegions: tt.most, Crops: true}, file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(got.Regions, tt.want) {
			t.Errorf("%s: %+v, want %+v", name, got.Regions, tt.want)
			continue
		}
		for i, c := range got.Crops {
			b := tt.want[i].Box
			if tt.settings["square_crops"] == true {
				b.Width, b.Height = (b.Width+b.Height+1)/2, (b.Width+b.Height+1)/2
			}
			if size, want := image.Pt(c.Width, c.Height), image.Pt(b.Width, b.Height); size != want {
				t.Errorf("%s: the size of crop %d is %v, want %v", name, i, size, want)
			}
			if len(crops[i]) != b.Width*b.Height {
				t.Errorf("%s: crop %d has %d bytes, want those of %+v", name, i, len(crops[i]), b)
			}
		}
	}
}

// TestModel_CropsRegions crops a region of 2 x 2 pixels at 2, 1 in an image of four rows of
// seven pixels, whose first row is the table for the network rows.
func TestModel_CropsRegions(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeRowsModel(t, root, "rows", nil)
	img := image.NewNRGBA(image.Rect(0, 0, 7, 4))
	for i := range img.Pix {
		img.Pix[i] = 255
	}
	for x, v := range [7]byte{0, 100, 90, 29, 25, 57, 75} {
		img.SetNRGBA(x, 0, color.NRGBA{v, v, v, 255})
		img.SetNRGBA(x, 1, color.NRGBA{0, 0, 0, 255})
	}
	img.SetNRGBA(2, 1, color.NRGBA{R: 30, G: 20, B: 10, A: 255})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	const grey, corner = 1, 22 // the grey of the coloured pixel
	for name, tt := range map[string]struct {
		settings map[string]any
		want     lane.Crop
		first    []byte // bytes of the crop
	}{
		"default": {nil, lane.Crop{Width: 2, Height: 2, Channels: 1}, []byte{corner, 0, 255, 255}},
		"colour": {map[string]any{"channels": "bgr"}, lane.Crop{Width: 2, Height: 2, Channels: 3},
			[]byte{10, 20, 30, 0, 0, 0, 255}},
		"grey": {map[string]any{"channels": "grey"}, lane.Crop{Width: 2, Height: 2, Channels: grey},
			[]byte{corner, 0, 255, 255}},
		"one pixel": {map[string]any{"crop_side": 1}, lane.Crop{Width: 1, Height: 1, Channels: 1}, nil},
		"padding": {map[string]any{"padding": 0.5},
			lane.Crop{Width: 4, Height: 4, Channels: 1, Source: &v1.Box{X: 1, Y: 0, Width: 4, Height: 4}},
			[]byte{100, 90, 29, 25, 0, corner}},
		"padding at the edge": {map[string]any{"padding": 1},
			lane.Crop{Width: 6, Height: 4, Channels: 1, Source: &v1.Box{X: 0, Y: 0, Width: 6, Height: 4}},
			[]byte{0, 100, 90, 29, 25, 57, 0, 0, corner}},
		"padded square": {map[string]any{"padding": 1, "square_crops": true},
			lane.Crop{Width: 5, Height: 4, Channels: 1, Source: &v1.Box{X: 0, Y: 0, Width: 5, Height: 4}},
			[]byte{0, 100, 90, 29, 25, 0, 0, corner}},
	} {
		h, loaded := startModels(t, root, tt.settings, "rows")
		checkLoaded(t, loaded["rows"], "rows")
		got, crops, err := h.Detect(lane.Detect{Pipeline: "rows", MaxRegions: 10, Crops: true}, b.Bytes())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got.Regions) != 1 {
			t.Fatalf("%s: %d regions, want 1: %+v", name, len(got.Regions), got.Regions)
		}
		if box, want := got.Regions[0].Box, (v1.Box{X: 2, Y: 1, Width: 2, Height: 2}); box != want {
			t.Fatalf("%s: the region is at %+v, want %+v", name, box, want)
		}
		if !reflect.DeepEqual(got.Crops, []lane.Crop{tt.want}) {
			t.Errorf("%s: crops %+v, want %+v", name, got.Crops, tt.want)
		}
		if !bytes.HasPrefix(crops[0], tt.first) {
			t.Errorf("%s: pixels %v, want them to begin with %v", name, crops[0], tt.first)
		}
	}
}

// TestHandler_CropsRequestedLabels checks that only regions with a requested label are cropped,
// and that each crop has the number of its region.
func TestHandler_CropsRequestedLabels(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeRowsModel(t, root, "rows", nil)
	h, loaded := startModels(t, root, nil, "rows")
	checkLoaded(t, loaded["rows"], "rows")
	file := newRowsImage(t,
		[7]byte{0, 200, 60, 43, 25, 100, 100}, // blue, 4 x 3, the second from the left
		[7]byte{0, 100, 90, 0, 0, 57, 50},     // red, 4 x 2
	)
	for name, tt := range map[string]struct {
		labels []string
		want   []lane.Crop
	}{
		"all": {nil, []lane.Crop{
			{Region: 0, Width: 4, Height: 2, Channels: 1}, {Region: 1, Width: 4, Height: 3, Channels: 1},
		}},
		"red":  {[]string{"red"}, []lane.Crop{{Region: 0, Width: 4, Height: 2, Channels: 1}}},
		"blue": {[]string{"green", "blue"}, []lane.Crop{{Region: 1, Width: 4, Height: 3, Channels: 1}}},
		"none": {[]string{"green"}, nil},
	} {
		request := lane.Detect{Pipeline: "rows", MaxRegions: 10, Crops: true, CropLabels: tt.labels}
		got, pixels, err := h.Detect(request, file)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(got.Regions) != 2 {
			t.Errorf("%s: %d regions, want both", name, len(got.Regions))
		}
		if !reflect.DeepEqual(got.Crops, tt.want) {
			t.Errorf("%s: crops %+v, want %+v", name, got.Crops, tt.want)
		}
		checkCropCount(t, got, pixels, len(tt.want))
		for i, c := range tt.want {
			checkPixels(t, i, c, pixels[i], 1)
		}
	}
}

func TestSquareAround(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ box, want image.Rectangle }{
		"inside":     {image.Rect(40, 40, 50, 60), image.Rect(37, 42, 52, 57)},
		"at an edge": {image.Rect(0, 40, 10, 60), image.Rect(0, 42, 15, 57)},
		"at the end": {image.Rect(90, 180, 100, 200), image.Rect(85, 182, 100, 197)},
		"too large":  {image.Rect(0, 0, 100, 200), image.Rect(0, 25, 100, 175)},
	} {
		if got := squareAround(tt.box, 100, 200); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// TestModel_RejectsAtStart checks that a pipeline whose model cannot be used is not ready,
// with the reason in one line.
func TestModel_RejectsAtStart(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	replaced := func(old, new string) map[string]string {
		if !strings.Contains(rowsModel, old) {
			t.Fatalf("no %q in the model", old)
		}
		return map[string]string{model.File: strings.Replace(rowsModel, old, new, 1)}
	}
	for name, tt := range map[string]struct {
		files    map[string]string
		settings map[string]any
		want     string
	}{
		"typo":    {nil, map[string]any{"treshold": 0.5}, "treshold"},
		"no-name": {nil, map[string]any{"model": ""}, "settings.model: missing"},
		"outside": {nil, map[string]any{"model": ".."}, `settings.model: ".."`},
		"absent": {nil, map[string]any{"model": "nosuch"}, filepath.Join(root, "nosuch") +
			": the folder does not exist; sightmesh models pull fetches models, see docs/models.md"},
		"high-threshold": {nil, map[string]any{"threshold": 1.5}, "threshold: 1.5"},
		"bad-nms":        {nil, map[string]any{"nms": -1}, "settings.nms: -1"},
		"bad-channels":   {nil, map[string]any{"channels": "rgb"}, `settings.channels: "rgb", want grey or bgr`},
		"no-crop-side":   {nil, map[string]any{"crop_side": 0}, "settings.crop_side: 0"},
		"bad-padding":    {nil, map[string]any{"padding": -0.1}, "settings.padding: -0.1"},
		"no-threshold":   {replaced("threshold: 0.5", ""), nil, "threshold: 0 in model.yaml"},
		"two-mistakes":   {replaced("version: \"1.2\"\nkind: ssd", ""), nil, "version: missing; kind: missing"},
		"other-engine":   {replaced("[onnxruntime, opencv]", "[onnxruntime]"), nil, "engines: [onnxruntime]"},
		"other-kind":     {replaced("kind: ssd", "kind: oracle"), nil, `model.yaml: kind: "oracle"`},
		"other-output": {replaced("threshold", "output: {names: [in]}\nthreshold"), nil,
			`it has no output "in", but ["out"]`},
		"other-shape": {replaced("kind: ssd", "kind: yolo\noutput: {format: yolov8}"), nil,
			"output out has the shape [1 1 4 7], want [1 7 -1]"},
		"needless-format": {replaced("threshold", "output: {format: caffe}\nthreshold"), nil,
			"output.format: not used by ssd with output.format caffe"},
		"needless-strides": {replaced("kind: ssd", "kind: yolo\noutput: {format: yolov8, strides: [8]}"), nil,
			"output.strides: not used by yolo with output.format yolov8"},
		"needless-settings": {replaced("threshold", "settings: {scale: 2}\nthreshold"), nil,
			"settings: not used by ssd"},
		"not-a-number": {map[string]string{"rows.prototxt": strings.Replace(rowsNetwork, "scale: 1", "scale: nan", 1)},
			nil, "output out has values that are not numbers (NaN)"},
		"infinite": {map[string]string{"rows.prototxt": strings.Replace(rowsNetwork, "scale: 1", "scale: 1 shift: inf", 1)},
			nil, "output out has values that are not numbers (+Inf)"},
		"other-scale": {replaced("scale: 0.01", "mean: [-300]"), nil, "output out has class 300"},
	} {
		writeRowsModel(t, root, name, tt.files)
		_, loaded := startModels(t, root, tt.settings, name)
		got := loaded[name].Error
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		if strings.Contains(got, "\n") {
			t.Errorf("%s: %q, want one line", name, got)
		}
	}
}

// TestModel_RejectsScore checks that a score above 1 is an error.
func TestModel_RejectsScore(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeRowsModel(t, root, "rows", nil)
	h, _ := startModels(t, root, nil, "rows")
	file := newRowsImage(t, [7]byte{0, 100, 250, 0, 0, 50, 50})
	_, _, err := h.Detect(lane.Detect{Pipeline: "rows", MaxRegions: 10}, file)
	if got, want := fmt.Sprint(err), "model rows: a score of 2.5"; !strings.Contains(got, want) {
		t.Errorf("the error is %q, want %q in it", got, want)
	}
}

// TestModel_FallsBack checks that the fallback is used when the model folder or the engine is
// missing, but not when the model is broken.
func TestModel_FallsBack(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeRowsModel(t, root, "broken", map[string]string{"rows.caffemodel": ""})
	fallback := map[string]any{"fallback": map[string]any{
		"kind": "cascade", "settings": map[string]any{"cascade": "haarcascade_frontalface_alt2", "label": "face"},
	}}
	writeRowsModel(t, root, "no-engine", map[string]string{
		model.File: strings.Replace(rowsModel, "onnxruntime, opencv", "onnxruntime", 1),
	})
	_, loaded := startModels(t, root, fallback, "absent", "broken", "no-engine")
	checkLoaded(t, loaded["absent"], "haarcascade_frontalface_alt2")
	if l := loaded["broken"]; !strings.Contains(l.Error, "rows.caffemodel: the file has no bytes") {
		t.Errorf("broken: %+v, want the reason", l)
	}
	if _, err := onnxruntime.Find("", root); err == nil {
		t.Skip("a model without its engine was not run: the system has ONNX Runtime")
	}
	checkLoaded(t, loaded["no-engine"], "haarcascade_frontalface_alt2")
}

// writeModelFolder makes a model folder with these files in root.
func writeModelFolder(t *testing.T, root, name string, files map[string][]byte) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(root, name, file), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestModel_WithoutNetwork checks models that are not networks: a cascade and text-lines.
func TestModel_WithoutNetwork(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	xml, err := os.ReadFile("/usr/share/opencv4/haarcascades/haarcascade_frontalface_alt2.xml")
	if err != nil {
		t.Fatal(err)
	}
	writeModelFolder(t, root, "alt2", map[string][]byte{
		model.File: []byte(`
version: "1"
kind: cascade
weights: a.xml
labels: l.txt
settings: {neighbors: 1}
classes: 1
`),
		"a.xml": xml, "l.txt": []byte("head\n"),
	})
	writeModelFolder(t, root, "lines", map[string][]byte{
		model.File: []byte("version: '2'\nkind: text-lines\nsettings: {long_side: 1200}\n"),
	})
	h, loaded := startModels(t, root, nil, "alt2", "lines")
	checkLoaded(t, loaded["alt2"], "alt2")
	checkLoaded(t, loaded["lines"], "lines")
	if got := loaded["lines"].Models[0].Version; got != "2" {
		t.Errorf("version %q, want that of the model", got)
	}
	file := newTextPage(t, 0, 255, "A line of text")
	got, crops, err := h.Detect(lane.Detect{Pipeline: "lines", MaxRegions: 10, Crops: true}, file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Regions) != 1 {
		t.Errorf("%d regions, want one line", len(got.Regions))
	}
	checkCropCount(t, got, crops, 1)

	photo, err := os.ReadFile(filepath.Join(realdata, "photos/astronaut.png"))
	if err != nil {
		t.Skip("no ../shared/realdata: no face was looked for")
	}
	h, _ = startModels(t, root, map[string]any{"channels": "bgr", "crop_side": 32}, "alt2")
	got, crops, err = h.Detect(lane.Detect{Pipeline: "alt2", MaxRegions: 10, Crops: true}, photo)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Regions) == 0 {
		t.Fatal("no region was found in a photo of a person")
	}
	if label := got.Regions[0].Label; label != "head" {
		t.Fatalf("the label is %q, want head, that of the model", label)
	}
	if len(crops[0]) != 32*32*3 {
		t.Errorf("a crop of %d bytes, want 32 x 32 in colour", len(crops[0]))
	}
}

// TestModel_WithoutNetworkRejects checks that the error names the field that is wrong,
// missing or not used by the kind.
func TestModel_WithoutNetworkRejects(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	weights := bytes.Repeat([]byte{0, 0, 0, 0}, hogWeights)
	const hogYAML = "version: '1'\nkind: hog\nweights: w\nlabels: l\nclasses: 1\n"
	const cascadeYAML = "version: '1'\nkind: cascade\nweights: w\nlabels: l\nclasses: 1\n"
	for name, tt := range map[string]struct {
		yaml     string
		weights  []byte
		settings map[string]any
		want     string
	}{
		"short": {hogYAML, weights[4:], nil,
			"weights: w has 15120 bytes, want 3781 numbers of float32, which are 15124"},
		"nan": {hogYAML, append([]byte{0, 0, 0xc0, 0x7f}, weights[4:]...), nil, "weights: w: number 0 is NaN"},
		"input": {hogYAML + "input: {width: 64, height: 128, resize: stretch, channels: bgr}\n", weights, nil,
			"model.yaml: input: not used by hog"},
		"engines": {cascadeYAML + "engines: [opencv]\n", nil, nil, "engines: not used by cascade"},
		"threshold": {hogYAML, weights, map[string]any{"threshold": 0.5},
			"settings: threshold and nms: not used by hog"},
		"setting": {hogYAML + "settings: {longside: 5}\n", weights, nil,
			"model.yaml: settings.longside: no such setting; known are long_side"},
		"long-side": {hogYAML + "settings: {long_side: 0}\n", weights, nil, "model.yaml: settings.long_side: 0"},
		"scale": {cascadeYAML + "settings: {scale: 1}\n", []byte("<x>BOOST</x>"), nil,
			"model.yaml: settings.scale: 1"},
		"classes": {"version: '1'\nkind: hog\nweights: w\n", weights, nil, "labels: missing; classes: missing"},
		"no-xml":  {cascadeYAML, []byte("not XML"), nil, "weights: load cascade"},
		"sha256": {cascadeYAML + "sha256: {w: " + strings.Repeat("0", 64) + "}\n", []byte("<x>BOOST</x>"), nil,
			"its SHA-256 is"},
		"lines": {"version: '1'\nkind: text-lines\nweights: w\n", weights, nil,
			"weights: not used by text-lines"},
		"crops": {"version: '1'\nkind: text-lines\n", nil, map[string]any{"channels": "bgr"},
			"settings: channels, crop_side, padding and square_crops: not used by text-lines"},
	} {
		writeModelFolder(t, root, name, map[string][]byte{model.File: []byte(tt.yaml), "w": tt.weights, "l": []byte("x\n")})
		_, loaded := startModels(t, root, tt.settings, name)
		if got := loaded[name].Error; !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// writeHOGModel makes a model folder of the kind hog that finds nothing.
func writeHOGModel(t *testing.T, root, name string) {
	t.Helper()
	writeModelFolder(t, root, name, map[string][]byte{
		model.File: []byte("version: '1'\nkind: hog\nweights: w\nlabels: l\nclasses: 1\n"),
		"w":        bytes.Repeat([]byte{0, 0, 0, 0}, hogWeights), "l": []byte("x\n"),
	})
}

// TestHOG_SmallImages checks that images smaller than the window have no regions and do not
// end the process.
func TestHOG_SmallImages(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeHOGModel(t, root, "hog")
	h, loaded := startModels(t, root, nil, "hog")
	checkLoaded(t, loaded["hog"], "hog")
	for _, size := range []image.Point{{1, 1}, {63, 128}, {64, 127}, {64, 128}, {3000, 1}} {
		var b bytes.Buffer
		if err := png.Encode(&b, image.NewGray(image.Rectangle{Max: size})); err != nil {
			t.Fatal(err)
		}
		got, _, err := h.Detect(lane.Detect{Pipeline: "hog", MaxRegions: 10}, b.Bytes())
		if err != nil {
			t.Errorf("%v: %v", size, err)
		}
		if len(got.Regions) > 0 {
			t.Errorf("%v: %+v, want no region", size, got.Regions)
		}
	}
}

// TestModel_FormatsWithoutReference tests output formats for which there are no weights. The
// output of each network is its input, an image in which the pixel value 50 means 1.
func TestModel_FormatsWithoutReference(t *testing.T) {
	t.Parallel()
	const input = `
name: "rows"
input: "data"
input_shape { dim: 1 dim: 1 dim: %d dim: %d }
`
	const reshaped = `
layer { name: "out" type: "Reshape" bottom: "data" top: "out" reshape_param { shape { dim: 1 dim: %d dim: %d } } }
`
	box := func(x, y, w, h int) v1.Box { return v1.Box{X: x, Y: y, Width: w, Height: h} }
	for name, tt := range map[string]struct {
		layers string // empty for one output that equals the input
		rows   [][]byte
		want   []lane.Region
	}{
		"yolov5": {"", [][]byte{ // center, sides, object, two classes
			{100, 50, 200, 100, 50, 45, 10},
			{225, 125, 50, 50, 40, 0, 50},
			{100, 50, 200, 100, 20, 50, 0},
			{0, 0, 0, 0, 0, 0, 0},
		}, []lane.Region{
			{Box: box(0, 0, 4, 2), Score: 0.9, Label: "red"},
			{Box: box(4, 2, 1, 1), Score: 0.8, Label: "blue"},
		}},
		"yolov8": {"", [][]byte{ // in each column: center, sides, two classes
			{100, 125, 0, 100},
			{50, 175, 0, 50},
			{200, 50, 0, 200},
			{100, 50, 0, 100},
			{45, 0, 0, 20},
			{0, 40, 0, 0},
		}, []lane.Region{
			{Box: box(0, 0, 4, 2), Score: 0.9, Label: "red"},
			{Box: box(2, 3, 1, 1), Score: 0.8, Label: "blue"},
		}},
		"yolov10": {"", [][]byte{ // corners, score, class
			{0, 0, 200, 100, 45, 0},
			{200, 100, 250, 150, 40, 50},
			{0, 0, 200, 100, 20, 50},
			{0, 0, 0, 0, 0, 0},
		}, []lane.Region{
			{Box: box(0, 0, 4, 2), Score: 0.9, Label: "red"},
			{Box: box(4, 2, 1, 1), Score: 0.8, Label: "blue"},
		}},
		"rtdetr": {`
layer { name: "parts" type: "Slice" bottom: "data" top: "a" top: "b" slice_param { axis: 3 slice_point: 2 } }
layer { name: "c" type: "Power" bottom: "a" top: "c" power_param { shift: -2.5 } }
layer { name: "d" type: "Power" bottom: "b" top: "d" power_param { scale: 0.2 } }
layer { name: "logits" type: "Reshape" bottom: "c" top: "logits" reshape_param { shape { dim: 1 dim: 4 dim: 2 } } }
layer {
  name: "pred_boxes" type: "Reshape" bottom: "d" top: "pred_boxes" reshape_param { shape { dim: 1 dim: 4 dim: 4 } }
}
`, [][]byte{ // logits of two classes, from -2.5; center and sides, 250 for the whole image
			{235, 0, 125, 125, 250, 125},
			{0, 195, 150, 125, 100, 125},
			{100, 0, 125, 125, 250, 125},
			{0, 0, 0, 0, 0, 0},
		}, []lane.Region{
			{Box: box(0, 1, 6, 2), Score: 0.9002, Label: "red"},
			{Box: box(2, 1, 3, 2), Score: 0.8022, Label: "blue"},
		}},
	} {
		height, width := len(tt.rows), len(tt.rows[0])
		img := image.NewGray(image.Rect(0, 0, width, height))
		for y, row := range tt.rows {
			copy(img.Pix[y*img.Stride:], row)
		}
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		layers := tt.layers
		if layers == "" {
			layers = fmt.Sprintf(reshaped, height, width)
		}
		root := t.TempDir()
		writeRowsModel(t, root, name, map[string]string{
			"rows.prototxt": fmt.Sprintf(input, height, width) + layers,
			"labels.txt":    "red\nblue\n",
			model.File: fmt.Sprintf(`
version: "1"
kind: yolo
engines: [opencv]
weights: rows.caffemodel
config: rows.prototxt
labels: labels.txt
input: {width: %d, height: %d, resize: stretch, channels: grey, scale: 0.02}
output: {format: %s}
threshold: 0.5
classes: 2
`, width, height, name),
		})
		h, loaded := startModels(t, root, nil, name)
		checkLoaded(t, loaded[name], name)
		got, _, err := h.Detect(lane.Detect{Pipeline: name, MaxRegions: 10}, b.Bytes())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(got.Regions, tt.want) {
			t.Errorf("%s: %+v, want %+v", name, got.Regions, tt.want)
		}
	}
}

// TestModel_ReadsQRCodes tests a model folder of the kind qr, which needs no weights.
func TestModel_ReadsQRCodes(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeModelFolder(t, root, "codes", map[string][]byte{model.File: []byte("version: '1'\nkind: qr\n")})
	h, loaded := startModels(t, root, nil, "codes")
	checkLoaded(t, loaded["codes"], "codes")
	sheet := drawSheet(t, map[image.Point]string{{X: 100, Y: 100}: "a code"})
	defer sheet.Close()
	got, _, err := h.Detect(lane.Detect{Pipeline: "codes", MaxRegions: 10}, encodePNG(t, sheet))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Regions) != 1 {
		t.Fatalf("%d regions, want 1", len(got.Regions))
	}
	if r := got.Regions[0]; r.Label != "qr-code" {
		t.Errorf("the label is %q, want qr-code", r.Label)
	}
	if r := got.Regions[0]; r.Text != "a code" {
		t.Errorf("the text is %q, want %q", r.Text, "a code")
	}
	for name, yaml := range map[string]string{"weights": "weights: w\n", "threshold": "threshold: 0.5\n"} {
		writeModelFolder(t, root, name, map[string][]byte{model.File: []byte("version: '1'\nkind: qr\n" + yaml)})
		_, loaded := startModels(t, root, nil, name)
		if want := name + ": not used by qr"; !strings.Contains(loaded[name].Error, want) {
			t.Errorf("%s: %q, want %q", name, loaded[name].Error, want)
		}
	}
}
