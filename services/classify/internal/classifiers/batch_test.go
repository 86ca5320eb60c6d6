package classifiers

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
)

// startPipeline starts a lane with a pipeline p with this setup.
func startPipeline(tb testing.TB, root string, setup lane.Setup) (*handler, lane.Loaded) {
	tb.Helper()
	h := newHandler()
	loaded, err := h.Start(lane.Start{Models: root, Pipelines: map[string]lane.Setup{"p": setup}})
	if err != nil {
		tb.Fatal(err)
	}
	return h, loaded["p"]
}

// newPixelCrops returns n crops of one pixel, each with a random colour, in BGR or grey.
func newPixelCrops(n int) (crops []lane.Crop, pixels []byte) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		c := lane.Crop{Region: i * 3, Width: 1, Height: 1, Channels: 1 + 2*r.IntN(2), Label: string("ab-"[i%3])}
		crops = append(crops, c)
		for range c.Channels {
			pixels = append(pixels, byte(r.IntN(100)))
		}
	}
	return crops, pixels
}

// TestBatch_KeepsOutcomesOfEachCrop checks that crops in batches have the same outcomes, in
// the same order, as crops that run alone. The numbers of crops include those that do not
// fill the last batch. It also tests by_label and first.
func TestBatch_KeepsOutcomesOfEachCrop(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeColoursModel(t, root, "colours", nil)
	writeColoursModel(t, root, "shades", map[string]string{"labels.txt": "dark\nmiddle\nlight\n"})
	withFirst := json.RawMessage(`{"model":"colours","first":{"kind":"tesseract"}}`) // tesseract drops single pixels
	for name, setup := range map[string]lane.Setup{
		"model":    modelSetup("colours"),
		"first":    {Kind: "model", Settings: withFirst},
		"by_label": {ByLabel: map[string]lane.Setup{"a": modelSetup("colours"), "b": modelSetup("shades")}},
	} {
		alone, l := startPipeline(t, root, setup)
		if l.Error != "" {
			t.Fatalf("%s: %s", name, l.Error)
		}
		setup.Batch = 4
		together, l := startPipeline(t, root, setup)
		if l.Error != "" {
			t.Fatalf("%s with batches: %s", name, l.Error)
		}
		for n := range 14 {
			crops, pixels := newPixelCrops(n)
			r := lane.Classify{Pipeline: "p", Crops: crops}
			want, err := alone.Classify(r, pixels)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, err := together.Classify(r, pixels)
			if err != nil {
				t.Fatalf("%s with batches: %v", name, err)
			}
			if !reflect.DeepEqual(got.Answers, want.Answers) {
				t.Errorf("%s, %d crops: %+v, alone %+v", name, n, got.Answers, want.Answers)
			}
		}
	}
}

// TestBatch_RejectsNetworksOfOneImage checks that a network that returns one result for a
// whole batch is rejected at start, because the warm-up runs a full batch.
func TestBatch_RejectsNetworksOfOneImage(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeColoursModel(t, root, "flat", map[string]string{"colours.prototxt": `
name: "flat"
input: "data"
input_shape { dim: 1 dim: 3 dim: 1 dim: 1 }
layer { name: "out" type: "Reshape" bottom: "data" top: "out" reshape_param { shape { dim: 1 dim: -1 } } }
`})
	setup := modelSetup("flat")
	if _, l := startPipeline(t, root, setup); l.Error != "" {
		t.Fatalf("without batches: %s", l.Error)
	}
	setup.Batch = 2
	_, l := startPipeline(t, root, setup)
	if want := "model flat: output out has the shape [1 6] for a batch of 2"; !strings.Contains(l.Error, want) {
		t.Errorf("the error is %q, want %q in it", l.Error, want)
	}
}

