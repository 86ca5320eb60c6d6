package detectors

import (
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/nets/engines"
)

// loadHandler returns a handler with the pipelines text, codes and faces. It checks that
// pipelines with invalid setups are not loaded.
func loadHandler(t testing.TB) *handler {
	t.Helper()
	h := newHandler()
	out, err := h.Start(lane.Start{Pipelines: map[string]lane.Setup{
		"text":    {Kind: "text-lines"},
		"codes":   {Kind: "codes"},
		"faces":   {Kind: "cascade", Settings: json.RawMessage(`{"cascade":"haarcascade_frontalface_alt2","label":"face"}`)},
		"typo":    {Kind: "cascade", Settings: json.RawMessage(`{"cascde":"x"}`)},
		"missing": {Kind: "cascade", Settings: json.RawMessage(`{"cascade":"nosuch"}`)},
		"unknown": {Kind: "oracle"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"text", "faces", "codes"} {
		if e := out[name].Error; e != "" {
			t.Errorf("%s is not loaded: %s", name, e)
		}
	}
	for name, want := range map[string]string{"typo": "cascde", "missing": "nosuch", "unknown": "oracle"} {
		if got := out[name].Error; !strings.Contains(got, want) {
			t.Errorf("%s: the error is %q, want %q in it", name, got, want)
		}
	}
	return h
}

// newTextPage returns an image file with lines of text, in the grey value ink on the grey value
// paper.
func newTextPage(t testing.TB, ink, paper uint8, lines ...string) []byte {
	t.Helper()
	background := gocv.NewScalar(float64(paper), float64(paper), float64(paper), 0)
	m := gocv.NewMatWithSizeFromScalar(background, 60+60*len(lines), 800, gocv.MatTypeCV8UC3)
	defer m.Close()
	colour := color.RGBA{R: ink, G: ink, B: ink, A: 255}
	for i, l := range lines {
		gocv.PutText(&m, l, image.Pt(40, 70+60*i), gocv.FontHersheyComplex, 1, colour, 2)
	}
	b, err := gocv.IMEncode(gocv.PNGFileExt, m)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	return append([]byte{}, b.GetBytes()...)
}

func TestTextLines(t *testing.T) {
	t.Parallel()
	h := loadHandler(t)
	for name, file := range map[string][]byte{
		"dark on light": newTextPage(t, 0, 255, "The first line,", "and the second", "is not the last."),
		"light on dark": newTextPage(t, 230, 30, "The first line,", "and the second", "is not the last."),
	} {
		out, pixels, err := h.Detect(lane.Detect{Pipeline: "text", MaxRegions: 10, Crops: true}, file)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(out.Regions) != 3 {
			t.Fatalf("%s: %d lines, want 3: %+v", name, len(out.Regions), out.Regions)
		}
		checkCropCount(t, out, pixels, 3)
		for i, r := range out.Regions {
			if top := r.Box.Y; top < 40+60*i-10 || top > 70+60*i {
				t.Errorf("%s: line %d is at %+v", name, i, r.Box)
			}
			c := out.Crops[i]
			checkPixels(t, i, c, pixels[i], 1)
			if c.Height < cropMinHeight/2 || c.Height > cropMaxHeight {
				t.Errorf("%s: crop %d is %d high, want %d to %d", name, i, c.Height, cropMinHeight/2, cropMaxHeight)
			}
			dark := 0
			for _, p := range pixels[i] {
				if p < 128 {
					dark++
				}
			}
			if 2*dark > len(pixels[i]) {
				t.Errorf("%s: crop %d is not dark on light", name, i)
			}
		}
	}
}

// checkCropCount ends the test unless there are this number of crops, each with pixels.
func checkCropCount(t *testing.T, out lane.Detected, pixels [][]byte, want int) {
	t.Helper()
	if len(out.Crops) != want {
		t.Fatalf("%d crops, want %d: %+v", len(out.Crops), want, out.Crops)
	}
	if len(pixels) != want {
		t.Fatalf("pixels of %d crops, want %d", len(pixels), want)
	}
}

func TestTextLines_LimitsRegions(t *testing.T) {
	t.Parallel()
	file := newTextPage(t, 0, 255, "The first", "and the second", "and more")
	out, _, err := loadHandler(t).Detect(lane.Detect{Pipeline: "text", MaxRegions: 2}, file)
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Regions) != 2 {
		t.Errorf("%d regions, want 2, the maximum", len(out.Regions))
	}
	if out.Crops != nil {
		t.Errorf("crops %+v, want none, as none were requested", out.Crops)
	}
}

// TestHandler_BlankPage checks that the regions of a blank page are empty, and not nil.
func TestHandler_BlankPage(t *testing.T) {
	t.Parallel()
	h := loadHandler(t)
	for _, p := range []string{"text", "faces", "codes"} {
		out, _, err := h.Detect(lane.Detect{Pipeline: p, MaxRegions: 10, Crops: true}, newTextPage(t, 255, 255))
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if len(out.Regions) > 0 {
			t.Errorf("%s: regions %+v, want none", p, out.Regions)
		}
		if out.Regions == nil {
			t.Errorf("%s: the regions are nil, want an empty list", p)
		}
	}
}

// TestTextLines_CropsOfLabels checks that lines have the label text, and that they are
// cropped only if that label is requested.
func TestTextLines_CropsOfLabels(t *testing.T) {
	t.Parallel()
	h := loadHandler(t)
	for label, want := range map[string]bool{"text": true, "person": false} {
		request := lane.Detect{Pipeline: "text", MaxRegions: 10, Crops: true, CropLabels: []string{label}}
		got, pixels, err := h.Detect(request, newTextPage(t, 0, 255, "Images go in"))
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Regions) == 0 {
			t.Fatalf("%s: no line is found", label)
		}
		crops := 0
		if want {
			crops = len(got.Regions)
		}
		checkCropCount(t, got, pixels, crops)
	}
}

// TestNewDetector_RejectsSettings checks that invalid settings are rejected by name, before they
// reach OpenCV.
func TestNewDetector_RejectsSettings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ kind, settings, field string }{
		{"cascade", `{"cascade":"haarcascade_frontalface_alt2","scale":1}`, "scale"},
		{"cascade", `{"cascade":"haarcascade_frontalface_alt2","neighbors":-1}`, "neighbors"},
		{"cascade", `{"cascade":"haarcascade_frontalface_alt2","min_size":0}`, "min_size"},
		{"cascade", `{"cascade":"haarcascade_frontalface_alt2","long_side":0}`, "long_side"},
		{"text-lines", `{"long_side":-1}`, "long_side"},
	} {
		setup := lane.Setup{Kind: tt.kind, Settings: json.RawMessage(tt.settings)}
		_, _, err := newDetector(setup, engines.Options{})
		if err == nil {
			t.Errorf("%s %s was accepted", tt.kind, tt.settings)
		} else if !strings.Contains(err.Error(), tt.field) {
			t.Errorf("%s %s: the error is %v, want %s in it", tt.kind, tt.settings, err, tt.field)
		}
	}
}

