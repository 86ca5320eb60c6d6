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
	// dir has the files: a path, or a folder of ../shared/realdata/models.
	dir, reference string
	threshold      float64 // of the reference, where it is not the model's
}

// catalogued are the models of the catalogue that detect, and where their files are and
// what they answered.
var catalogued = []catalogueEntry{
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

// resized is the model of the catalogue in another size than its file declares. The
// reference is for the declared one: it says on which photos.
var resized = catalogueEntry{"yolox-nano", "yolox_nano_coco", "yolox_nano_coco", 0}

// catalogueModel makes the folder of a model of the catalogue in root, with the files
// that ../shared/realdata has.
func catalogueModel(t *testing.T, root, name, files string) {
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
		if _, err := os.Stat(filepath.Join(dir, f)); f == "" || err == nil { // the catalogue has it
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

// startModels starts a lane with a pipeline for each name of a model in root.
func startModels(t *testing.T, root string, settings map[string]any, names ...string) (*handler, map[string]lane.Loaded) {
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

// TestCatalogue_Parses holds every model.yaml of the catalogue against the checks.
func TestCatalogue_Parses(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(catalogue)
	if err != nil {
		t.Fatal(err)
	}
	// Other tests are for these: kinds of classify, and one without a reference.
	elsewhere := []string{"angle", "classifier", "ctc-text", "embedding", "tesseract", dbText}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(catalogue, e.Name(), model.File)); err != nil {
			continue
		}
		m, err := model.Load(filepath.Join(catalogue, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // its dictionary is fetched; all else has been checked
		}
		if err != nil {
			t.Error(err)
			continue
		}
		tested := e.Name() == resized.name ||
			slices.ContainsFunc(catalogued, func(c catalogueEntry) bool { return c.name == e.Name() })
		if !tested && !slices.Contains(elsewhere, m.Kind) {
			t.Errorf("%s is not compared with a reference", e.Name())
		}
		if m.Licence == "" || m.Source == "" {
			t.Errorf("%s: licence %q, source %q, want both", e.Name(), m.Licence, m.Source)
		}
		if _, ok := m.SHA256[m.Weights]; !ok {
			t.Errorf("%s: no sha256 of %s", e.Name(), m.Weights)
		}
	}
}

// TestModel_AgreesWithReference runs each model of the catalogue on the photos on which
// the same network was run by other code: as many regions, each overlapping its reference
// by 0.9, with a score within 0.02.
func TestModel_AgreesWithReference(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(realdata); err != nil {
		t.Skip("no ../shared/realdata: no model of the catalogue was run")
	}
	for _, tt := range catalogued {
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

// rootWithLibrary returns an empty folder of models with the library of ONNX Runtime, or
// skips the test on a machine without it.
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

// TestModel_ResizedAgreesBetweenEngines: OpenCV takes the file as it is, and ONNX Runtime
// gets it changed.
func TestModel_ResizedAgreesBetweenEngines(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(realdata); err != nil {
		t.Skip("no ../shared/realdata: " + resized.name + " was not run")
	}
	start := func(root, engine string) *handler {
		catalogueModel(t, root, resized.name, resized.dir)
		h, loaded := startModels(t, root, nil, resized.name)
		checkLoaded(t, loaded[resized.name], resized.name)
		if used := loaded[resized.name].Networks[0].Engine; !strings.HasPrefix(used, engine) {
			t.Fatalf("the engine is %s, want %s", used, engine)
		}
		return h
	}
	reference, h := start(rootWithLibrary(t), "onnxruntime"), start(t.TempDir(), "opencv")
	found := 0
	for photo := range readReference(t, resized.reference) {
		want := detect(t, reference, resized.name, photo).Regions
		answers := make([]answered, len(want))
		for i, r := range want {
			b := r.Box
			corners := [4]float64{float64(b.X), float64(b.Y), float64(b.X + b.Width), float64(b.Y + b.Height)}
			answers[i] = answered{r.Label, r.Score, corners}
		}
		checkRegions(t, photo, detect(t, h, resized.name, photo), answers)
		found += len(want)
	}
	if found < 40 {
		t.Errorf("%d regions in all, want 40 or more", found)
	}
}

// checkLoaded checks that a pipeline has one model, of this name.
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

// checkReference runs a model of the catalogue, with the library that root may have.
func checkReference(t *testing.T, root string, tt catalogueEntry) {
	t.Helper()
	catalogueModel(t, root, tt.name, tt.dir)
	wholeImages(t, filepath.Join(root, tt.name, model.File))
	settings := map[string]any{}
	if tt.threshold != 0 {
		settings["threshold"] = tt.threshold
	}
	h, loaded := startModels(t, root, settings, tt.name)
	checkLoaded(t, loaded[tt.name], tt.name)
	for photo, want := range readReference(t, tt.reference) {
		checkRegions(t, photo, detect(t, h, tt.name, photo), want)
	}
}

// readReference returns what other code found in photos, by the name of the photo.
func readReference(t *testing.T, name string) map[string][]answered {
	t.Helper()
	var reference struct{ Photos map[string][]answered }
	readJSON(t, filepath.Join(realdata, "reference", name+".json"), &reference)
	if len(reference.Photos) == 0 {
		t.Fatal("the reference has no photos")
	}
	return reference.Photos
}

// detect returns what a pipeline finds in a photo.
func detect(t *testing.T, h *handler, pipeline, photo string) lane.Detected {
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

// checkRegions checks that the same was found in a photo as by a reference.
func checkRegions(t *testing.T, photo string, got lane.Detected, want []answered) {
	t.Helper()
	if len(got.Regions) != len(want) {
		t.Errorf("%s: %d regions, the reference has %d:\n%+v\n%+v", photo, len(got.Regions), len(want), got.Regions, want)
	}
	left := slices.Clone(got.Regions)
	for _, w := range want {
		box := clipped(w.Box, got.Width, got.Height)
		best, at := 0.0, -1
		for i, r := range left {
			if o := overlap(r.Box, box); (r.Label == w.Label || w.Label == "") && o > best {
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
			t.Errorf("%s: the score of %+v is %v", photo, w, left[at].Score)
		}
		left = slices.Delete(left, at, at+1)
	}
}

// answered is a region of a reference: an object, or only a box of a model that has one label
// and no scores.
type answered struct {
	Label string
	Score float64
	Box   [4]float64
}

func (f *answered) UnmarshalJSON(data []byte) error {
	if data[0] == '[' {
		f.Score = 1
		return json.Unmarshal(data, &f.Box)
	}
	type object answered
	return json.Unmarshal(data, (*object)(f))
}

// wholeImages has a model look at large images as they are: the references of cascades and
// HOG were made so.
func wholeImages(t *testing.T, file string) {
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

// clipped is the part of left, top, right and bottom that lies in an image.
func clipped(c [4]float64, width, height int) v1.Box {
	left, top := within(c[0], 0, width), within(c[1], 0, height)
	return v1.Box{X: left, Y: top, Width: within(c[2], 0, width) - left, Height: within(c[3], 0, height) - top}
}

func overlap(a, b v1.Box) float64 {
	i := toRectangle(a).Intersect(toRectangle(b))
	both := float64(i.Dx() * i.Dy())
	return both / (float64(a.Width*a.Height+b.Width*b.Height) - both)
}

// rows is a network whose output is its input: an image of 7 pixels in each row is a
// table of what it "finds", 100 for 1.
const rows = `
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

// rowsFolder makes the folder of the model in root. files replace its own.
func rowsFolder(t *testing.T, root, name string, files map[string]string) {
	t.Helper()
	all := map[string]string{
		model.File: rowsModel, "rows.caffemodel": "\x0a\x04rows", "rows.prototxt": rows, "labels.txt": "background\nred\nblue\n",
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

// table is an image that the network rows finds things in.
func table(t *testing.T, cells ...[7]byte) []byte {
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

func TestModel_Finds(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	rowsFolder(t, root, "rows", nil)
	pic := table(t,
		[7]byte{0, 200, 60, 43, 25, 100, 100}, // blue, left edge at 3.01
		[7]byte{0, 100, 90, 0, 0, 57, 50},     // red, 4 x 2
		[7]byte{0, 100, 40, 0, 0, 100, 100},   // not sure enough
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
		if l := loaded["rows"]; l.Error != "" || !slices.Equal(l.Models, []v1.Model{{Name: "rows", Version: "1.2"}}) {
			t.Fatalf("%s: loaded %+v", name, l)
		}
		got, crops, err := h.Detect(lane.Detect{Pipeline: "rows", MaxRegions: tt.most, Crops: true}, pic)
		if err != nil || !reflect.DeepEqual(got.Regions, tt.want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got.Regions, err, tt.want)
			continue
		}
		for i, c := range got.Crops {
			b := tt.want[i].Box
			if tt.settings["square_crops"] == true {
				b.Width, b.Height = (b.Width+b.Height+1)/2, (b.Width+b.Height+1)/2
			}
			if c.Width != b.Width || c.Height != b.Height {
				t.Errorf("%s: crop %+v, want the size of %+v", name, c, b)
			}
			if len(crops[i]) != b.Width*b.Height {
				t.Errorf("%s: crop %d has %d bytes, want those of %+v", name, i, len(crops[i]), b)
			}
		}
	}
}

// TestModel_CutsCrops of a region of 2 x 2 pixels at 2, 1 in an image of four rows of
// seven pixels, whose first two rows are a table.
func TestModel_CutsCrops(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	rowsFolder(t, root, "rows", nil)
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
		if want := (v1.Box{X: 2, Y: 1, Width: 2, Height: 2}); len(got.Regions) != 1 || got.Regions[0].Box != want {
			t.Fatalf("%s: regions %+v, want %+v", name, got.Regions, want)
		}
		if !reflect.DeepEqual(got.Crops, []lane.Crop{tt.want}) {
			t.Errorf("%s: crops %+v, want %+v", name, got.Crops, tt.want)
		}
		if !bytes.HasPrefix(crops[0], tt.first) {
			t.Errorf("%s: pixels %v, want %v first", name, crops[0], tt.first)
		}
	}
}

// TestHandler_CutsCropsOfLabels: crops that nobody wants are not cut, and those that are
// have the numbers of their regions, whatever detector finds them.
func TestHandler_CutsCropsOfLabels(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	rowsFolder(t, root, "rows", nil)
	h, loaded := startModels(t, root, nil, "rows")
	checkLoaded(t, loaded["rows"], "rows")
	pic := table(t,
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
		got, pixels, err := h.Detect(request, pic)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(got.Regions) != 2 {
			t.Errorf("%s: %d regions, want both", name, len(got.Regions))
		}
		if !reflect.DeepEqual(got.Crops, tt.want) {
			t.Errorf("%s: crops %+v, want %+v", name, got.Crops, tt.want)
		}
		for i, c := range tt.want {
			if want := c.Width * c.Height; i >= len(pixels) || len(pixels[i]) != want {
				t.Errorf("%s: crop %d of %d has another size than %d bytes", name, i, len(pixels), want)
			}
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

// TestModel_RejectsAtStart: a pipeline whose model cannot be used is not ready, with the
// reason in one line.
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
		"typo":           {nil, map[string]any{"treshold": 0.5}, "treshold"},
		"no-name":        {nil, map[string]any{"model": ""}, "settings: model: no name"},
		"outside":        {nil, map[string]any{"model": ".."}, `settings: model: ".."`},
		"absent":         {nil, map[string]any{"model": "nosuch"}, filepath.Join(root, "nosuch") + ": the folder does not exist; sightmesh models pull fetches models, see docs/models.md"},
		"high-threshold": {nil, map[string]any{"threshold": 1.5}, "threshold: 1.5"},
		"bad-nms":        {nil, map[string]any{"nms": -1}, "settings: nms: -1"},
		"bad-channels":   {nil, map[string]any{"channels": "rgb"}, `settings: channels: "rgb", want grey or bgr`},
		"no-crop-side":   {nil, map[string]any{"crop_side": 0}, "settings: crop_side: 0"},
		"bad-padding":    {nil, map[string]any{"padding": -0.1}, "settings: padding: -0.1"},
		"no-threshold":   {replaced("threshold: 0.5", ""), nil, "threshold: 0 in model.yaml"},
		"two-mistakes":   {replaced("version: \"1.2\"\nkind: ssd", ""), nil, "version: missing; kind: missing"},
		"other-engine":   {replaced("[onnxruntime, opencv]", "[onnxruntime]"), nil, "engines: [onnxruntime]"},
		"other-kind":     {replaced("kind: ssd", "kind: oracle"), nil, `model.yaml: kind: "oracle"`},
		"other-output":   {replaced("threshold", "output: {names: [in]}\nthreshold"), nil, `it has no output "in", but ["out"]`},
		"other-shape":    {replaced("kind: ssd", "kind: yolo\noutput: {format: yolov8}"), nil, "output out has the shape [1 1 4 7], want [1 7 -1]"},
		"needless-format": {replaced("threshold", "output: {format: caffe}\nthreshold"), nil,
			"output.format: not used by ssd with output.format caffe"},
		"needless-strides": {replaced("kind: ssd", "kind: yolo\noutput: {format: yolov8, strides: [8]}"), nil,
			"output.strides: not used by yolo with output.format yolov8"},
		"needless-settings": {replaced("threshold", "settings: {scale: 2}\nthreshold"), nil,
			"settings: not used by ssd"},
		"not-a-number": {map[string]string{"rows.prototxt": strings.Replace(rows, "scale: 1", "scale: nan", 1)},
			nil, "output out has values that are not numbers (NaN)"},
		"infinite": {map[string]string{"rows.prototxt": strings.Replace(rows, "scale: 1", "scale: 1 shift: inf", 1)},
			nil, "output out has values that are not numbers (+Inf)"},
		"other-scale": {replaced("scale: 0.01", "mean: [-300]"), nil, "output out has class 300"},
	} {
		rowsFolder(t, root, name, tt.files)
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

// TestModel_RejectsScore: what looks sure beyond 1 is another number than the model says.
func TestModel_RejectsScore(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	rowsFolder(t, root, "rows", nil)
	h, _ := startModels(t, root, nil, "rows")
	_, _, err := h.Detect(lane.Detect{Pipeline: "rows", MaxRegions: 10}, table(t, [7]byte{0, 100, 250, 0, 0, 50, 50}))
	if err == nil || !strings.Contains(err.Error(), "model rows: a score of 2.5") {
		t.Errorf("%v, want an error that names the score", err)
	}
}

// TestModel_FallsBack when there is no folder or no engine: a model that is there and
// broken must not be replaced without a word.
func TestModel_FallsBack(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	rowsFolder(t, root, "broken", map[string]string{"rows.caffemodel": ""})
	fallback := map[string]any{"fallback": map[string]any{
		"kind": "cascade", "settings": map[string]any{"cascade": "haarcascade_frontalface_alt2", "label": "face"},
	}}
	rowsFolder(t, root, "no-engine", map[string]string{
		model.File: strings.Replace(rowsModel, "onnxruntime, opencv", "onnxruntime", 1),
	})
	_, loaded := startModels(t, root, fallback, "absent", "broken", "no-engine")
	checkLoaded(t, loaded["absent"], "haarcascade_frontalface_alt2")
	if l := loaded["broken"]; !strings.Contains(l.Error, "rows.caffemodel: the file has no bytes") {
		t.Errorf("broken: %+v, want the reason", l)
	}
	if _, err := onnxruntime.Find("", root); err == nil {
		t.Skip("a model whose engine is not there was not run: the system has ONNX Runtime")
	}
	checkLoaded(t, loaded["no-engine"], "haarcascade_frontalface_alt2")
}

// folderOf makes a model folder of these files in root, which may be contents of others.
func folderOf(t *testing.T, root, name string, files map[string][]byte) {
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

// TestModel_WithoutNetwork: what needs no network may be in a model folder too.
func TestModel_WithoutNetwork(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	xml, err := os.ReadFile("/usr/share/opencv4/haarcascades/haarcascade_frontalface_alt2.xml")
	if err != nil {
		t.Fatal(err)
	}
	folderOf(t, root, "alt2", map[string][]byte{
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
	folderOf(t, root, "lines", map[string][]byte{
		model.File: []byte("version: '2'\nkind: text-lines\nsettings: {long_side: 1200}\n"),
	})
	h, loaded := startModels(t, root, nil, "alt2", "lines")
	checkLoaded(t, loaded["alt2"], "alt2")
	checkLoaded(t, loaded["lines"], "lines")
	if got := loaded["lines"].Models[0].Version; got != "2" {
		t.Errorf("version %q, want that of the model", got)
	}
	pic := page(t, 0, 255, "A line of text")
	got, crops, err := h.Detect(lane.Detect{Pipeline: "lines", MaxRegions: 10, Crops: true}, pic)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Regions) != 1 || len(crops) != 1 {
		t.Errorf("%d regions and %d crops, want one line", len(got.Regions), len(crops))
	}

	photo, err := os.ReadFile(filepath.Join(realdata, "photos/astronaut.png"))
	if err != nil {
		t.Skip("no ../shared/realdata: no face was looked for")
	}
	h, _ = startModels(t, root, map[string]any{"channels": "bgr", "crop_side": 32}, "alt2")
	got, crops, err = h.Detect(lane.Detect{Pipeline: "alt2", MaxRegions: 10, Crops: true}, photo)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Regions) == 0 || got.Regions[0].Label != "head" {
		t.Fatalf("regions %+v, want one with the label of the model", got.Regions)
	}
	if len(crops[0]) != 32*32*3 {
		t.Errorf("a crop of %d bytes, want 32 x 32 in colour", len(crops[0]))
	}
}

// TestModel_WithoutNetworkRejects names the field that a kind has not, or lacks.
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
			`model.yaml: settings: json: unknown field "longside"`},
		"long-side": {hogYAML + "settings: {long_side: 0}\n", weights, nil, "model.yaml: settings: long_side: 0"},
		"scale": {cascadeYAML + "settings: {scale: 1}\n", []byte("<x>BOOST</x>"), nil,
			"model.yaml: settings: scale: 1"},
		"classes": {"version: '1'\nkind: hog\nweights: w\n", weights, nil, "labels: missing; classes: missing"},
		"no-xml":  {cascadeYAML, []byte("not XML"), nil, "weights: load cascade"},
		"sha256": {cascadeYAML + "sha256: {w: " + strings.Repeat("0", 64) + "}\n", []byte("<x>BOOST</x>"), nil,
			"its SHA-256 is"},
		"lines": {"version: '1'\nkind: text-lines\nweights: w\n", weights, nil,
			"weights: not used by text-lines"},
		"crops": {"version: '1'\nkind: text-lines\n", nil, map[string]any{"channels": "bgr"},
			"settings: channels, crop_side, padding and square_crops: not used by text-lines"},
	} {
		folderOf(t, root, name, map[string][]byte{model.File: []byte(tt.yaml), "w": tt.weights, "l": []byte("x\n")})
		_, loaded := startModels(t, root, tt.settings, name)
		if got := loaded[name].Error; !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// hogFolder makes a model folder of the kind hog that finds nothing.
func hogFolder(t *testing.T, root, name string) {
	t.Helper()
	folderOf(t, root, name, map[string][]byte{
		model.File: []byte("version: '1'\nkind: hog\nweights: w\nlabels: l\nclasses: 1\n"),
		"w":        bytes.Repeat([]byte{0, 0, 0, 0}, hogWeights), "l": []byte("x\n"),
	})
}

// TestHOG_SmallImages finds nothing in images that are smaller than its window, and lives.
func TestHOG_SmallImages(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	hogFolder(t, root, "hog")
	h, loaded := startModels(t, root, nil, "hog")
	checkLoaded(t, loaded["hog"], "hog")
	for _, size := range []image.Point{{1, 1}, {63, 128}, {64, 127}, {64, 128}, {3000, 1}} {
		var b bytes.Buffer
		if err := png.Encode(&b, image.NewGray(image.Rectangle{Max: size})); err != nil {
			t.Fatal(err)
		}
		got, _, err := h.Detect(lane.Detect{Pipeline: "hog", MaxRegions: 10}, b.Bytes())
		if err != nil || len(got.Regions) != 0 {
			t.Errorf("%v: %+v, %v, want no region", size, got.Regions, err)
		}
	}
}

// TestModel_FormatsWithoutReference runs networks of formats whose weights may not be used,
// or are not at hand: their outputs are an image of small numbers, 50 for 1.
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
		layers string // none for an output that is the input
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
		"yolov8": {"", [][]byte{ // of each column center, sides, two classes
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
`, [][]byte{ // logits of two classes from -2.5 on; center and sides, 250 for the whole image
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
		rowsFolder(t, root, name, map[string]string{
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

// TestModel_ReadsQRCodes: a model folder of the kind qr, which needs no weights.
func TestModel_ReadsQRCodes(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	folderOf(t, root, "codes", map[string][]byte{model.File: []byte("version: '1'\nkind: qr\n")})
	h, loaded := startModels(t, root, nil, "codes")
	checkLoaded(t, loaded["codes"], "codes")
	sheet := sheetOf(t, map[image.Point]string{{X: 100, Y: 100}: "a code"})
	defer sheet.Close()
	got, _, err := h.Detect(lane.Detect{Pipeline: "codes", MaxRegions: 10}, encodePNG(t, sheet))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Regions) != 1 || got.Regions[0].Text != "a code" || got.Regions[0].Label != "qr-code" {
		t.Errorf("regions %+v, want a QR code that says a code", got.Regions)
	}
	for name, yaml := range map[string]string{"weights": "weights: w\n", "threshold": "threshold: 0.5\n"} {
		folderOf(t, root, name, map[string][]byte{model.File: []byte("version: '1'\nkind: qr\n" + yaml)})
		_, loaded := startModels(t, root, nil, name)
		if want := name + ": not used by qr"; !strings.Contains(loaded[name].Error, want) {
			t.Errorf("%s: %q, want %q", name, loaded[name].Error, want)
		}
	}
}
