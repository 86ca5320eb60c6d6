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

func loaded(t testing.TB) *handler {
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
	for name, want := range map[string]string{"text": "", "faces": "", "codes": "", "typo": "cascde", "missing": "nosuch", "unknown": "oracle"} {
		if got := out[name].Error; (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	return h
}

// page is a picture with lines of text, dark on light or light on dark.
func page(t testing.TB, ink, paper uint8, lines ...string) []byte {
	t.Helper()
	m := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(float64(paper), float64(paper), float64(paper), 0), 60+60*len(lines), 800, gocv.MatTypeCV8UC3)
	defer m.Close()
	for i, l := range lines {
		gocv.PutText(&m, l, image.Pt(40, 70+60*i), gocv.FontHersheyComplex, 1, color.RGBA{R: ink, G: ink, B: ink, A: 255}, 2)
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
	h := loaded(t)
	for name, pic := range map[string][]byte{
		"dark on light": page(t, 0, 255, "The first line,", "and the second", "is not the last."),
		"light on dark": page(t, 230, 30, "The first line,", "and the second", "is not the last."),
	} {
		out, pixels, err := h.Detect(lane.Detect{Pipeline: "text", MaxRegions: 10, Crops: true}, pic)
		if err != nil || len(out.Regions) != 3 || len(out.Crops) != 3 || len(pixels) != 3 {
			t.Fatalf("%s: %+v, %v", name, out, err)
		}
		for i, r := range out.Regions {
			if top := r.Box.Y; top < 40+60*i-10 || top > 70+60*i {
				t.Errorf("%s: line %d is at %+v", name, i, r.Box)
			}
			c := out.Crops[i]
			if len(pixels[i]) != c.Width*c.Height || c.Channels != 1 || c.Height < cropMinHeight/2 || c.Height > cropMaxHeight {
				t.Errorf("%s: crop %+v with %d bytes", name, c, len(pixels[i]))
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
	if out, _, err := h.Detect(lane.Detect{Pipeline: "text", MaxRegions: 2}, page(t, 0, 255, "The first", "and the second", "and more")); err != nil || len(out.Regions) != 2 || out.Crops != nil {
		t.Errorf("two at most, no crops: %+v, %v", out, err)
	}
	for _, p := range []string{"text", "faces", "codes"} {
		if out, _, err := h.Detect(lane.Detect{Pipeline: p, MaxRegions: 10, Crops: true}, page(t, 255, 255)); err != nil || len(out.Regions) != 0 || out.Regions == nil {
			t.Errorf("%s on a blank page: %+v, %v", p, out.Regions, err)
		}
	}
}

// TestSettingsOutOfRange: they are refused by name, before OpenCV sees them.
// TestTextLines_CropsOfLabels: lines have the label text, and nothing is cut for another.
func TestTextLines_CropsOfLabels(t *testing.T) {
	t.Parallel()
	h := loaded(t)
	for label, want := range map[string]bool{"text": true, "person": false} {
		request := lane.Detect{Pipeline: "text", MaxRegions: 10, Crops: true, CropLabels: []string{label}}
		got, pixels, err := h.Detect(request, page(t, 0, 255, "Pictures go in"))
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Regions) == 0 {
			t.Fatalf("%s: no line is found", label)
		}
		if cut := len(got.Crops) == len(got.Regions) && len(pixels) == len(got.Crops); cut != want {
			t.Errorf("%s: %d crops of %d regions, with %d pieces of pixels",
				label, len(got.Crops), len(got.Regions), len(pixels))
		}
	}
}

func TestSettingsOutOfRange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ kind, settings, field string }{
		{"cascade", `{"cascade":"haarcascade_frontalface_alt2","scale":1}`, "scale"},
		{"cascade", `{"cascade":"haarcascade_frontalface_alt2","neighbors":-1}`, "neighbors"},
		{"cascade", `{"cascade":"haarcascade_frontalface_alt2","min_size":0}`, "min_size"},
		{"cascade", `{"cascade":"haarcascade_frontalface_alt2","long_side":0}`, "long_side"},
		{"text-lines", `{"long_side":-1}`, "long_side"},
	} {
		if _, _, err := newDetector(lane.Setup{Kind: tt.kind, Settings: json.RawMessage(tt.settings)}, engines.Options{}); err == nil || !strings.Contains(err.Error(), tt.field) {
			t.Errorf("%s %s: %v", tt.kind, tt.settings, err)
		}
	}
}

func TestNoSuchPipeline(t *testing.T) {
	t.Parallel()
	if _, _, err := loaded(t).Detect(lane.Detect{Pipeline: "nobody's"}, page(t, 0, 255)); err == nil {
		t.Error("a pipeline that is not loaded was served")
	}
}

// TestHostilePictures: whatever the check of the header lets through is
// answered or refused, in this process.
func TestHostilePictures(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../../../../shared/realdata/hostile/images/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("no real data")
	}
	h := loaded(t)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := imagefile.Inspect(data, imagefile.DefaultLimits()); err != nil {
			continue
		}
		for _, p := range []string{"text", "faces", "codes"} {
			out, _, err := h.Detect(lane.Detect{Pipeline: p, MaxRegions: 400, Crops: true}, data)
			var problem *v1.Problem
			if err != nil && (!errors.As(err, &problem) || problem.Code != v1.Damaged) {
				t.Errorf("%s: %v", f, err)
			}
			if err == nil && (out.Width < 1 || len(out.Regions) != len(out.Crops)) {
				t.Errorf("%s: %+v", f, out)
			}
		}
	}
}

func BenchmarkTextLines(b *testing.B) {
	h := loaded(b)
	pic := page(b, 0, 255, "The first line,", "and the second", "is not the last.")
	for b.Loop() {
		if _, _, err := h.Detect(lane.Detect{Pipeline: "text", MaxRegions: 10, Crops: true}, pic); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCascade(b *testing.B) {
	h := loaded(b)
	pic := page(b, 0, 255, "no face here")
	for b.Loop() {
		if _, _, err := h.Detect(lane.Detect{Pipeline: "faces", MaxRegions: 10, Crops: true}, pic); err != nil {
			b.Fatal(err)
		}
	}
}
