package classifiers

import (
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// TestMain sets OMP_THREAD_LIMIT, which libgomp reads when the program is loaded.
func TestMain(m *testing.M) {
	if os.Getenv("OMP_THREAD_LIMIT") != "1" {
		err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "OMP_THREAD_LIMIT=1"))
		panic(err)
	}
	os.Exit(m.Run())
}

// loadHandler returns a handler with the pipelines text and faces. It checks that pipelines with
// invalid setups are not loaded.
func loadHandler(t testing.TB) *handler {
	t.Helper()
	h := newHandler()
	out, err := h.Start(lane.Start{Pipelines: map[string]lane.Setup{
		"text":    {Kind: "tesseract", Settings: json.RawMessage(`{"languages":["eng","chi_sim"]}`)},
		"faces":   {Kind: "face-attributes"},
		"typo":    {Kind: "tesseract", Settings: json.RawMessage(`{"langs":["eng"]}`)},
		"missing": {Kind: "tesseract", Settings: json.RawMessage(`{"languages":["xyz"]}`)},
		"none":    {Kind: "tesseract", Settings: json.RawMessage(`{"languages":[]}`)},
		"percent": {Kind: "tesseract", Settings: json.RawMessage(`{"min_score":60}`)},
		"unknown": {Kind: "oracle"},
		"nowhere": {Kind: "face-attributes", Settings: json.RawMessage(`{"dir":"/no/such/folder"}`)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"typo": "langs", "missing": "xyz", "none": "languages", "percent": "min_score", "unknown": "oracle",
		"nowhere": "/no/such/folder",
	} {
		if got := out[name].Error; !strings.Contains(got, want) {
			t.Errorf("%s: the error is %q, want %q in it", name, got, want)
		}
	}
	for name, want := range map[string][]string{
		"text":  {"tesseract-eng", "tesseract-chi_sim"},
		"faces": {"haarcascade_eye", "haarcascade_eye_tree_eyeglasses", "haarcascade_smile"},
	} {
		if e := out[name].Error; e != "" {
			t.Errorf("%s is not loaded: %s", name, e)
		}
		var names []string
		for _, m := range out[name].Models {
			names = append(names, m.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: the models are %v, want %v", name, names, want)
		}
	}
	return h
}

// drawLine returns a crop with a line of text, as detect would crop it.
func drawLine(text string) (lane.Crop, []byte) {
	m := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(255, 0, 0, 0), 48, 24*len(text)+20, gocv.MatTypeCV8UC1)
	defer m.Close()
	gocv.PutText(&m, text, image.Pt(8, 36), gocv.FontHersheyComplex, 1.1, color.RGBA{}, 2)
	return lane.Crop{Width: m.Cols(), Height: m.Rows(), Channels: 1}, m.ToBytes()
}

func TestReader_ReadsLine(t *testing.T) {
	t.Parallel()
	h := loadHandler(t)
	crop, pixels := drawLine("Images go in")
	blank := lane.Crop{Region: 1, Width: 100, Height: 48, Channels: 1}
	request := lane.Classify{Pipeline: "text", Crops: []lane.Crop{crop, blank}}
	out, err := h.Classify(request, append(pixels, make([]byte, 4800)...))
	if err != nil {
		t.Fatal(err)
	}
	if out.Timing.InferMS <= 0 {
		t.Errorf("the time is %v ms, want more than 0", out.Timing.InferMS)
	}
	if len(out.Answers) != 2 {
		t.Fatalf("%d outcomes, want 2", len(out.Answers))
	}
	line := out.Answers[0]
	if line.Drop {
		t.Error("the line was dropped")
	}
	if line.Text != "Images go in" {
		t.Errorf("the text is %q, want %q", line.Text, "Images go in")
	}
	if line.Score < 0.8 {
		t.Errorf("the score is %v, want 0.8 or more", line.Score)
	}
	if len(line.Words) != 3 {
		t.Errorf("%d words, want 3: %+v", len(line.Words), line.Words)
	}
	for _, w := range line.Words {
		box := image.Rect(w.Box.X, w.Box.Y, w.Box.X+w.Box.Width, w.Box.Y+w.Box.Height)
		if w.Box.Width <= 0 {
			t.Errorf("the word %+v has no width", w)
		}
		if !box.In(image.Rect(0, 0, crop.Width, crop.Height)) {
			t.Errorf("the word %+v is not inside of %+v", w, crop)
		}
	}
	if !out.Answers[1].Drop {
		t.Errorf("the outcome of a blank crop is %+v, want it dropped", out.Answers[1])
	}
	if got := out.Answers[1].Region; got != 1 {
		t.Errorf("the blank crop has the region %d, want 1", got)
	}
}

func TestNewAttributeLabels(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                string
		eyes, behind, smile int
		want                []v1.Label
	}{
		{"no face", 0, 0, 0, nil},
		{"a serious face", 34, 27, 61, []v1.Label{{Label: "eyes-open", Score: 0.85}}},
		{"best first", 6, 0, 300, []v1.Label{{Label: "smile", Score: 0.75}, {Label: "eyes-open", Score: 0.5}}},
		{"glasses", 1, 20, 0, []v1.Label{{Label: "eyes-open", Score: 0.769}, {Label: "glasses", Score: 0.75}}},
		{"no glasses", 10, 20, 0, []v1.Label{{Label: "eyes-open", Score: 0.769}}},
	} {
		if got := newAttributeLabels(tt.eyes, tt.behind, tt.smile); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestHandler_RejectsInvalidCrops(t *testing.T) {
	t.Parallel()
	h := loadHandler(t)
	for _, c := range []lane.Crop{
		{Width: 10, Height: 10, Channels: 3}, {Width: 5, Height: 5, Channels: 2}, {Width: -1, Height: -1, Channels: 1},
		{Width: 11, Height: 10, Channels: 1}, {Width: -1, Height: 10, Channels: 1},
	} {
		_, err := h.Classify(lane.Classify{Pipeline: "text", Crops: []lane.Crop{c}}, make([]byte, 100))
		var p *v1.Problem
		if !errors.As(err, &p) {
			t.Errorf("%+v: got %v, want a problem", c, err)
		} else if p.Code != v1.InvalidMessage {
			t.Errorf("%+v: got %v, want %s", c, err, v1.InvalidMessage)
		}
	}
}

// TestStart_RejectsSetups checks the whole error of setups that a newcomer writes.
func TestStart_RejectsSetups(t *testing.T) {
	t.Parallel()
	const kinds = ", want one of face-attributes, model, tesseract"
	dir := t.TempDir()
	for _, tt := range []struct{ kind, settings, want string }{
		{"ocr", "", `classify has no kind "ocr"` + kinds},
		{"", "", `classify has no kind ""` + kinds},
		{"tesseract", `{"langs":["eng"]}`,
			"settings.langs: no such setting; known are dir, languages, min_score, sure_score"},
		{"tesseract", `{"languages":"eng"}`, `settings.languages: "eng", want a list`},
		{"tesseract", `{"languages":[]}`, "settings.languages: none, want one or more"},
		{"tesseract", `{"languages":["xyz_abc"],"dir":"` + dir + `"}`, `settings.languages: load language "xyz_abc": ` +
			"libtesseract has no such data in " + dir + "; the Debian package may be tesseract-ocr-xyz-abc"},
		{"tesseract", `{"languages":["../x"],"dir":"` + dir + `"}`,
			`settings.languages: load language "../x": libtesseract has no such data in ` + dir},
		{"tesseract", `{"min_score":60}`, "settings.min_score: 60, want 0 to 1"},
		{"face-attributes", `{"folder":"x"}`, "settings.folder: no such setting; known are dir"},
		{"model", `{"model":"m","tops":5}`,
			"settings.tops: no such setting; known are fallback, first, model, threshold, top"},
		{"model", `{"model":"m","fallback":"tesseract"}`, `settings.fallback: "tesseract", want an object`},
		{"model", "", "settings.model: missing, want the name of a model or the path of a folder"},
		{"model", `{"model":"./m"}`, "load model m: m: the folder does not exist"},
		{"model", `{"model":"m","fallback":{}}`, `classify has no kind ""` + kinds},
	} {
		setup := lane.Setup{Kind: tt.kind, Settings: json.RawMessage(tt.settings)}
		out, err := newHandler().Start(lane.Start{Models: "/no/such", Pipelines: map[string]lane.Setup{"p": setup}})
		if err != nil {
			t.Fatal(err)
		}
		if got := out["p"].Error; got != tt.want {
			t.Errorf("%q %s: the error is %q, want %q", tt.kind, tt.settings, got, tt.want)
		}
	}
}

func TestHandler_RejectsUnknownPipeline(t *testing.T) {
	t.Parallel()
	if _, err := loadHandler(t).Classify(lane.Classify{Pipeline: "absent"}, nil); err == nil {
		t.Error("a request for a pipeline that is not loaded was accepted")
	}
}

// TestHandler_OnePixel classifies the smallest possible crop.
func TestHandler_OnePixel(t *testing.T) {
	t.Parallel()
	h := loadHandler(t)
	for _, p := range []string{"text", "faces"} {
		request := lane.Classify{Pipeline: p, Crops: []lane.Crop{{Width: 1, Height: 1, Channels: 1}}}
		out, err := h.Classify(request, []byte{0})
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if len(out.Answers) != 1 {
			t.Errorf("%s: %d outcomes, want 1", p, len(out.Answers))
			continue
		}
		if got := out.Answers[0].Text; got != "" {
			t.Errorf("%s: the text is %q, want none", p, got)
		}
		if got := out.Answers[0].Labels; got != nil {
			t.Errorf("%s: the labels are %+v, want none", p, got)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	h := loadHandler(b)
	crop, pixels := drawLine("Images go in, and results come out")
	for b.Loop() {
		if _, err := h.Classify(lane.Classify{Pipeline: "text", Crops: []lane.Crop{crop}}, pixels); err != nil {
			b.Fatal(err)
		}
	}
}
