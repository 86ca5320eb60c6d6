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

// libgomp reads OMP_THREAD_LIMIT when the program is loaded.
func TestMain(m *testing.M) {
	if os.Getenv("OMP_THREAD_LIMIT") != "1" {
		err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "OMP_THREAD_LIMIT=1"))
		panic(err)
	}
	os.Exit(m.Run())
}

func loaded(t testing.TB) *handler {
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
		"text": "", "faces": "", "typo": "langs", "missing": "xyz", "none": "languages", "percent": "min_score", "unknown": "oracle", "nowhere": "/no/such/folder",
	} {
		if got := out[name].Error; (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string][]string{
		"text": {"tesseract-eng", "tesseract-chi_sim"}, "faces": {"haarcascade_eye", "haarcascade_eye_tree_eyeglasses", "haarcascade_smile"},
	} {
		if got := out[name].Models; !slices.EqualFunc(got, want, func(m v1.Model, n string) bool { return m.Name == n }) {
			t.Errorf("%s: models %+v, want %v", name, got, want)
		}
	}
	return h
}

// drawn is a line of text as detect would cut it.
func drawn(text string) (lane.Crop, []byte) {
	m := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(255, 0, 0, 0), 48, 24*len(text)+20, gocv.MatTypeCV8UC1)
	defer m.Close()
	gocv.PutText(&m, text, image.Pt(8, 36), gocv.FontHersheyComplex, 1.1, color.RGBA{}, 2)
	return lane.Crop{Width: m.Cols(), Height: m.Rows(), Channels: 1}, m.ToBytes()
}

func TestReadLine(t *testing.T) {
	t.Parallel()
	h := loaded(t)
	crop, pixels := drawn("Pictures go in")
	blank := lane.Crop{Region: 1, Width: 100, Height: 48, Channels: 1}
	out, err := h.Classify(lane.Classify{Pipeline: "text", Crops: []lane.Crop{crop, blank}}, append(pixels, make([]byte, 4800)...))
	if err != nil || len(out.Answers) != 2 || out.Timing.InferMS <= 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	a := out.Answers[0]
	if a.Text != "Pictures go in" || a.Drop || a.Score < 0.8 || len(a.Words) != 3 {
		t.Errorf("read %+v", a)
	}
	for _, w := range a.Words {
		if w.Box.X < 0 || w.Box.Y < 0 || w.Box.X+w.Box.Width > crop.Width || w.Box.Y+w.Box.Height > crop.Height || w.Box.Width <= 0 {
			t.Errorf("word %+v is not in %+v", w, crop)
		}
	}
	if !out.Answers[1].Drop || out.Answers[1].Region != 1 {
		t.Errorf("nothing was read as %+v", out.Answers[1])
	}
}

func TestAttributes(t *testing.T) {
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
		if got := attributes(tt.eyes, tt.behind, tt.smile); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCropsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	h := loaded(t)
	for _, c := range []lane.Crop{
		{Width: 10, Height: 10, Channels: 3}, {Width: 5, Height: 5, Channels: 2}, {Width: -1, Height: -1, Channels: 1},
		{Width: 11, Height: 10, Channels: 1}, {Width: -1, Height: 10, Channels: 1},
	} {
		_, err := h.Classify(lane.Classify{Pipeline: "text", Crops: []lane.Crop{c}}, make([]byte, 100))
		var p *v1.Problem
		if !errors.As(err, &p) || p.Code != v1.InvalidMessage {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := h.Classify(lane.Classify{Pipeline: "nobody's"}, nil); err == nil {
		t.Error("a pipeline that is not loaded was served")
	}
	// One pixel is as small as a crop can be.
	for _, p := range []string{"text", "faces"} {
		if out, err := h.Classify(lane.Classify{Pipeline: p, Crops: []lane.Crop{{Width: 1, Height: 1, Channels: 1}}}, []byte{0}); err != nil || len(out.Answers) != 1 || out.Answers[0].Text != "" || out.Answers[0].Labels != nil {
			t.Errorf("%s: one pixel is %+v, %v", p, out, err)
		}
	}
}

func BenchmarkReadLine(b *testing.B) {
	h := loaded(b)
	crop, pixels := drawn("Pictures go in, and what is in them")
	for b.Loop() {
		if _, err := h.Classify(lane.Classify{Pipeline: "text", Crops: []lane.Crop{crop}}, pixels); err != nil {
			b.Fatal(err)
		}
	}
}