// TestStart_RejectsSetups checks the whole error of setups that a newcomer writes.
func TestStart_RejectsSetups(t *testing.T) {
	t.Parallel()
	const kinds = ", want one of cascade, codes, model, text-lines"
	for _, tt := range []struct{ kind, settings, want string }{
		{"textlines", "", `detect has no kind "textlines"` + kinds},
		{"", "", `detect has no kind ""` + kinds},
		{"tesseract", `{"languages":"eng"}`, `detect has no kind "tesseract"` + kinds},
		{"text-lines", `{"longside":5}`, "settings.longside: no such setting; known are long_side"},
		{"text-lines", `{"long_side":"x"}`, `settings.long_side: "x", want an integer`},
		{"text-lines", `{"long_side":0}`, "settings.long_side: 0, want 1 or more"},
		{"text-lines", `[5]`, "settings: a list, want an object"},
		{"cascade", `{"cascde":"x"}`, "settings.cascde: no such setting; " +
			"known are cascade, dir, label, long_side, min_size, neighbors, scale"},
		{"codes", `{"formats":"qr-code"}`, `settings.formats: "qr-code", want a list`},
		{"model", `{"model":"m","treshold":0.5}`, "settings.treshold: no such setting; " +
			"known are channels, crop_side, fallback, model, nms, padding, square_crops, threshold"},
		{"model", `{"model":"m","fallback":"text-lines"}`, `settings.fallback: "text-lines", want an object`},
		{"model", "", "settings.model: missing, want the name of a model or the path of a folder"},
		{"model", `{"model":"./m"}`, "load model m: m: the folder does not exist"},
		{"model", `{"model":"m","fallback":{}}`, `detect has no kind ""` + kinds},
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
	if _, _, err := loadHandler(t).Detect(lane.Detect{Pipeline: "absent"}, newTextPage(t, 0, 255)); err == nil {
		t.Error("a request for a pipeline that is not loaded was accepted")
	}
}

// TestHandler_HostileImages checks that each hostile file that passes the header check has a
// result or is rejected as damaged, without ending this process.
func TestHandler_HostileImages(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../../../../shared/realdata/hostile/images/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("no ../shared/realdata: no hostile image was read")
	}
	h, checked := loadHandler(t), 0
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := imagefile.Inspect(data, imagefile.DefaultLimits()); err != nil {
			continue
		}
		checked++
		for _, p := range []string{"text", "faces", "codes"} {
			out, _, err := h.Detect(lane.Detect{Pipeline: p, MaxRegions: 400, Crops: true}, data)
			if err != nil {
				var problem *v1.Problem
				if errors.As(err, &problem); problem == nil || problem.Code != v1.Damaged {
					t.Errorf("%s, %s: %v, want %s", p, f, err, v1.Damaged)
				}
				continue
			}
			if out.Width < 1 {
				t.Errorf("%s, %s: the width is %d", p, f, out.Width)
			}
			if len(out.Crops) != len(out.Regions) {
				t.Errorf("%s, %s: %d crops of %d regions", p, f, len(out.Crops), len(out.Regions))
			}
		}
	}
	if checked == 0 {
		t.Errorf("none of the %d hostile files passes the header check", len(files))
	}
}

func BenchmarkTextLines(b *testing.B) {
	h := loadHandler(b)
	file := newTextPage(b, 0, 255, "The first line,", "and the second", "is not the last.")
	for b.Loop() {
		if _, _, err := h.Detect(lane.Detect{Pipeline: "text", MaxRegions: 10, Crops: true}, file); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCascade(b *testing.B) {
	h := loadHandler(b)
	file := newTextPage(b, 0, 255, "no face here")
	for b.Loop() {
		if _, _, err := h.Detect(lane.Detect{Pipeline: "faces", MaxRegions: 10, Crops: true}, file); err != nil {
			b.Fatal(err)
		}
	}
}