// TestBatch_RejectsADeclaredNumberOfImages checks that a network whose input declares one
// image is rejected at start.
func TestBatch_RejectsADeclaredNumberOfImages(t *testing.T) {
	t.Parallel()
	const name = "shufflenet-v2-int8"
	root := linkCatalogueModel(t, name, filepath.Join(realdata,
		"models/shufflenet_v2_int8_imagenet/shufflenet-v2-12-int8.onnx"), model.ONNXRuntime)
	setup := modelSetup(name)
	setup.Batch = 2
	_, l := startPipeline(t, root, setup)
	if want := "batch: 2, but input"; !strings.Contains(l.Error, want) {
		t.Errorf("the error is %q, want %q in it", l.Error, want)
	}
}

// linkLineReader makes a folder of models with a PP-OCR network that make models has downloaded,
// or skips the test.
func linkLineReader(tb testing.TB, name string) (root string) {
	tb.Helper()
	folder := "../../../../models/" + name
	weights, err := filepath.Glob(filepath.Join(folder, "*.onnx"))
	if err != nil {
		tb.Fatal(err)
	}
	if len(weights) == 0 {
		tb.Skipf("%s was not run: make models MODELS=%s fetches it", name, name)
	}
	root = linkCatalogueModel(tb, name, weights[0], model.ONNXRuntime)
	found, err := filepath.Glob(filepath.Join(folder, "*.txt"))
	if err != nil {
		tb.Fatal(err)
	}
	dictionary, err := filepath.Abs(found[0])
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.Symlink(dictionary, filepath.Join(root, name, filepath.Base(dictionary))); err != nil {
		tb.Fatal(err)
	}
	return root
}

// drawLines draws n lines of text, some of which have the same width.
func drawLines(n int) (crops []lane.Crop, pixels []byte) {
	for i := range n {
		crop, line := drawLine(fmt.Sprintf("Number %d of %s", i, strings.Repeat("some ", i%3)))
		crop.Region = i
		crops, pixels = append(crops, crop), append(pixels, line...)
	}
	return crops, pixels
}

// TestBatch_ReadsTheSameLines checks that a real network reads lines of three widths in
// batches as it reads them alone. The scores differ only in the last digits.
func TestBatch_ReadsTheSameLines(t *testing.T) {
	t.Parallel()
	const name = "ppocr-v6-tiny-rec"
	root := linkLineReader(t, name)
	crops, pixels := drawLines(13)
	var results [2]lane.Classified
	for i, batch := range []int{1, 4} {
		setup := modelSetup(name)
		setup.Batch = batch
		h, l := startPipeline(t, root, setup)
		checkLoaded(t, l, name)
		var err error
		if results[i], err = h.Classify(lane.Classify{Pipeline: "p", Crops: crops}, pixels); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range results[0].Answers {
		got := results[1].Answers[i]
		if got.Region != want.Region {
			t.Errorf("line %d is of region %d, want %d", i, got.Region, want.Region)
		}
		if got.Text == "" {
			t.Errorf("line %d was not read", i)
		}
		if got.Text != want.Text {
			t.Errorf("line %d is read as %q, alone as %q", i, got.Text, want.Text)
		}
		if math.Abs(got.Score-want.Score) > 0.002 {
			t.Errorf("line %d has the score %v, alone %v", i, got.Score, want.Score)
		}
	}
}

// BenchmarkNetwork_Batch reads eight lines of the same width, one by one and in one batch.
func BenchmarkNetwork_Batch(b *testing.B) {
	const name, crops = "ppocr-v6-tiny-rec", 8
	root := linkLineReader(b, name)
	crop, line := drawLine("Images go in over HTTP")
	r := lane.Classify{Pipeline: "p"}
	var pixels []byte
	for i := range crops {
		crop.Region = i
		r.Crops, pixels = append(r.Crops, crop), append(pixels, line...)
	}
	for _, batch := range []int{1, 8} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			setup := modelSetup(name)
			setup.Batch = batch
			h, l := startPipeline(b, root, setup)
			if l.Error != "" {
				b.Fatal(l.Error)
			}
			for b.Loop() {
				if _, err := h.Classify(r, pixels); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N)/crops, "ms/crop")
		})
	}
}
